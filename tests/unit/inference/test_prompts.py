"""Which prompts are read, and which wait until there is room for their keys."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from services.inference import engine as engines
from services.inference import prompts
from shared import settings as config
from tests import tiny_model

TOKENS = 12


@dataclasses.dataclass
class Waiting:
    prompt_ids: list[int]


def _waiting(*lengths: int) -> list[Waiting]:
    return [Waiting([0] * length) for length in lengths]


@pytest.mark.parametrize(
    ("rows", "longest", "lengths", "count"),
    [
        (0, 0, [10, 10, 10], 3),
        (0, 0, [10, 30, 10], 1),  # Two rows of thirty are too many, and nobody overtakes.
        (0, 0, [1000, 1], 1),  # One always fits alone.
        (1, 10, [1000], 0),
        (3, 10, [10], 1),
        (4, 10, [1], 0),
        (1, 40, [1], 0),
        (0, 0, [], 0),
    ],
)
def test_as_many_come_as_fit_when_all_are_padded_to_the_longest(rows, longest, lengths, count):
    waiting = _waiting(*lengths)
    assert list(prompts.fitting(waiting, rows, longest, 40)) == waiting[:count]


def test_prompts_are_read_apart_when_padding_would_be_more_than_a_quarter():
    groups = prompts.alike(_waiting(100, 10, 80, 9, 74))
    assert [[len(one.prompt_ids) for one in group] for group in groups] == [
        [100, 80],
        [74],
        [10, 9],
    ]


async def test_answers_are_those_given_alone_when_few_fit_at_once():
    base = tiny_model.tiny_base(0)
    asked = ["Who?", "Why is it so? " * 12, "Where?", "When, if ever? " * 8, "?"]
    longest = max(len(base.prompt_ids(question)) for question in asked)
    most = 2 * longest - 1
    settings = config.Inference(max_new_tokens=TOKENS, batch_rows=8, batch_tokens=most)
    seen: list[tuple[int, int]] = []

    def look(module: object, arguments: object, options: dict) -> None:
        mask, ids = options.get("attention_mask"), options["input_ids"]
        seen.append((len(ids), ids.shape[1] if mask is None else mask.shape[1]))

    engine = engines.ArrowEngine(base, settings)
    engine.start()
    async with asyncio.timeout(60):
        alone = [(await engine.generate(question)).answer for question in asked]
        handle = base.model.register_forward_pre_hook(look, with_kwargs=True)
        together = await asyncio.gather(*map(engine.generate, asked))
        handle.remove()
    await engine.stop()
    assert [one.answer for one in together] == alone
    assert max(rows for rows, _ in seen) > 1, "short ones are answered together"
    # What joined fitted; it grows by no more than the answers.
    assert all(rows == 1 or rows * (length - TOKENS) <= most for rows, length in seen)
