"""How fast cards come, change and go, beside PEFT; what they hold."""

from __future__ import annotations

import itertools
import pathlib
import statistics
import tempfile
import warnings
from typing import Any

from benchmarks import results
from benchmarks.engine import shapes, timing
from shared.cards import format as formats
from shared.lora import manager as managers

_ROUNDS = 15


def rows(
    model: Any, label: str, kinds: tuple[str, ...], rank: int, resident: int
) -> list[results.Row]:
    """Load, hot swap, switch, remove, bytes; the rows of `label` "" have the targets."""
    with tempfile.TemporaryDirectory() as folder:
        dtype = shapes.dtype_name(model)
        made = shapes.make_cards(model, resident, pathlib.Path(folder), kinds, rank, dtype)
        return [*_coming(model, made, label), *_many(model, made, label)]


def _coming(model: Any, made: list[shapes.Card], label: str) -> list[results.Row]:
    """One card beside one other, against PEFT with as many."""
    from peft.utils import hotswap

    peer = shapes.with_peft(shapes.twin(model), made[:1])
    manager = managers.LoRAManager(model)
    manager.apply_card(manager.load_card(made[0].file), made[0].name)
    ours: dict[str, list[float]] = {"digest": [], "load": [], "swap": [], "remove": []}
    theirs: dict[str, list[float]] = {"load": [], "swap": [], "remove": []}
    took = timing.milliseconds
    turn = itertools.cycle(made[1:5])
    for _ in range(_ROUNDS + 1):
        card = next(turn)
        ours["digest"].append(took(formats.file_digest, card.file))
        ours["load"].append(took(_load, manager, card.file))
        ours["remove"].append(took(manager.remove_card, "new"))
        ours["swap"].append(took(_swap, manager, card))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs["load"].append(took(peer.load_adapter, card.peft_folder, "new"))
            theirs["remove"].append(took(peer.delete_adapter, "new"))
            theirs["swap"].append(
                took(hotswap.hotswap_adapter, peer, card.peft_folder, made[0].name)
            )
    for key in manager.list_cards():
        manager.remove_card(key)
    # The first round warms up.
    mine = {name: statistics.median(values[1:]) for name, values in ours.items()}
    peers = {name: statistics.median(values[1:]) for name, values in theirs.items()}
    target = not label
    return [
        results.Row(
            f"load_ms{label}",
            mine["load"],
            "ms",
            most=1.5 if target else None,
            peer="peft.load_adapter",
            peer_value=peers["load"],
            ratio=peers["load"] / mine["load"],
            least_ratio=60 if target else None,
            note=f"digest check apart: {mine['digest']:.2f} ms",
        ),
        results.Row(
            f"hotswap_ms{label}",
            mine["swap"],
            "ms",
            peer="peft.hotswap_adapter",
            peer_value=peers["swap"],
            ratio=peers["swap"] / mine["swap"],
            least_ratio=10 if target else None,
        ),
        results.Row(
            f"remove_ms{label}",
            mine["remove"],
            "ms",
            most=2.0 if target else None,
            peer="peft.delete_adapter",
            peer_value=peers["remove"],
            ratio=peers["remove"] / mine["remove"],
        ),
    ]


def _load(manager: managers.LoRAManager, file: pathlib.Path) -> None:
    manager.apply_card(manager.load_card(file), "new")


def _swap(manager: managers.LoRAManager, card: shapes.Card) -> None:
    """Another version in, the one before out."""
    before = manager.list_cards()[-1]
    key = f"{card.name}-{len(before)}" if before == card.name else card.name
    manager.apply_card(manager.load_card(card.file), key)
    manager.activate(key)
    manager.remove_card(before)


def _many(model: Any, made: list[shapes.Card], label: str) -> list[results.Row]:
    """With all cards resident. PEFT's own switch is measured with four."""
    peer = shapes.with_peft(shapes.twin(model), made[:4])
    manager = managers.LoRAManager(model)
    for card in made:
        manager.apply_card(manager.load_card(card.file), card.name)
    ours = itertools.cycle([card.name for card in made])
    theirs = itertools.cycle([card.name for card in made[:4]])
    switch, peer_switch = timing.medians(
        200,
        lambda: manager.activate(next(ours)),
        lambda: peer.set_adapter(next(theirs)),
    )
    held = statistics.mean(
        manager.size_bytes(card.name) / card.file.stat().st_size for card in made
    )
    for card in made:
        manager.remove_card(card.name)
    target = not label
    return [
        results.Row(
            f"switch_ms{label}",
            switch,
            "ms",
            most=0.1 if target else None,
            peer="peft.set_adapter",
            peer_value=peer_switch,
            ratio=peer_switch / switch,
            note=f"{len(made)} cards resident; peer: 4",
        ),
        results.Row(f"held_bytes_over_file{label}", held, "times", most=1.1 if target else None),
    ]
