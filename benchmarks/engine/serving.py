"""The whole engine under load: swaps while requests run, and tokens a second beside PEFT."""

from __future__ import annotations

import asyncio
import pathlib
import statistics
import tempfile
from typing import Any

import torch

from benchmarks import results
from benchmarks.engine import shapes, timing
from services.inference import answering
from services.inference import engine as engines
from shared import settings as config
from shared.cards import format as formats
from shared.lora import manager as managers
from shared.models import base as bases
from shared.security import callers

_REQUESTS = 200
_SWAPS = 20
_TOKENS = 24
_ROUNDS = 15
_NAME = "card"
_TELLING = 0.2
"""Size of the weights that makes every version say something else."""
_ENDLESS, _ENDLESS_TOKENS = 0.3, 48
"""Size of the weights that makes answers go on to the limit, and that limit: what ends after three
tokens would measure the reading of prompts."""


def swap_under_load(base: bases.BaseModel) -> list[results.Row]:
    """Two hundred requests by a card's name, whose version changes all the time."""
    failed, wrong, used = asyncio.run(_swap_under_load(base))
    note = f"{_REQUESTS} requests, {_SWAPS} swaps, {used} versions answered"
    return [
        results.Row("swap_under_load_failed", failed, "requests", most=0, note=note),
        results.Row("swap_under_load_wrong_card", wrong, "requests", most=0, note=note),
    ]


async def _swap_under_load(base: bases.BaseModel) -> tuple[int, int, int]:
    with tempfile.TemporaryDirectory() as folder:
        made = shapes.make_cards(base.model, _SWAPS + 1, pathlib.Path(folder), size=_TELLING)
        expected = _answers_alone(base, made)
        settings = config.Inference(max_new_tokens=_TOKENS, queue=_REQUESTS)
        engine = engines.ArrowEngine(base, settings)
        engine.start()
        answers = answering.Answering(engine, _no_route)
        await engine.load_lora(made[0].file, _version(made[0]))
        served = [_version(made[0])]
        """Every version so far; the last one is what a new request must get."""
        failed = wrong = 0
        used = set()

        async def ask(number: int) -> None:
            nonlocal failed, wrong
            await asyncio.sleep(number * 0.01)
            first = len(served) - 1
            question = answering.Question(_question(number), _NAME)
            try:
                found = (await answers.answer(question)).generation
            except Exception:
                failed += 1
                return
            used.add(found.card)
            # Chosen at a moment between then and now, and answered by that very version.
            right = found.card in served[first:]
            wrong += not (right and found.answer == expected[str(found.card), number % 3])

        requests = [asyncio.create_task(ask(number)) for number in range(_REQUESTS)]
        removals = []
        for card in made[1:]:
            await asyncio.sleep(_REQUESTS * 0.01 / _SWAPS)
            await engine.load_lora(card.file, _version(card))
            served.append(_version(card))
            removals.append(engine.remove_lora(served[-2]))
        await asyncio.gather(*requests, *removals)
        await engine.remove_lora(served[-1])
        await engine.stop()
    return failed, wrong, len(used)


async def _no_route(
    query: str, no_learning: bool, deadline_s: float, tenants: callers.Tenants
) -> answering.Routing:
    raise AssertionError("every request names its card")


def _answers_alone(base: bases.BaseModel, made: list[shapes.Card]) -> dict[tuple[str, int], str]:
    """What each version says to each question when nothing else runs, by transformers itself.

    No two of them answer a question alike, so that an answer tells who gave it.
    """
    found = {}
    manager = managers.LoRAManager(base.model)
    for card in made:
        manager.apply_card(formats.LoRAFormat.load(card.file), card.name)
        manager.activate(card.name)
        for number in range(3):
            ids = torch.tensor([base.prompt_ids(_question(number))])
            out = base.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=_TOKENS,
                do_sample=False,
            )
            found[_version(card), number] = base.tokenizer.decode(
                out[0, ids.shape[1] :], skip_special_tokens=True
            )
        manager.remove_card(card.name)
    told_apart = {(number, answer) for (_, number), answer in found.items()}
    if len(told_apart) < len(found):
        raise RuntimeError("two versions give the same answer: the benchmark could not tell them")
    return found


def tokens_per_second(base: bases.BaseModel, batch: int) -> results.Row:
    """Of `batch` answers at once, by the engine and by `generate` of transformers with PEFT."""
    with tempfile.TemporaryDirectory() as folder:
        made = shapes.make_cards(base.model, 1, pathlib.Path(folder), size=_ENDLESS)
        peer: Any = shapes.with_peft(shapes.twin(base.model), made)
        ids = torch.tensor([base.prompt_ids(_question(0))] * batch)
        engine = engines.ArrowEngine(
            base, config.Inference(max_new_tokens=_ENDLESS_TOKENS, threads=torch.get_num_threads())
        )

        async def ours() -> None:
            found = await asyncio.gather(
                *[engine.generate(_question(0), _key(made[0])) for _ in range(batch)]
            )
            _check_lengths([one.new_tokens for one in found])

        def theirs() -> None:
            out = peer.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=_ENDLESS_TOKENS,
                do_sample=False,
                pad_token_id=base.tokenizer.eos_token_id,
            )
            _check_lengths([out.shape[1] - ids.shape[1]])

        loop = asyncio.new_event_loop()
        engine.start()
        loop.run_until_complete(engine.load_lora(made[0].file, _key(made[0])))
        taken = timing.in_turn(_ROUNDS, lambda: loop.run_until_complete(ours()), theirs)
        loop.run_until_complete(_emptied(engine, _key(made[0])))
        loop.close()
    mine, other = (batch * _ENDLESS_TOKENS * 1000 / statistics.median(one) for one in taken)
    return results.Row(
        f"tokens_per_s_b{batch}",
        mine,
        "tokens/s",
        peer="transformers.generate with peft",
        peer_value=other,
        ratio=statistics.median(b / a for a, b in zip(*taken, strict=True)),
        least_ratio=1.0,
        note=f"answers of {_ENDLESS_TOKENS} tokens, their prompts included",
    )


def _check_lengths(lengths: list[int]) -> None:
    if set(lengths) != {_ENDLESS_TOKENS}:
        raise RuntimeError(f"answers of {lengths} tokens instead of {_ENDLESS_TOKENS} each")


async def _emptied(engine: engines.ArrowEngine, key: str) -> None:
    await engine.remove_lora(key)
    await engine.stop()


def _version(card: shapes.Card) -> str:
    """All cards as versions of one."""
    return f"{_NAME}@{card.digest}"


def _key(card: shapes.Card) -> str:
    return f"{card.name}@{card.digest}"


def _question(number: int) -> str:
    return ("What is the capital of France?", "Who wrote it, and when?", "How tall is it?")[
        number % 3
    ]
