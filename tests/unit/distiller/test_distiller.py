"""The way from a request to a distillation, with a teacher that says what the test wants."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence

import pytest

from services.distiller import distillation, distiller, journal, plan
from services.distiller.providers import base
from shared import errors
from shared import settings as config
from shared.flight import datasets
from tests.unit.distiller import fakes
from tests.unit.distiller.fakes import pair

LENGTH = pair("How long is it?", "412 m", "What is its length?")
BUILDER = pair("Who built it?", "Ida Kroll")
BUILT = pair("When was it built?", "1871")


def _distiller(
    teacher: base.CloudProvider,
    folder: pathlib.Path,
    rewording: fakes.Rewording | None = None,
    **changes: object,
) -> distiller.CloudDistiller:
    settings = config.Distiller.model_validate(changes)
    return distiller.CloudDistiller(teacher, journal.Journal(folder), settings, rewording)


async def test_triggers_are_matched_when_the_teacher_answers_some(tmp_path: pathlib.Path) -> None:
    teacher = fakes.Teacher([LENGTH, BUILDER], title="Varnholt Bridge", summary="It is old.")
    request = distillation.DistilRequest(
        "t", ("What is its LENGTH", "What colour is it?", "Who built it?")
    )
    result = await _distiller(teacher, tmp_path).distil(request, fakes.no_progress)
    assert result == distillation.Distillation(
        pairs=(LENGTH, BUILDER),
        skill_name="varnholt-bridge",
        domain="Varnholt Bridge",
        description="2 facts about Varnholt Bridge, such as: How long is it? It is old.",
        teacher="fake",
        triggers=(
            distillation.Trigger("What is its LENGTH", "412 m"),
            distillation.Trigger("Who built it?", "Ida Kroll"),
        ),
        unanswered=("What colour is it?",),
    )


async def test_not_found_says_what_to_do_when_no_query_was_answered(
    tmp_path: pathlib.Path,
) -> None:
    request = distillation.DistilRequest("t", ("What colour is it?",))
    with pytest.raises(errors.NotFoundError, match=r"What colour.*knowledge_dir.*provider_type"):
        await _distiller(fakes.Teacher([LENGTH]), tmp_path).distil(request, fakes.no_progress)


async def test_reason_of_the_teacher_is_kept_when_it_knows_nothing(tmp_path: pathlib.Path) -> None:
    teacher = fakes.Teacher([], error=errors.NotFoundError("no document is near"))
    request = distillation.DistilRequest("t", ("Q?",))
    with pytest.raises(errors.NotFoundError, match="no document is near"):
        await _distiller(teacher, tmp_path).distil(request, fakes.no_progress)


async def test_topic_names_the_skill_when_the_teacher_has_no_title(tmp_path: pathlib.Path) -> None:
    request = distillation.DistilRequest("t", topic="The Bridge, again")
    result = await _distiller(fakes.Teacher([LENGTH]), tmp_path).distil(request, fakes.no_progress)
    assert (result.skill_name, result.triggers) == ("the-bridge-again", ())


@pytest.mark.parametrize(
    "request_",
    [distillation.DistilRequest("t"), distillation.DistilRequest("t", ("?", " "), " "),
     distillation.DistilRequest("", ("Q?",))],
)  # fmt: skip
async def test_request_is_refused_when_it_names_nothing(
    request_: distillation.DistilRequest, tmp_path: pathlib.Path
) -> None:
    teacher = fakes.Teacher([LENGTH])
    with pytest.raises(errors.InvalidInputError):
        await _distiller(teacher, tmp_path).distil(request_, fakes.no_progress)
    assert teacher.asked == []


async def test_wordings_are_filled_up_when_the_teacher_gave_too_few(
    tmp_path: pathlib.Path,
) -> None:
    rewording = fakes.Rewording(
        {
            "How long is it?": ["what is its length", "who built it", "Length of it?", "Size?"],
            "Who built it?": ["Its builder?", "Size?"],
        }
    )
    request = distillation.DistilRequest("t", ("Who built it?",))
    result = await _distiller(
        fakes.Teacher([LENGTH, BUILDER]), tmp_path, rewording, wordings=3, held_out_share=0.0
    ).distil(request, fakes.no_progress)
    # `Who built it` belongs to the other fact, and `Size?` would have had two answers.
    assert [one.paraphrases for one in result.pairs] == [
        ("Its builder?",),
        ("What is its length?", "Length of it?"),
    ]


async def test_text_is_not_reworded_when_it_only_begins_an_answer(tmp_path: pathlib.Path) -> None:
    begun = "What follows? Go on: The keeper had to ..."
    rewording = fakes.Rewording({begun: ["Name the follows."], "Who built it?": ["Its builder?"]})
    teacher = fakes.Teacher([BUILDER, pair(begun, "The keeper had to climb.")])
    request = distillation.DistilRequest("t", ("Who built it?",))
    result = await _distiller(teacher, tmp_path, rewording).distil(request, fakes.no_progress)
    assert [one.paraphrases for one in result.pairs] == [("Its builder?",), ()]


async def test_facts_are_capped_when_the_teacher_gives_more(tmp_path: pathlib.Path) -> None:
    request = distillation.DistilRequest("t", ("Who built it?",))
    result = await _distiller(fakes.Teacher([LENGTH, BUILDER]), tmp_path, max_facts=1).distil(
        request, fakes.no_progress
    )
    assert result.pairs == (BUILDER,)


async def test_only_missing_calls_are_made_when_a_distillation_was_interrupted(
    tmp_path: pathlib.Path,
) -> None:
    queries = tuple(f"Question number {at}?" for at in range(12))
    teacher = _Interrupted([pair(query, f"Answer {at}") for at, query in enumerate(queries)])
    request = distillation.DistilRequest("t", queries)
    with pytest.raises(errors.TeacherUnavailableError):
        await _distiller(teacher, tmp_path, judge="none").distil(request, fakes.no_progress)
    again = _distiller(teacher, tmp_path, judge="none")
    result = await again.distil(request, fakes.no_progress)
    assert [call.queries for call in teacher.asked] == [queries[:8], queries[8:], queries[8:]]
    assert len(result.triggers) == 12


async def test_only_missing_calls_are_made_when_a_cancelled_task_is_tried_again(
    tmp_path: pathlib.Path,
) -> None:
    teacher = fakes.Teacher([LENGTH, BUILDER])
    teacher.queries_a_call = 1
    queries = ("How long is it?", "Who built it?")
    settings = config.Distiller()
    first = plan.calls(distillation.DistilRequest("t1", queries), settings, 1)[0]
    journal.Journal(tmp_path).keep_answer("t1", first, [LENGTH])
    request = distillation.DistilRequest("t3", queries, retry_of=("t2", "t1"))
    await _distiller(teacher, tmp_path, judge="none").distil(request, fakes.no_progress)
    assert [call.queries for call in teacher.asked] == [("Who built it?",)]


async def test_teacher_is_asked_anew_when_its_answers_came_to_nothing(
    tmp_path: pathlib.Path,
) -> None:
    first = distillation.DistilRequest("t1", ("What colour is it?",))
    with pytest.raises(errors.NotFoundError):
        await _distiller(fakes.Teacher([LENGTH]), tmp_path).distil(first, fakes.no_progress)
    teacher = fakes.Teacher([pair("What colour is it?", "grey")])
    again = dataclasses.replace(first, task_id="t2", retry_of=("t1",))
    result = await _distiller(teacher, tmp_path).distil(again, fakes.no_progress)
    assert [trigger.expected_answer for trigger in result.triggers] == ["grey"]


async def test_call_is_made_again_when_its_journal_file_is_damaged(tmp_path: pathlib.Path) -> None:
    kept = journal.Journal(tmp_path)
    call = plan.calls(distillation.DistilRequest("t", ("Q?",)), config.Distiller(), 8)[0]
    kept.keep_answer("t", call, [LENGTH])
    assert kept.answer("t", call) == [LENGTH]
    assert kept.answer("other", call) is None
    (path,) = tmp_path.rglob("*.json")
    path.write_bytes(b"{")
    assert kept.answer("t", call) is None


PASSAGE = "The bridge\nIt is 412 m long. Ida Kroll built it in 1871. It is painted red."


def _told(question: str, answer: str) -> datasets.QAPair:
    return dataclasses.replace(pair(question, answer), passage=PASSAGE)


async def test_rejected_pairs_are_kept_with_their_reasons_when_others_are_good(
    tmp_path: pathlib.Path,
) -> None:
    teacher = fakes.Teacher(
        [
            _told("How long is it?", "412 m"),
            _told("Who built it?", "Eve Stone"),
            _told("What colour is it painted?", "red"),
            pair("What is that?", " "),
        ]
    )
    request = distillation.DistilRequest("t", ("How long is it?", "Who built it?"))
    result = await _distiller(teacher, tmp_path).distil(request, fakes.no_progress)
    assert [one.answer for one in result.pairs] == ["412 m", "red"]
    assert result.unanswered == ("Who built it?",)
    assert result.rejected == {"shape": 1, "unsupported": 1}
    path = journal.Journal(tmp_path).rejected_path("t")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(line["reason"], line["pair"]["answer"]) for line in lines] == [
        ("shape", " "),
        ("unsupported", "Eve Stone"),
    ]
    # Finished: asked again, the same counts come from the disk.
    again = await _distiller(teacher, tmp_path).distil(request, fakes.no_progress)
    assert again == result


async def test_task_fails_with_its_reasons_when_too_few_facts_are_left(
    tmp_path: pathlib.Path,
) -> None:
    teacher = fakes.Teacher([_told("Who built it?", "Eve Stone"), _told("How long?", "412 m")])
    request = distillation.DistilRequest("t", ("Who built it?",))
    with pytest.raises(
        errors.TeacherError, match=r"1 of 2 .*least_facts.*1 unsupported.*rejected\.jsonl"
    ):
        await _distiller(teacher, tmp_path, least_facts=2).distil(request, fakes.no_progress)


async def test_task_fails_when_too_much_of_what_the_teacher_said_is_wrong(
    tmp_path: pathlib.Path,
) -> None:
    wrong = [_told("Who built it?", "Eve Stone"), _told("When was it built?", "1902")]
    good = [_told("How long is it?", "412 m"), _told("What colour is it painted?", "red")]
    request = distillation.DistilRequest("t", topic="the bridge")
    with pytest.raises(errors.TeacherError, match=r"2 of 4 facts.*most_wrong_share"):
        await _distiller(fakes.Teacher([*wrong, *good]), tmp_path).distil(
            request, fakes.no_progress
        )
    result = await _distiller(
        fakes.Teacher([*wrong, *good]), tmp_path, most_wrong_share=0.5
    ).distil(request, fakes.no_progress)
    assert len(result.pairs) == 2


async def test_judge_rejects_what_the_teacher_does_not_say_twice(tmp_path: pathlib.Path) -> None:
    first = [pair("How long is it?", "412 m"), pair("Who built it?", "Ida Kroll"), BUILT]
    second = [pair("How long is it?", "It is 412 m long."), pair("Who built it?", "Eve Stone")]
    teacher = _Forgetful(first, second)
    request = distillation.DistilRequest("t", topic="the bridge")
    changes = {"judge": "teacher", "most_wrong_share": 1.0}
    result = await _distiller(teacher, tmp_path, **changes).distil(request, fakes.no_progress)
    assert [one.answer for one in result.pairs] == ["412 m"]
    assert result.rejected == {"doubted": 2}
    assert [call.queries for call in teacher.asked] == [
        (),
        ("How long is it?", "Who built it?", "When was it built?"),
    ]
    assert teacher.asked[1].only_queries


async def test_judge_is_not_asked_again_when_a_distillation_was_interrupted(
    tmp_path: pathlib.Path,
) -> None:
    teacher = _Forgetful([LENGTH], [LENGTH])
    request = distillation.DistilRequest("t", topic="the bridge")
    cloud = _distiller(teacher, tmp_path, _Broken(), judge="teacher")
    for _ in range(2):
        # After the judge, before the result: what a killed process leaves behind.
        with pytest.raises(errors.UnavailableError):
            await cloud.distil(request, fakes.no_progress)
    assert len(teacher.asked) == 2
    await _distiller(teacher, tmp_path, judge="teacher").distil(request, fakes.no_progress)
    assert len(teacher.asked) == 2


async def test_wordings_are_held_out_again_when_a_skill_grows(tmp_path: pathlib.Path) -> None:
    more = pair("Who built it?", "Ida Kroll", "Name its builder.", "Whose work was the bridge?")
    request = distillation.DistilRequest("1", ("Who built it?",))
    cloud = _distiller(fakes.Teacher([more], title="Bridge"), tmp_path)
    assert [
        len(one.held_out) for one in (await cloud.distil(request, fakes.no_progress)).pairs
    ] == [1]
    grown = _distiller(fakes.Teacher([LENGTH], title="Bridge"), tmp_path)
    result = await grown.distil(
        distillation.DistilRequest("2", ("How long is it?",)), fakes.no_progress
    )
    assert {one.answer: len(one.held_out) for one in result.pairs} == {"412 m": 0, "Ida Kroll": 1}


class _Forgetful(fakes.Teacher):
    """Says something else to those who ask for answers alone."""

    def __init__(self, first: Sequence[datasets.QAPair], second: Sequence[datasets.QAPair]) -> None:
        super().__init__(first)
        self._second = list(second)

    async def generate_qa(self, request: base.QARequest) -> list[datasets.QAPair]:
        self.asked.append(request)
        return self._second if request.only_queries else self.pairs


class _Broken(fakes.Rewording):
    """Can't be reached."""

    def __init__(self) -> None:
        super().__init__({})

    async def reword(self, question: str, most: int, others: Sequence[str]) -> list[str]:
        raise errors.UnavailableError("the router is down")


class _Interrupted(fakes.Teacher):
    """Is unavailable at its second call."""

    async def generate_qa(self, request: base.QARequest) -> list[datasets.QAPair]:
        self.asked.append(request)
        if len(self.asked) == 2:
            raise errors.TeacherUnavailableError("down")
        return [one for one in self.pairs if one.question in request.queries]
