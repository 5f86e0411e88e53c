"""How fast cards come, change and go, beside PEFT; what they hold."""

from __future__ import annotations

import collections
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
_MIXED = 8


def rows(
    model: Any, label: str, kinds: tuple[str, ...], rank: int, resident: int
) -> list[results.Row]:
    """Load, hot swap, switch, remove, bytes; the rows of `label` "" have the targets."""
    with tempfile.TemporaryDirectory() as folder:
        dtype = shapes.dtype_name(model)
        made = shapes.make_cards(model, resident, pathlib.Path(folder), kinds, rank, dtype)
        return [*_coming(model, made, label), *_many(model, made, label)]


def _coming(model: Any, made: list[shapes.Card], label: str) -> list[results.Row]:
    """One card beside one other, and as the only one, against PEFT with one other."""
    from peft.utils import hotswap

    peer = shapes.with_peft(shapes.twin(model), made[:1])
    manager = managers.LoRAManager(model)
    took = timing.milliseconds
    taken: dict[str, list[float]] = collections.defaultdict(list)
    turn = itertools.cycle(made[1:5])
    for _ in range(_ROUNDS + 1):
        card = next(turn)
        taken["digest"].append(took(formats.file_digest, card.file))
        taken["load_first"].append(took(_load, manager, card.file))
        taken["remove_last"].append(took(manager.remove_card, "new"))
        manager.apply_card(manager.load_card(made[0].file), made[0].name)
        taken["load"].append(took(_load, manager, card.file))
        taken["remove"].append(took(manager.remove_card, "new"))
        taken["swap"].append(took(_swap, manager, card))
        manager.remove_card(card.name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            taken["peer_load"].append(took(peer.load_adapter, card.peft_folder, "new"))
            taken["peer_remove"].append(took(peer.delete_adapter, "new"))
            taken["peer_swap"].append(
                took(hotswap.hotswap_adapter, peer, card.peft_folder, made[0].name)
            )
    # The first round warms up.
    medians = {name: statistics.median(values[1:]) for name, values in taken.items()}

    def row(name: str, part: str, peer: str, **more: Any) -> results.Row:
        mine, theirs = medians[part], medians[f"peer_{peer}"]
        targets = {key: value for key, value in more.items() if key == "note" or not label}
        call = {"load": "load_adapter", "swap": "hotswap_adapter", "remove": "delete_adapter"}
        return results.Row(
            f"{name}_ms{label}",
            mine,
            "ms",
            peer=f"peft.{call[peer]}",
            peer_value=theirs,
            ratio=statistics.median(
                a / b for a, b in zip(taken[f"peer_{peer}"][1:], taken[part][1:], strict=True)
            ),
            **targets,
        )

    digest = f"digest check apart: {medians['digest']:.2f} ms"
    return [
        row("load", "load", "load", most=1.5, least_ratio=60, note=digest),
        row("load_first", "load_first", "load", note="every layer is wrapped"),
        row("hotswap", "swap", "swap", least_ratio=10),
        row("remove", "remove_last", "remove", most=2.0, note="the last one: layers come back"),
        row("remove_beside", "remove", "remove", note="others stay"),
    ]


def _load(manager: managers.LoRAManager, file: pathlib.Path) -> None:
    manager.apply_card(manager.load_card(file), "new")


def _swap(manager: managers.LoRAManager, card: shapes.Card) -> None:
    """Another version in, the one before out."""
    before = manager.list_cards()[-1]
    manager.apply_card(manager.load_card(card.file), card.name)
    manager.activate(card.name)
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
    first, second = made[:_MIXED], made[_MIXED : 2 * _MIXED]
    rows_in_turn = itertools.cycle([[card.name for card in group] for group in (first, second)])
    (mix,) = timing.medians(_ROUNDS, lambda: manager.activate_rows(next(rows_in_turn)))
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
        results.Row(f"mix_rows_ms{label}", mix, "ms", note=f"{_MIXED} rows get other cards each"),
        results.Row(f"held_bytes_over_file{label}", held, "times", most=1.1 if target else None),
    ]
