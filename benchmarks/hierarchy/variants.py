"""The hierarchy with each of its mechanisms taken away in turn."""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks.hierarchy import memory
from services.hierarchy import aggregation
from shared.hierarchy import levels

SHIPPED = "as shipped"
NEITHER_SCREENING_NOR_DECAY = "neither screening nor decay"
NO_RESONANCE = "no resonance"


def _without_stage(*names: str) -> memory.Variant:
    shipped = memory.Variant()
    switches = dataclasses.replace(shipped.hierarchy.switches, **dict.fromkeys(names, False))
    hierarchy = dataclasses.replace(shipped.hierarchy, switches=switches)
    return dataclasses.replace(shipped, hierarchy=hierarchy)


def _layers(**changed: Any) -> memory.Variant:
    """With other settings for all five layers."""
    shipped = memory.Variant()
    layer = dataclasses.replace(shipped.hierarchy.layer, **changed)
    return dataclasses.replace(
        shipped,
        hierarchy=dataclasses.replace(shipped.hierarchy, layer=layer),
        agent=dataclasses.replace(shipped.agent, layer=layer),
    )


def _without_robustness() -> memory.Variant:
    plain = aggregation.AggregationSettings(
        method=aggregation.Method.MEAN, clip=1e9, use_filter=False
    )
    shipped = memory.Variant()
    hierarchy = dataclasses.replace(shipped.hierarchy, aggregation=plain)
    return dataclasses.replace(shipped, hierarchy=hierarchy)


def _without_migration() -> memory.Variant:
    found = _without_stage("migration")
    return dataclasses.replace(found, agent=dataclasses.replace(found.agent, use_migration=False))


def _without_homeostasis() -> memory.Variant:
    found = _without_stage("homeostasis")
    return dataclasses.replace(found, agent=dataclasses.replace(found.agent, use_homeostasis=False))


_ONE_SPEED = {
    level: dataclasses.replace(spec, inertia=0.5) for level, spec in levels.DEFAULT_SPECS.items()
}
VARIANTS: dict[str, memory.Variant] = {
    SHIPPED: memory.Variant(),
    "no vertical resonance": _without_stage("vertical"),
    "no horizontal resonance": _without_stage("horizontal"),
    "no robust aggregation": _without_robustness(),
    "no migration": _without_migration(),
    "no homeostasis": _without_homeostasis(),
    "no screening": _layers(use_screening=False),
    "no decay to the start": _layers(use_decay=False),
    NEITHER_SCREENING_NOR_DECAY: _layers(use_screening=False, use_decay=False),
    NO_RESONANCE: _without_stage("vertical", "horizontal"),
    "one speed for all layers": memory.Variant(specs=_ONE_SPEED),
    "no rehearsal": memory.Variant(rehearses=False),
    "no learning again while idle": memory.Variant(rehearses_when_idle=False),
    "no steps of the shared layers alone": memory.Variant(shared_share=0.0),
}
