"""The gate: a draft is published only if it answers what it should and harms nothing.

Asks the model as users do and compares with `shared.grading`; looks at what the router would do.
The rows of its table:

| row | right is |
| --- | --- |
| before | what the bare base fails of the triggers: a card for what it knows is not needed |
| triggers | the users' questions, answered |
| trained | every wording trained on, answered |
| held_out | wordings of facts that were kept from training, answered as users ask: see below |
| implications | the same of what follows from the facts |
| held_out_alone | what `held_out` asks, put to the card as it stands: told, not required |
| contrasts | near misses to which no fact's answer comes |
| regression | what the version before was taught and still answers, where there is one |
| known, unrelated | questions about something else, answered as the bare base answers them |
| routed | the triggers, which the router sends to the card |
| elsewhere | general and invented questions, which it does not |
| other_cards | other cards' questions, in wordings unknown to it, which still find their cards |
| robbed | the other cards asked about that keep at least half of their own questions |

Where nobody asked (a document was taught) the questions of the facts stand in for triggers in
`before` and `routed`.

As users ask: a node puts a question to the card as the one that the router reads it as, where the
base's `inference.query_rewriting` says so (`shared.rewriting`). Held-out wordings are asked in that
way; where nodes rewrite nothing there is no row `held_out_alone`. Knows nothing about training.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from shared import grading, rewriting
from shared import settings as config
from shared.cards import manifest as manifests
from shared.flight import datasets
from shared.models import replay as replays

Ask = Callable[[Sequence[str]], list[str]]
"""Questions to the answers that the model gives."""
_ALONE = "held_out_alone"


@dataclasses.dataclass(frozen=True)
class Trigger:
    """A user's question with the answer that the teacher gave."""

    query: str
    expected_answer: str


@dataclasses.dataclass(frozen=True)
class Row:
    """One requirement and how it was met."""

    name: str
    right: int
    asked: int
    required: float
    """Share that must be right, 0 to 1."""
    curable: bool = True
    """Whether another training may do better."""
    wrong: tuple[str, ...] = ()
    """Questions of the dataset that were answered wrong."""
    needed: bool = False
    """Whether something must have been asked."""

    @property
    def passed(self) -> bool:
        """Whether the share is reached; where nothing was asked, whether nothing needed to be."""
        if not self.asked:
            return not self.needed
        return self.right >= self.required * self.asked


@dataclasses.dataclass(frozen=True)
class Tried:
    """A question at the router with the draft among its cards."""

    question: str
    card: str
    """`name@digest` of the card that would answer; empty where none fits."""
    card_without: str
    """That answers without the draft."""
    similarity: float = 0.0
    """Cosine to the draft's nearest example, whichever card answers."""
    reading: str = ""
    """The draft's example as which it is read; empty where that is not known."""


@dataclasses.dataclass(frozen=True)
class Rehearsal:
    """What the router would do with the draft among its cards."""

    questions: tuple[Tried, ...]
    """Those that it was asked about, in their order."""
    others: tuple[Tried, ...]
    """Examples of other cards, each asked as if its card had not had it."""


def measure(
    ask: Ask,
    ask_base: Ask,
    pairs: Sequence[datasets.QAPair],
    triggers: Sequence[Trigger],
    replay: replays.Replay,
    settings: config.Trainer,
    instead: Mapping[str, str] | None = None,
) -> list[Row]:
    """Asks the model everything.

    Args:
        ask: answers with the draft active.
        ask_base: answers without any card.
        pairs: what the draft was trained on.
        triggers: the questions that asked for the skill.
        replay: what must stay as it was.
        settings: the shares required.
        instead: see `asked_instead`.
    """
    facts = [pair for pair in pairs if pair.kind is datasets.Kind.FACT]
    implications = [pair for pair in pairs if pair.kind is datasets.Kind.IMPLICATION]
    trained = [(q, pair.answer) for pair in pairs for q in (pair.question, *pair.paraphrases)]
    wanted = [(trigger.query, trigger.expected_answer) for trigger in triggers]
    unseen = _held_out(facts)

    def ask_as_users(questions: Sequence[str]) -> list[str]:
        return ask([(instead or {}).get(question, question) for question in questions])

    rows = [
        _unknown("before", ask_base, _wanted(pairs, triggers), settings.gate_before),
        _row("triggers", ask, wanted, settings.gate_triggers),
        _row("trained", ask, trained, settings.gate_trained, needed=True),
        _row("held_out", ask_as_users, unseen, settings.gate_held_out),
        _row("implications", ask_as_users, _held_out(implications), settings.gate_implications),
        _contrasts(ask, pairs, settings.gate_contrasts),
        unchanged("known", ask, replay.known, settings.gate_known),
        unchanged("unrelated", ask, replay.unrelated, settings.gate_unrelated),
    ]
    if instead is not None:
        alone = _row(_ALONE, ask, unseen, 0.0)
        # Users get these right: more wordings of them are not what the card needs.
        rows.append(dataclasses.replace(alone, wrong=()))
    return rows


def comparable(
    recorded: Sequence[manifests.GateRow], rows: Sequence[Row]
) -> list[manifests.GateRow]:
    """The rows of a card's own table that were asked as those of a later one.

    Without `held_out_alone` it is of a time when wordings were put to the card as they stand, or of
    nodes that rewrote nothing.
    """
    tells_alone = [any(row.name == _ALONE for row in table) for table in (recorded, rows)]
    changed = () if tells_alone[0] or not tells_alone[1] else ("held_out", "implications")
    return [row for row in recorded if row.name not in changed]


def unseen_questions(pairs: Sequence[datasets.QAPair]) -> tuple[str, ...]:
    """The wordings that are asked as the router reads them."""
    kinds = (datasets.Kind.FACT, datasets.Kind.IMPLICATION)
    return tuple(question for question, _ in _held_out(p for p in pairs if p.kind in kinds))


def asked_instead(tried: Iterable[Tried], least: float | None) -> dict[str, str] | None:
    """Of questions what a node asks the card in their place; None where nodes never do.

    Args:
        tried: the questions.
        least: similarity from which on nodes rewrite.
    """
    if least is None:
        return None
    found = {
        one.question: rewriting.rewritten(one.question, one.reading, one.similarity, least)
        for one in tried
    }
    return {question: other for question, other in found.items() if other}


def wanted_questions(
    pairs: Sequence[datasets.QAPair], triggers: Sequence[Trigger]
) -> tuple[str, ...]:
    """The questions that the router must send to the card."""
    return tuple(question for question, _ in _wanted(pairs, triggers))


def routing(
    rehearsal: Rehearsal,
    wanted: Sequence[str],
    bystanders: Sequence[str],
    card: str,
    settings: config.Trainer,
) -> list[Row]:
    """The rows that the router fills.

    Args:
        rehearsal: first the wanted questions, then the bystanders, then any others.
        wanted: see `wanted_questions`.
        bystanders: questions that are not the card's.
        card: `name@digest` of the draft.
        settings: the shares required.
    """
    own = rehearsal.questions[: len(wanted)]
    others = rehearsal.questions[len(wanted) : len(wanted) + len(bystanders)]
    missed = tuple(tried.question for tried in own if tried.card != card)
    kept = sum(tried.card != card for tried in others)
    stayed = sum(tried.card == tried.card_without for tried in rehearsal.others)
    asked = collections.Counter(tried.card_without for tried in rehearsal.others)
    lost = collections.Counter(
        tried.card_without for tried in rehearsal.others if tried.card != tried.card_without
    )
    # Among many cards all questions of one are fewer than `other_cards` lets go. One question alone
    # tells too little about a card.
    robbed = sum(count >= 2 and 2 * lost[other] > count for other, count in asked.items())
    return [
        Row(
            "routed",
            len(own) - len(missed),
            len(own),
            settings.gate_routed,
            wrong=missed,
            needed=True,
        ),
        Row("elsewhere", kept, len(others), settings.gate_elsewhere, curable=False, needed=True),
        Row("other_cards", stayed, len(rehearsal.others), settings.gate_other_cards, curable=False),
        Row("robbed", len(asked) - robbed, len(asked), 1.0, curable=False),
    ]


def _wanted(pairs: Sequence[datasets.QAPair], triggers: Sequence[Trigger]) -> list[tuple[str, str]]:
    if triggers:
        return [(trigger.query, trigger.expected_answer) for trigger in triggers]
    return [(pair.question, pair.answer) for pair in pairs if pair.kind is datasets.Kind.FACT]


def _held_out(pairs: Iterable[datasets.QAPair]) -> list[tuple[str, str]]:
    return [(question, pair.answer) for pair in pairs for question in pair.held_out]


def _row(
    name: str,
    ask: Ask,
    expected: Sequence[tuple[str, str]],
    required: float,
    needed: bool = False,
) -> Row:
    given = ask([question for question, _ in expected]) if expected else []
    wrong = tuple(
        question
        for answer, (question, wanted) in zip(given, expected, strict=True)
        if not grading.is_right(answer, wanted)
    )
    return Row(
        name, len(expected) - len(wrong), len(expected), required, wrong=wrong, needed=needed
    )


def _unknown(name: str, ask: Ask, expected: Sequence[tuple[str, str]], required: float) -> Row:
    """A row of questions that are to be answered wrong."""
    answered = _row(name, ask, expected, required)
    return Row(name, len(answered.wrong), answered.asked, required, curable=False, needed=True)


def _contrasts(ask: Ask, pairs: Sequence[datasets.QAPair], required: float) -> Row:
    facts = {pair.answer for pair in pairs if pair.kind is datasets.Kind.FACT}
    asked = [
        (question, pair.answer)
        for pair in pairs
        if pair.kind is datasets.Kind.CONTRAST
        for question in (pair.question, *pair.paraphrases, *pair.held_out)
    ]
    given = ask([question for question, _ in asked]) if asked else []
    taken = tuple(
        question
        for answer, (question, own) in zip(given, asked, strict=True)
        if not grading.is_right(answer, own)
        and any(grading.is_right(answer, fact) for fact in facts)
    )
    return Row("contrasts", len(asked) - len(taken), len(asked), required, wrong=taken)


def unchanged(name: str, ask: Ask, before: Sequence[replays.Answered], required: float) -> Row:
    """A row of questions that are to be answered as the bare base answered them."""
    given = ask([item.question for item in before]) if before else []
    same = sum(answer == item.answer for answer, item in zip(given, before, strict=True))
    return Row(name, same, len(before), required, needed=True)
