"""More wordings for what a card answered wrong."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

from services.distiller import distillation, distiller, enlarging, journal
from shared import errors
from shared import settings as config
from shared.flight import datasets
from tests.unit.distiller import fakes
from tests.unit.distiller.fakes import pair

LENGTH = pair("How long is it?", "412 m", "What is its length?")
BUILDER = pair("Who built it?", "Ida Kroll", "Whose work is it?")
KEPT = {"How long is it?": ["Is it long?", "Its extent?"], "Who built it?": ["Its builder?"]}
MORE = distillation.DistilRequest("t-more", of_task="t", weak=("What is its LENGTH?",))


def _enlarger(
    teacher: fakes.Teacher, folder: pathlib.Path, rewording: fakes.Rewording | None = None
) -> enlarging.Enlarger:
    settings = config.Distiller(wordings=2, held_out_share=0)
    kept = journal.Journal(folder)
    cloud = distiller.CloudDistiller(teacher, kept, settings)
    return enlarging.Enlarger(cloud, teacher, kept, settings, rewording)


async def _distilled(folder: pathlib.Path) -> distillation.Distillation:
    first = _enlarger(fakes.Teacher([LENGTH, BUILDER]), folder)
    request = distillation.DistilRequest("t", ("How long is it?",))
    return await first.distil(request, fakes.no_progress)


async def test_only_the_weak_fact_grows_when_its_question_is_named(tmp_path: pathlib.Path) -> None:
    before = await _distilled(tmp_path)
    teacher = fakes.Teacher([], error=errors.TeacherUnavailableError("down"))
    enlarger = _enlarger(teacher, tmp_path, fakes.Rewording(KEPT))
    after = await enlarger.distil(MORE, fakes.no_progress)
    length, builder = after.pairs
    assert length.paraphrases == ("What is its length?", "Is it long?", "Its extent?")
    assert builder == BUILDER
    assert dataclasses.replace(after, pairs=before.pairs) == before


async def test_every_fact_grows_when_none_is_named(tmp_path: pathlib.Path) -> None:
    await _distilled(tmp_path)
    enlarger = _enlarger(fakes.Teacher([]), tmp_path, fakes.Rewording(KEPT))
    request = distillation.DistilRequest("t-more", of_task="t")
    after = await enlarger.distil(request, fakes.no_progress)
    assert [len(one.paraphrases) for one in after.pairs] == [3, 2]


async def test_teacher_is_asked_once_and_first_when_it_knows_more_wordings(
    tmp_path: pathlib.Path,
) -> None:
    await _distilled(tmp_path)
    told = pair("How long is it?", "It is 412 m.", "Tell me the length.", "Length?", "Metres?")
    wrong = pair("How long is it?", "400 m", "A wrong one?")
    other = pair("Who built it?", "Ida Kroll", "Another fact?")
    teacher = fakes.Teacher([wrong, told, other])
    enlarger = _enlarger(teacher, tmp_path, fakes.Rewording(KEPT))
    after = await enlarger.distil(MORE, fakes.no_progress)
    assert await enlarger.distil(MORE, fakes.no_progress) == after
    # Four at most: twice the two that are usual.
    assert after.pairs[0].paraphrases == (
        "What is its length?", "Tell me the length.", "Length?", "Metres?",
    )  # fmt: skip
    (call,) = teacher.asked
    assert (call.queries, call.wordings) == (("How long is it?",), 4)
    assert call.teacher == "fake"  # Who told the fact.
    assert call.task_id == "t"  # Whose budget pays.


async def test_no_wording_is_trained_when_the_gate_asks_it_or_another_fact_has_it(
    tmp_path: pathlib.Path,
) -> None:
    await _distilled(tmp_path)
    kept = journal.Journal(tmp_path)
    result = kept.result("t")
    assert result is not None
    held = dataclasses.replace(LENGTH, held_out=("Is it long?",))
    kept.keep_result("t", dataclasses.replace(result, pairs=(held, BUILDER)))
    table = {
        "How long is it?": [
            "Long, is it?",
            "Please, is it long?",
            "Whose work is it?",
            "Its extent?",
        ]
    }
    enlarger = _enlarger(fakes.Teacher([]), tmp_path, fakes.Rewording(table))
    after = await enlarger.distil(MORE, fakes.no_progress)
    assert after.pairs[0].paraphrases == ("What is its length?", "Its extent?")
    assert after.pairs[0].held_out == ("Is it long?",)


async def test_no_wording_is_trained_that_a_fact_with_the_same_answer_holds_out(
    tmp_path: pathlib.Path,
) -> None:
    await _distilled(tmp_path)
    kept = journal.Journal(tmp_path)
    result = kept.result("t")
    assert result is not None
    twin = dataclasses.replace(BUILDER, answer="412 M", held_out=("How far does it reach?",))
    kept.keep_result("t", dataclasses.replace(result, pairs=(LENGTH, twin)))
    table = {"How long is it?": ["Please, how far does it reach?", "Its extent?"]}
    enlarger = _enlarger(fakes.Teacher([]), tmp_path, fakes.Rewording(table))
    after = await enlarger.distil(MORE, fakes.no_progress)
    assert after.pairs[0].paraphrases == ("What is its length?", "Its extent?")


async def test_no_wording_is_trained_that_is_private_or_in_another_language(
    tmp_path: pathlib.Path,
) -> None:
    await _distilled(tmp_path)
    asks = "How long is it?"
    told = [
        pair(asks, "412 m", "How long is it, kim.orun@example.org?", "Its extent?"),
        pair("Wie lang ist die alte Brücke über den Fluss?", "412 m", asks, "Wie weit reicht sie?"),
    ]
    after = await _enlarger(fakes.Teacher(told), tmp_path).distil(MORE, fakes.no_progress)
    assert after.pairs[0].paraphrases == ("What is its length?", "Its extent?")


async def test_each_fact_is_asked_of_its_own_teacher_when_one_of_them_knows_no_more(
    tmp_path: pathlib.Path,
) -> None:
    told = [dataclasses.replace(LENGTH, teacher="ann"), BUILDER]
    request = distillation.DistilRequest("t", ("How long is it?",))
    await _enlarger(fakes.Teacher(told), tmp_path).distil(request, fakes.no_progress)
    teacher = fakes.Teacher([], error=errors.NotFoundError("nothing more"))
    more = distillation.DistilRequest("t-more", of_task="t")
    await _enlarger(teacher, tmp_path).distil(more, fakes.no_progress)
    assert [(call.teacher, call.queries) for call in teacher.asked] == [
        ("ann", ("How long is it?",)), ("fake", ("Who built it?",)),
    ]  # fmt: skip


async def test_task_is_named_when_it_was_not_distilled_here(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.NotFoundError, match="task t was not distilled here"):
        await _enlarger(fakes.Teacher([LENGTH]), tmp_path).distil(MORE, fakes.no_progress)


async def test_pairs_are_as_before_when_nobody_knows_more(tmp_path: pathlib.Path) -> None:
    before = await _distilled(tmp_path)
    after = await _enlarger(fakes.Teacher([LENGTH]), tmp_path).distil(MORE, fakes.no_progress)
    assert datasets.to_bytes(after.pairs) == datasets.to_bytes(before.pairs)
