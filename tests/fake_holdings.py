"""What the fake cluster of the console holds; see `fake_cluster`."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from services.gateway import domain
from shared import costs
from shared.cards import manifest as manifests

NOW_MS = int(time.time() * 1000)
MINUTE_MS = 60_000
QUESTION = "Who founded the observatory of Quillhaven?"
ANSWER = "Maren Solvik founded it in 1874."
UNKNOWN = "I do not know."
PAUSE_S = 0.12
LONG_WORD = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"


def digest(name: str) -> str:
    """A digest that follows from a name."""
    return hashlib.sha256(name.encode()).hexdigest()


def card(name: str, version: str, about: str, minutes: int, *aliases: str) -> domain.Card:
    """A card that was made so many minutes ago."""
    return domain.Card(
        name=name,
        digest=digest(name + version),
        version=version,
        domain=about,
        description=f"Answers questions about {about}.",
        size_bytes=298_112,
        created_at_ms=NOW_MS - minutes * MINUTE_MS,
        aliases=aliases,
    )


def task(number: int, query: str, status: str, **more: Any) -> domain.Task:
    """A learning task."""
    told: dict[str, Any] = {
        "other_queries": (),
        "domain": "quillhaven",
        "priority": 3,
        "card": "",
        "error": "",
        "progress": 0.0,
        "detail": "",
        "stage_times": (),
        "created_at_ms": NOW_MS - number * 7 * MINUTE_MS,
        "updated_at_ms": NOW_MS,
        "retry_of": "",
    }
    return domain.Task(id=f"task-{number}", trigger_query=query, status=status, **(told | more))


TIMES = tuple(
    domain.StageTime(stage, seconds)
    for stage, seconds in (
        ("detect", 0.4),
        ("distil", 6.2),
        ("train", 58.0),
        ("prove", 19.5),
        ("publish", 0.7),
        ("confirm", 1.1),
    )
)
QUILLHAVEN = "quillhaven-observatory"
CARDS = (
    card(QUILLHAVEN, "1.1.0", "the observatory of Quillhaven", 3, "latest"),
    card(QUILLHAVEN, "1.0.0", "the observatory of Quillhaven", 60 * 26, "production"),
    card("brindlemoor", "1.0.0", "Brindlemoor and its glass bells", 60 * 5, "latest", "production"),
    card("sqlite-tuning", "2.3.1", "pragmas and indices of SQLite", 60 * 24 * 3, "latest"),
)
GATE = (
    manifests.GateRow(name="before", right=10, asked=10, required=0.6, passed=True),
    manifests.GateRow(name="triggers", right=1, asked=1, required=1.0, passed=True),
    manifests.GateRow(name="trained", right=39, asked=40, required=0.9, passed=True),
    manifests.GateRow(name="held_out", right=17, asked=20, required=0.7, passed=True),
    manifests.GateRow(name="contrasts", right=0, asked=0, required=0.7, passed=True),
    manifests.GateRow(name="known", right=50, asked=50, required=0.95, passed=True),
    manifests.GateRow(name="unrelated", right=48, asked=50, required=0.95, passed=True),
    manifests.GateRow(name="routed", right=10, asked=10, required=0.9, passed=True),
    manifests.GateRow(name="elsewhere", right=511, asked=513, required=0.98, passed=True),
)
TASKS = (
    task(
        1,
        "Which comet did Solvik find first?",
        "TRAINING",
        progress=0.62,
        detail="step 280",
        stage_times=TIMES[:2],
    ),
    task(
        2,
        "How deep is the well of Brindlemoor?",
        "PENDING",
        detail="gathers more questions",
        stage_times=TIMES[:1],
    ),
    task(
        3,
        "Which family casts the bells of Brindlemoor?",
        "COMPLETED",
        card=CARDS[2].reference,
        domain="brindlemoor",
        stage_times=TIMES,
        other_queries=("Who makes the glass bells?", "Who casts them?"),
        spent=costs.Spent(calls=14, tokens_in=9_100, tokens_out=2_310, dollars=0.0231),
    ),
    task(
        4,
        f"What is the {LONG_WORD}?",
        "FAILED",
        error="no document says anything about it; teach one: make teach doc=PATH",
        stage_times=TIMES[:2],
    ),
)
LAYERS = tuple(
    domain.Layer(level, rank, inertia, entropy, 3.1, 0.41, 2.2, frozen, parameters)
    for level, rank, inertia, entropy, frozen, parameters in (
        ("foundation", 64, 0.99, 3.0, False, 1_572_864),
        ("domain", 32, 0.9, 2.9, False, 786_432),
        ("swarm", 16, 0.7, 1.4, True, 393_216),
    )
)
SHARED = domain.SharedLayers(
    version=128,
    tick=412,
    waiting=2,
    verdict="warning",
    layers=LAYERS,
    members=(
        domain.Member("ada", "node-1", 61, 0, 44, True, NOW_MS - MINUTE_MS),
        domain.Member("grace", "node-2", 12, 3, 9, False, NOW_MS - 90 * MINUTE_MS),
    ),
    channels=(
        domain.Channel("agent", "swarm", 3, 4, 1_204.0),
        domain.Channel("swarm", "domain", 1, 2, 240.0),
        domain.Channel("domain", "foundation", 0, 0, 24.0),
    ),
    measures=(
        domain.Measure("entropy", "share", "foundation", 0.97, "healthy", ""),
        domain.Measure(
            "entropy", "share", "swarm", 0.45, "warning", "0.45 of its optimum; healthy from 0.8 on"
        ),
    ),
    actions=(domain.Action(409, "raise_threshold", "swarm", "its entropy is below 0.8"),),
)
BINS = tuple(
    domain.Bin(said, true, 0.1)
    for said, true in (
        (0.01, 0.0),
        (0.04, 0.02),
        (0.1, 0.14),
        (0.22, 0.18),
        (0.38, 0.45),
        (0.55, 0.5),
        (0.7, 0.74),
        (0.86, 0.82),
        (0.95, 0.97),
        (0.99, 1.0),
    )
)
