"""What a card of a code base must show on definitions that it was never trained on.

| row | right is |
| --- | --- |
| perplexity | thousandths by which the card lowers the bare base's perplexity on held-out samples |
| completions | next words at held-out cursors that are exact; more than the bare base's |
| lines | rests of lines there that are exact; no fewer than the bare base's |
| known | general questions, answered as the bare base answers them |

Perplexity is the exponential of the mean negative log-likelihood of the outputs' tokens, given
their prompts; the token that ends an output is not counted, since a bare base has no reason to
expect it. Completions are generated greedily, as a node generates them, and read as CodeXGLUE
reads them (Lu et al. 2021): token by token, a word or a sign being one, and line by line. Knows
nothing about how the card was trained.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
import re
from collections.abc import Callable, Sequence

import torch

from services.trainer import data, gate, network
from services.trainer.specialist import lessons
from shared.flight import samples as flight
from shared.models import base as bases
from shared.models import completion, greedy

_ROWS = 16
_MOST_LINE_TOKENS = 48
"""Longer lines are not asked for: nobody waits for them."""
_LEAST_LETTERS = 2
"""Of what is to be completed, digits too: brackets alone say nothing."""
_WORD = re.compile(r"\s*(\w+|[^\w\s])")
_BORDER = re.compile(r"(?<=[^ ])\b(?=[^ ])")
"""Where a word begins or ends within a line, but for behind a space."""
_WITHIN = 2
"""Cursors within a line."""
_SEED = 20_261_129
_THOUSANDTHS = 1_000

Tick = Callable[[int, int], None]
"""Told after each batch: how many of how many are done. It may raise to end the work."""


@dataclasses.dataclass(frozen=True)
class Cursor:
    """A place in a held-out definition with what comes next."""

    prefix: str
    line: str
    """The rest of the line at the cursor, without its line break."""

    @property
    def word(self) -> str:
        """What comes first of it: a name, a number or a sign."""
        return _word(self.line)


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is held out."""

    examples: tuple[data.Example, ...]
    """Without end tokens."""
    cursors: tuple[Cursor, ...]


@dataclasses.dataclass(frozen=True)
class Completed:
    """How a model went on at a cursor."""

    word: bool
    """Whether the next word is exact."""
    line: bool
    """Whether the rest of the line is."""


@dataclasses.dataclass(frozen=True)
class Figures:
    """How a model does on what is held out."""

    perplexity: float
    """NaN where nothing is."""
    completed: tuple[Completed, ...]
    """What became of each cursor."""

    @property
    def words(self) -> int:
        """Next words that are exact."""
        return sum(one.word for one in self.completed)

    @property
    def lines(self) -> int:
        """Rests of lines that are exact."""
        return sum(one.line for one in self.completed)


def asked(
    base: bases.BaseModel,
    samples: Sequence[flight.Sample],
    context_tokens: int,
    most_cursors: int,
) -> Asked:
    """The held-out samples, and places in them at which a completion is asked for.

    Args:
        base: its tokenizer and chat template.
        samples: of a code base; those that are not held out are left aside.
        context_tokens: prompt and output of a sample, at most.
        most_cursors: evenly drawn where there are more.
    """
    held_out = [sample for sample in samples if sample.held_out]
    examples = [
        made
        for sample in held_out
        if (made := lessons.example(base, sample, context_tokens, ended=False)) is not None
    ]
    places = dict.fromkeys(
        cursor
        for sample in held_out
        if sample.kind is flight.Kind.COMPLETE
        for cursor in _cursors(sample)
    )
    drawn = list(places)
    random.Random(_SEED).shuffle(drawn)
    return Asked(tuple(examples), tuple(drawn[:most_cursors]))


def figures(base: bases.BaseModel, what: Asked, context_tokens: int, tick: Tick) -> Figures:
    """Measures the model as it is now, with whatever card is active."""
    return Figures(
        perplexity(base, what.examples, tick), completed(base, what.cursors, context_tokens, tick)
    )


@torch.no_grad()
def perplexity(base: bases.BaseModel, examples: Sequence[data.Example], tick: Tick) -> float:
    """Of the examples' outputs, given their prompts; NaN of none."""
    net = network.WholeModel(base.model, (), contextlib.nullcontext)
    loss, tokens = 0.0, 0
    ordered = sorted(examples, key=lambda one: one.tokens)
    for at in range(0, len(ordered), _ROWS):
        batch = data.collate(ordered[at : at + _ROWS], base.tokenizer.pad_token_id or 0)
        batch = batch.to(base.model.device)
        labels_N = batch.labels[batch.counts]
        loss += float(net.cross_entropy(net.answers(batch, net.states(batch)), labels_N))
        tokens += len(labels_N)
        tick(min(at + _ROWS, len(ordered)), len(ordered))
    if not tokens:
        return math.nan
    try:
        return math.exp(loss / tokens)
    except OverflowError:
        return math.inf


def completed(
    base: bases.BaseModel, cursors: Sequence[Cursor], context_tokens: int, tick: Tick
) -> tuple[Completed, ...]:
    """For each cursor whether the model goes on with the very same text, generating greedily."""
    ends = sorted(completion.end_ids(base))
    # One more token, to see that the line ends there.
    again = [completion.repeated(base, one.prefix) for one in cursors]
    wanted = [
        len(completion.continuation_ids(base, said + one.line)) + 1
        for said, one in zip(again, cursors, strict=True)
    ]
    order = sorted(range(len(cursors)), key=lambda at: wanted[at])
    found: dict[int, Completed] = {}
    for at in range(0, len(order), _ROWS):
        some = order[at : at + _ROWS]
        most = wanted[some[-1]]
        prompts = [
            completion.prompt_ids(
                base, cursors[one].prefix, most_tokens=max(1, context_tokens - most)
            )
            for one in some
        ]
        written = greedy.generated(base, prompts, most, ends)
        for one, ids in zip(some, written, strict=True):
            said = completion.text(base, _until(ids, ends)).removeprefix(again[one])
            line, _, _ = said.partition("\n")
            found[one] = Completed(
                word=_word(line) == cursors[one].word,
                line=line.rstrip() == cursors[one].line.rstrip(),
            )
        tick(min(at + _ROWS, len(order)), len(order))
    return tuple(found[at] for at in range(len(cursors)))


def rows(
    bare: Figures,
    card: Figures,
    known: gate.Row,
    least_drop: float,
) -> list[gate.Row]:
    """The gate's table; another seed or more rank may cure what fails.

    Args:
        bare: of the base without any card.
        card: of the base with the draft.
        known: the questions that must be answered as before.
        least_drop: share by which perplexity must fall.
    """
    measured = math.isfinite(bare.perplexity)
    # A card that makes nonsense of the model was measured, too: it lowers nothing.
    told = measured and math.isfinite(card.perplexity)
    drop = 1 - card.perplexity / bare.perplexity if told else 0.0
    fell = max(0, math.floor(_THOUSANDTHS * drop))
    cursors = len(bare.completed)

    def share(count: int) -> float:
        # What rounding might add is taken off.
        return max(0.0, count / cursors - 1e-9) if cursors else 0.0

    return [
        gate.Row(
            "perplexity",
            fell,
            _THOUSANDTHS if measured else 0,
            least_drop,
            needed=True,
        ),
        gate.Row("completions", card.words, cursors, share(bare.words + 1)),
        gate.Row("lines", card.lines, cursors, share(bare.lines)),
        known,
    ]


def _cursors(sample: flight.Sample) -> list[Cursor]:
    """Where the sample's output begins, where its further lines do, and within each of them.

    A line begins behind its indentation, which an editor writes.
    """
    lines = sample.output.splitlines(keepends=True)
    rng = random.Random(f"{sample.path} {sample.symbol} {len(sample.input)}")
    found, before = [], sample.input
    for line in lines:
        text = line.rstrip("\n")
        indent = text[: len(text) - len(text.lstrip())] if before.endswith("\n") else ""
        found.append(Cursor(before + indent, text.removeprefix(indent)))
        inner = [border.start() for border in _BORDER.finditer(text)]
        for place in sorted(rng.sample(inner, min(_WITHIN, len(inner)))):
            found.append(Cursor(before + text[:place], text[place:]))
        before += line
    return [one for one in found if _worth_asking(one)]


def _worth_asking(cursor: Cursor) -> bool:
    letters = sum(character.isalnum() for character in cursor.line)
    # In bytes: of other scripts each character may be several tokens.
    return letters >= _LEAST_LETTERS and len(cursor.line.encode()) <= 4 * _MOST_LINE_TOKENS


def _word(text: str) -> str:
    found = _WORD.match(text)
    return found[1] if found else ""


def _until(ids: Sequence[int], ends: Sequence[int]) -> list[int]:
    at = next((at for at, one in enumerate(ids) if one in ends), len(ids))
    return list(ids[:at])
