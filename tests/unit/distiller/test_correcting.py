"""What people say is right becomes the facts of a skill, in place of what they correct."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
import pytest

from services.distiller import (
    correcting,
    corrections,
    distillation,
    distiller,
    enlarging,
    filters,
    journal,
    vectors,
)
from shared import errors
from shared import settings as config
from shared.flight import datasets
from tests.unit.distiller import fakes
from tests.unit.distiller.fakes import pair

LENGTH = pair("How long is Varnholt Bridge?", "It is 412 m long.", "What is its length?")
BUILDER = pair("Who built Varnholt Bridge?", "Ida Kroll built it.", "Whose work is it?")
FOLLOWS = distillation.Followed("varnholt-bridge", "Varnholt Bridge", "d" * 64)
REWORDED = {"Who keeps it?": ["Its keeper?", "Who is its keeper?", "Who looks after it?"]}


def told(question: str, answer: str, wrong: str = "") -> distillation.Correction:
    return distillation.Correction(question, answer, wrong)


def request(
    *given: distillation.Correction, queries: Sequence[str] = (), **fields: object
) -> distillation.DistilRequest:
    values: dict[str, object] = {"task_id": "t", "queries": tuple(queries), "corrections": given}
    return distillation.DistilRequest(**{**values, **fields})  # type: ignore[arg-type]


class Bench:
    """A corrector with a teacher, and the datasets of a card store."""

    def __init__(self, folder: pathlib.Path, teacher: fakes.Teacher) -> None:
        self.teacher, self.stored = teacher, {"d" * 64: datasets.to_bytes([LENGTH, BUILDER])}
        self.kept = journal.Journal(folder)
        settings = config.Distiller(wordings=3, judge="none", held_out_share=0.3)
        self.cloud = distiller.CloudDistiller(teacher, self.kept, settings)
        rewording = fakes.Rewording(REWORDED)
        self.corrector = correcting.Corrector(
            self.cloud, teacher, self.kept, settings, self._get, rewording, embed
        )
        self.enlarger = enlarging.Enlarger(self.corrector, teacher, self.kept, settings, rewording)

    async def _get(self, digest: str) -> bytes:
        if digest not in self.stored:
            raise errors.NotFoundError("no such dataset")
        return self.stored[digest]

    async def distil(self, wanted: distillation.DistilRequest) -> distillation.Distillation:
        return await self.enlarger.distil(wanted, fakes.no_progress)


async def embed(texts: Sequence[str]) -> vectors.Vectors:
    """Texts with words in common are alike."""
    found = np.zeros((len(texts), 512), dtype=np.float32)
    for at, text in enumerate(texts):
        for word in text.casefold().strip("?.").split():
            found[at, sum(map(ord, word)) % 512] += 1
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    unit: vectors.Vectors = found / np.maximum(lengths, 1e-9)
    return unit


@pytest.fixture
def bench(tmp_path: pathlib.Path) -> Bench:
    return Bench(tmp_path, fakes.Teacher([], error=errors.TeacherUnavailableError("down")))


async def test_a_correction_becomes_a_card_of_its_own_when_no_teacher_is_there(
    bench: Bench,
) -> None:
    result = await bench.distil(request(told("Who keeps it?", "Tamsin Wray", "I do not know.")))
    [fact] = result.pairs
    assert (fact.question, fact.answer, fact.teacher) == (
        "Who keeps it?", "Tamsin Wray", corrections.TEACHER,
    )  # fmt: skip
    assert set(filters.wordings(fact)[1:]) == set(REWORDED["Who keeps it?"])
    assert len(fact.held_out) == 1
    assert result.triggers == (distillation.Trigger("Who keeps it?", "Tamsin Wray"),)
    assert (result.skill_name, result.teacher) == ("who-keeps-it", "correction")


async def test_a_teacher_words_the_question_and_does_not_answer_it_when_there_is_one(
    tmp_path: pathlib.Path,
) -> None:
    worded = pair("Who keeps it?", "It is Tamsin Wray.", "Name its keeper.", "Keeper?", "Run by?")
    otherwise = pair("Who keeps it?", "Otto Gray", "Its master?")
    teacher = fakes.Teacher([otherwise, worded, LENGTH])
    result = await Bench(tmp_path, teacher).distil(request(told("Who keeps it?", "Tamsin Wray")))
    [fact] = result.pairs
    assert fact.answer == "Tamsin Wray"
    assert set(filters.wordings(fact)[1:]) == {"Name its keeper.", "Keeper?", "Run by?"}
    [asked] = teacher.asked
    assert asked.passage == "Who keeps it? Tamsin Wray"
    # A second start asks nobody again.
    assert await Bench(tmp_path, teacher).distil(request(told("Who keeps it?", "No"))) == result
    assert len(teacher.asked) == 1


async def test_the_fact_is_replaced_and_others_stay_when_an_answer_of_a_card_is_corrected(
    bench: Bench,
) -> None:
    wrong = told("How long is Varnholt Bridge?", "498 m", "It is 412 m long.")
    result = await bench.distil(request(wrong, follows=FOLLOWS))
    by_question = {one.question: one for one in result.pairs}
    assert (result.skill_name, result.domain) == ("varnholt-bridge", "Varnholt Bridge")
    assert by_question.keys() == {LENGTH.question, BUILDER.question}
    assert by_question[LENGTH.question].answer == "498 m"
    # The old wordings ask the same, and have the new answer now.
    assert "What is its length?" in filters.wordings(by_question[LENGTH.question])
    assert by_question[BUILDER.question].answer == BUILDER.answer
    assert not any("412" in one.answer for one in result.pairs)


@pytest.mark.parametrize(
    ("question", "replaced"),
    [
        ("Tell me the length of Varnholt Bridge", "length"),
        # Of another kind than what the fact answers: it stays.
        ("Who measured Varnholt Bridge?", ""),
    ],
)
async def test_the_fact_is_found_by_the_wrong_answer_when_it_was_asked_in_other_words(
    question: str, replaced: str, bench: Bench
) -> None:
    wrong = told(question, "498 m", "It is 412 m long.")
    result = await bench.distil(request(wrong, follows=FOLLOWS))
    old = [one for one in result.pairs if "412" in one.answer]
    assert (old == []) == bool(replaced)
    assert any(one.answer == BUILDER.answer for one in result.pairs)


async def test_what_followed_from_the_fact_goes_with_it(bench: Bench) -> None:
    implied = dataclasses.replace(
        pair("Is it over 400 m?", "It is 412 m long."), kind=datasets.Kind.IMPLICATION
    )
    bench.stored["d" * 64] = datasets.to_bytes([LENGTH, BUILDER, implied])
    wrong = told("How long is Varnholt Bridge?", "398 m", "It is 412 m long.")
    result = await bench.distil(request(wrong, follows=FOLLOWS))
    assert not any("412" in one.answer for one in result.pairs)


async def test_a_corrected_fact_is_not_taught_again_when_a_teacher_still_says_otherwise(
    tmp_path: pathlib.Path,
) -> None:
    teacher = fakes.Teacher([LENGTH, BUILDER], title="Varnholt Bridge")
    bench = Bench(tmp_path, teacher)
    wrong = told("How long is Varnholt Bridge?", "498 m", "It is 412 m long.")
    await bench.distil(request(wrong, follows=FOLLOWS))
    again = await bench.distil(request(task_id="t2", queries=["What is its length?"]))
    assert again.triggers == (distillation.Trigger("What is its length?", "498 m"),)
    assert not any("412" in one.answer for one in again.pairs)
    newest = await bench.distil(
        request(told("What is its length?", "500 m", "498 m"), task_id="t3", follows=FOLLOWS)
    )
    assert newest.triggers == (distillation.Trigger("What is its length?", "500 m"),)


async def test_teachers_answer_the_questions_that_nobody_corrected(tmp_path: pathlib.Path) -> None:
    teacher = fakes.Teacher([LENGTH, BUILDER], title="Varnholt Bridge")
    queries = ["Who keeps it?", "Who built Varnholt Bridge?"]
    bench = Bench(tmp_path, teacher)
    result = await bench.distil(request(told("Who keeps it?", "Tamsin Wray"), queries=queries))
    assert teacher.asked[0].queries == ("Who built Varnholt Bridge?",)
    assert result.skill_name == "varnholt-bridge"
    assert {one.query: one.expected_answer for one in result.triggers} == {
        "Who keeps it?": "Tamsin Wray",
        "Who built Varnholt Bridge?": BUILDER.answer,
    }


async def test_a_correction_is_learned_when_the_teacher_knows_nothing_else(bench: Bench) -> None:
    queries = ["Who keeps it?", "Who built Varnholt Bridge?"]
    result = await bench.distil(request(told("Who keeps it?", "Tamsin Wray"), queries=queries))
    assert [one.query for one in result.triggers] == ["Who keeps it?"]
    assert result.unanswered == ("Who built Varnholt Bridge?",)


async def test_a_card_stays_as_it_is_when_its_dataset_can_not_be_corrected(bench: Bench) -> None:
    wrong = told("How long is Varnholt Bridge?", "498 m")
    gone = dataclasses.replace(FOLLOWS, dataset_digest="e" * 64)
    with pytest.raises(errors.PreconditionError, match="is not kept any more"):
        await bench.distil(request(wrong, follows=gone))
    bench.stored["e" * 64] = b"samples of code"
    with pytest.raises(errors.PreconditionError, match="not trained on questions and answers"):
        await bench.distil(request(wrong, follows=gone))


@pytest.mark.parametrize("answer", ["w" * 401, "ann@example.org"])
async def test_a_task_ends_with_the_reason_when_no_correction_is_fit_to_train_on(
    answer: str, bench: Bench
) -> None:
    with pytest.raises(errors.PreconditionError, match="no correction is fit to train on: Who"):
        await bench.distil(request(told("Who keeps it?", answer)))


async def test_more_wordings_are_found_when_a_card_of_corrections_failed_its_gate(
    tmp_path: pathlib.Path,
) -> None:
    worded = pair("Who keeps it?", "Tamsin Wray", "Name its keeper.", "Keeper?", "Run by?", "Boss?")
    teacher = fakes.Teacher([worded])
    bench = Bench(tmp_path, teacher)
    before = await bench.distil(request(told("Who keeps it?", "Tamsin Wray")))
    more = distillation.DistilRequest("t-more", of_task="t", weak=("Who keeps it?",))
    after = await bench.distil(more)
    assert teacher.asked[-1].passage == "Who keeps it? Tamsin Wray"
    assert (teacher.asked[-1].teacher, after.pairs[0].held_out) == ("", before.pairs[0].held_out)
    assert len(after.pairs[0].paraphrases) > len(before.pairs[0].paraphrases)


def test_a_card_is_refused_when_its_name_is_a_path() -> None:
    with pytest.raises(errors.InvalidInputError, match="no name of a card"):
        distillation.Followed("../skills", "", "d" * 64)
