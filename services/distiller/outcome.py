"""What comes of a distillation: a skill's worth of facts, or the reason why there is none."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from services.distiller import distillation, filters, wording
from services.distiller.providers import base
from services.distiller.quality import verdict
from shared import errors
from shared import settings as config
from shared.cards import manifest
from shared.flight import datasets

_TITLE_WORDS = 8
_LEAST_WRONG = 2
"""One wrong fact says little about a teacher."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a teacher said."""

    pairs: list[datasets.QAPair]
    subject: base.Subject
    reasons: list[str]
    """Why questions may be without an answer."""


def check(
    request: distillation.DistilRequest,
    asked: Sequence[datasets.QAPair],
    kept: Sequence[datasets.QAPair],
    rejected: Sequence[verdict.Rejected],
    settings: config.Distiller,
    rejected_path: pathlib.Path,
) -> None:
    """Fails the task where too little is left, or too much was wrong to trust the rest.

    Args:
        request: what was asked for.
        asked: all pairs that came.
        kept: those that are fit to train on.
        rejected: the others.
        settings: how few are too few, and how many wrong ones too many.
        rejected_path: where the rejected pairs are kept.

    Raises:
        errors.TeacherError: says how many were rejected for which reason.
    """
    if not asked:
        return
    facts = sum(pair.kind is datasets.Kind.FACT for pair in kept)
    where = f"see {rejected_path}"
    if facts < settings.least_facts:
        raise errors.TeacherError(
            f"{facts} of {len(asked)} pairs about {_about(request)} are facts fit to "
            f"train on, {settings.least_facts} are needed (distiller.least_facts); "
            f"rejected: {verdict.told(rejected)}; {where}"
        )
    wrong = verdict.wrong_facts(rejected)
    if wrong >= _LEAST_WRONG and wrong > settings.most_wrong_share * (wrong + facts):
        raise errors.TeacherError(
            f"{wrong} of {wrong + facts} facts about {_about(request)} are wrong, so that the "
            "others can't be trusted either (distiller.most_wrong_share); "
            f"rejected: {verdict.told(rejected)}; {where}"
        )


def result(
    request: distillation.DistilRequest,
    pairs: Sequence[datasets.QAPair],
    asked: Asked,
    rejected: Sequence[verdict.Rejected],
) -> distillation.Distillation:
    """The distillation of a request.

    Raises:
        errors.NotFoundError: nothing of what was asked is answered.
    """
    answers = {wording.key(text): pair.answer for pair in pairs for text in filters.wordings(pair)}
    queries = dict.fromkeys(query.strip() for query in request.queries if wording.key(query))
    triggers = tuple(
        distillation.Trigger(query, answers[wording.key(query)])
        for query in queries
        if wording.key(query) in answers
    )
    if not pairs or (queries and not triggers):
        raise errors.NotFoundError(
            f"nobody could teach {_about(request)} ({'; '.join(asked.reasons)}): add a document "
            "that answers it to the knowledge folder (distiller.knowledge_dir), or configure "
            "another teacher (evolution.provider_type, evolution.fallbacks) in config.yaml"
        )
    domain = asked.subject.title or request.topic.strip() or shortened(pairs[0].question)
    teachers = dict.fromkeys(pair.teacher for pair in pairs)
    count = sum(pair.kind is datasets.Kind.FACT for pair in pairs)
    facts = "1 fact" if count == 1 else f"{count} facts"
    return distillation.Distillation(
        pairs=tuple(pairs),
        skill_name=manifest.slug(domain),
        domain=domain,
        description=f"{facts} about {domain}, such as: {pairs[0].question} "
        f"{asked.subject.summary}".strip(),
        teacher=", ".join(teachers),
        triggers=triggers,
        unanswered=tuple(query for query in queries if wording.key(query) not in answers),
        rejected=verdict.counts(rejected),
    )


def _about(request: distillation.DistilRequest) -> str:
    if request.queries:
        more = len(request.queries) - 1
        return f"{request.queries[0]!r}" + (f" and {more} more" if more else "")
    return repr(request.topic or request.document)


def shortened(question: str) -> str:
    """What a skill is called that nobody has a title for: the first words of a question."""
    return " ".join(question.rstrip("?.! ").split()[:_TITLE_WORDS])
