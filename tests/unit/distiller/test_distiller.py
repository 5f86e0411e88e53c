"""The way from a request to a distillation, with a teacher that says what the test wants."""

from __future__ import annotations

import pathlib

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
        await _distiller(teacher, tmp_path).distil(request, fakes.no_progress)
    result = await _distiller(teacher, tmp_path).distil(request, fakes.no_progress)
    assert [call.queries for call in teacher.asked] == [queries[:8], queries[8:], queries[8:]]
    assert len(result.triggers) == 12


async def test_call_is_made_again_when_its_journal_file_is_damaged(tmp_path: pathlib.Path) -> None:
    kept = journal.Journal(tmp_path)
    call = plan.calls(distillation.DistilRequest("t", ("Q?",)), config.Distiller(), 8)[0]
    kept.keep_answer("t", call, [LENGTH])
    assert kept.answer("t", call) == [LENGTH]
    assert kept.answer("other", call) is None
    (path,) = tmp_path.rglob("*.json")
    path.write_bytes(b"{")
    assert kept.answer("t", call) is None


class _Interrupted(fakes.Teacher):
    """Is unavailable at its second call."""

    async def generate_qa(self, request: base.QARequest) -> list[datasets.QAPair]:
        self.asked.append(request)
        if len(self.asked) == 2:
            raise errors.TeacherUnavailableError("down")
        return [one for one in self.pairs if one.question in request.queries]
