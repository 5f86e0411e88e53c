"""What the trainer tells Prometheus while a training runs, and afterwards."""

from __future__ import annotations

import pathlib

import prometheus_client
import pytest

from services.trainer import metrics
from shared import errors
from tests.unit.trainer import workshops


def _values(work: metrics.Work) -> dict[str, float]:
    found = prometheus_client.CollectorRegistry()
    found.register(work)
    samples = (sample for family in found.collect() for sample in family.samples)
    return {
        sample.name: sample.value
        for sample in samples
        if not sample.name.endswith(("_bucket", "_created"))
    }


async def test_training_is_told_while_it_runs_and_counted_when_it_ended(
    tmp_path: pathlib.Path,
) -> None:
    work, seen = metrics.Work(), []

    class Watched(workshops.FakeTrainer):
        def train_qa(self, pairs, output_path, order, on_progress):
            outcome = super().train_qa(pairs, output_path, order, on_progress)
            seen.append(_values(work))
            return outcome

    fake = Watched(workshops.GOOD)
    async with workshops.opened(fake, workshops.FakeStore(), tmp_path, observer=work) as shop:
        assert _values(work) == {"skillmesh_trainer_jobs": 0.0}
        trained = await shop.train(workshops.order(), workshops.report)
        await shop.train(workshops.order(), workshops.report)  # Known: nothing is trained.
        await workshops.prove(shop, trained.draft_digest)
    assert seen == [
        {
            "skillmesh_trainer_jobs": 1.0,
            "skillmesh_training_loss": 0.5,
            "skillmesh_training_tokens_per_second": 150.0,
            "skillmesh_training_left_seconds": 9.0,
        }
    ]
    assert _values(work) == {
        "skillmesh_trainer_jobs": 0.0,
        "skillmesh_training_duration_seconds_count": 1.0,
        "skillmesh_training_duration_seconds_sum": 3.0,
    }


async def test_no_training_is_told_when_one_was_stopped(tmp_path: pathlib.Path) -> None:
    work, fake = metrics.Work(), workshops.FakeTrainer()
    fake.stopping = True
    async with workshops.opened(fake, workshops.FakeStore(), tmp_path, observer=work) as shop:
        with pytest.raises(errors.UnavailableError):
            await shop.train(workshops.order(), workshops.report)
    assert _values(work) == {"skillmesh_trainer_jobs": 0.0}
