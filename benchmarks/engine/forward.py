"""What cards cost while a model reads prompts and makes tokens, beside PEFT."""

from __future__ import annotations

import pathlib
import statistics
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers

from benchmarks import results
from benchmarks.engine import shapes, timing
from shared.lora import manager as managers

PROMPT_TOKENS = 64
PROMPT_TOKENS_LARGE = 16
"""A processor without bfloat16 takes a minute for longer ones."""
_LARGE_FROM = 100_000_000


def one_card(
    model: Any,
    name: str,
    batch: int,
    rounds: int,
    most: float | None = None,
    prefill: bool = False,
) -> results.Row:
    """A step with one card for all rows over one without, and PEFT's."""
    with tempfile.TemporaryDirectory() as folder:
        made = shapes.make_cards(model, 1, pathlib.Path(folder), dtype=shapes.dtype_name(model))
        bare = shapes.twin(model)
        peer = shapes.with_peft(shapes.twin(model), made)
        manager = managers.LoRAManager(model)
        manager.apply_card(manager.load_card(made[0].file), "card")
        manager.activate("card")
        step = _prefilling if prefill else _decoding
        found = timing.in_turn(
            rounds, *[step(one, batch) for one in (bare, model, peer.base_model.model)]
        )
        manager.remove_card("card")
    return _row(name, found, most)


def mixed(
    model: Any, name: str, batch: int, rounds: int, most: float, prefill: bool
) -> results.Row:
    """A step in which every row has a card of its own, and PEFT's with `adapter_names`."""
    with tempfile.TemporaryDirectory() as folder:
        made = shapes.make_cards(model, batch, pathlib.Path(folder), dtype=shapes.dtype_name(model))
        bare = shapes.twin(model)
        peer = shapes.with_peft(shapes.twin(model), made)
        manager = managers.LoRAManager(model)
        for card in made:
            manager.apply_card(manager.load_card(card.file), card.name)
        names = [card.name for card in made]
        manager.activate_rows(names)
        step = _prefilling if prefill else _decoding
        found = timing.in_turn(
            rounds, step(bare, batch), step(model, batch), step(peer, batch, names)
        )
        for card in made:
            manager.remove_card(card.name)
    return _row(name, found, most)


def _row(name: str, found: Sequence[Sequence[float]], most: float | None) -> results.Row:
    """Medians of each round's ratios: a machine that is slow for a while is so for all three."""
    bare, ours, peer = found

    def ratio(over: Sequence[float], under: Sequence[float]) -> float:
        return statistics.median(a / b for a, b in zip(over, under, strict=True))

    return results.Row(
        name,
        ratio(ours, bare),
        "times bare",
        most=most,
        peer="peft",
        peer_value=ratio(peer, bare),
        ratio=ratio(peer, ours),
        least_ratio=None if most is None else 1.0,
        note=f"bare {statistics.median(bare):.2f} ms",
    )


def _decoding(
    model: Any, batch: int, adapter_names: list[str] | None = None
) -> Callable[[], object]:
    """One token behind a prompt; the cache goes back to the prompt after each."""
    ids = torch.randint(0, 1000, (batch, PROMPT_TOKENS))
    chosen = {} if adapter_names is None else {"adapter_names": adapter_names}
    cache = transformers.DynamicCache(config=model.config)
    with torch.inference_mode():
        model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **chosen)
    next_ids = ids[:, :1]

    @torch.inference_mode()
    def step() -> None:
        model(input_ids=next_ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **chosen)
        cache.crop(-1)

    return step


def _prefilling(
    model: Any, batch: int, adapter_names: list[str] | None = None
) -> Callable[[], object]:
    is_large = model.num_parameters() >= _LARGE_FROM
    ids = torch.randint(0, 1000, (batch, PROMPT_TOKENS_LARGE if is_large else PROMPT_TOKENS))
    chosen = {} if adapter_names is None else {"adapter_names": adapter_names}

    @torch.inference_mode()
    def step() -> None:
        model(input_ids=ids, use_cache=False, logits_to_keep=1, **chosen)

    return step
