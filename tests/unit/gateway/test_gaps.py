"""Which learning tasks are gaps: questions that no card fitted."""

from __future__ import annotations

from services.gateway import domain
from tests import fake_holdings


def test_gaps_are_what_the_router_noticed_when_others_were_taught_or_corrected() -> None:
    noticed = fake_holdings.task(1, "How deep is it?", "TRAINING", stage_times=TIMES)
    corrected = fake_holdings.task(2, "How high is it?", "COMPLETED", stage_times=LATER)
    taught = fake_holdings.task(3, "handbook.md", "PENDING")
    earlier = fake_holdings.task(4, "How old is it?", "PENDING", stage_times=TIMES)
    assert domain.gaps([noticed, corrected, taught, earlier]) == [noticed, earlier]


def test_gap_that_is_tried_again_stays_one_when_the_router_did_not_notice_it_twice() -> None:
    failed = fake_holdings.task(5, "How deep is it?", "FAILED", stage_times=TIMES)
    taught = fake_holdings.task(4, "handbook.md", "FAILED")
    once_more = fake_holdings.task(3, "handbook.md", "PENDING", retry_of=taught.id)
    again = fake_holdings.task(2, "How deep is it?", "FAILED", retry_of=failed.id)
    at_last = fake_holdings.task(1, "How deep is it?", "PENDING", retry_of=again.id)
    told = [at_last, again, once_more, taught, failed]
    assert domain.gaps(told) == [at_last, again, failed]


TIMES = fake_holdings.TIMES[:1]
LATER = fake_holdings.TIMES[1:]
