"""A cluster for the console to look at: plain values, and a task that moves while one watches.

Stands in for `services.gateway.calls` and the fleet, with the same methods. What it shows is chosen
by `scene`: `full`, `empty`, `down` (no service answers) or `refused` (no right to anything).
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

from services.gateway import domain
from shared import costs, errors
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
    manifests.GateRow(name="known", right=50, asked=50, required=0.95, passed=True),
    manifests.GateRow(name="unrelated", right=48, asked=50, required=0.95, passed=True),
    manifests.GateRow(name="routed", right=10, asked=10, required=0.9, passed=True),
    manifests.GateRow(name="elsewhere", right=60, asked=60, required=0.98, passed=True),
)
TASKS = (
    task(1, "Which comet did Solvik find first?", "TRAINING", progress=0.62, detail="step 280"),
    task(2, "How deep is the well of Brindlemoor?", "PENDING", detail="gathers more questions"),
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


class Fake:
    """Peers and fleet at once."""

    def __init__(self) -> None:
        """With everything there."""
        self.scene = "full"
        self.learned: set[str] = set()
        self.calls: list[tuple[Any, ...]] = []
        self.trained = asyncio.Event()
        """A training lasts until somebody sets it."""
        self.polls = 0
        """How often the tasks were listed."""
        self.latest = CARDS[0].digest
        self.revoked: set[str] = set()
        self.live: dict[str, domain.Task] = {}
        self.factory = self.store = self.router = self.hierarchy = self.distiller = _Answers(self)

    def nodes(self) -> tuple[domain.NodeState, ...]:
        """Two nodes, one of which is left alone."""
        if self.scene in ("empty", "down"):
            return ()
        served = tuple(one.reference for one in CARDS)
        well = domain.NodeState(
            id="node-1",
            address="127.0.0.1:7407",
            status="ready",
            base_model="embedded",
            served=served,
            resident=served[:3],
            pinned=served[2:3],
            running=5,
            waiting=1,
            most_rows=32,
            queue=256,
            revision=41,
            store_connected=True,
            swaps=tuple(domain.Swap(one, 9.0 + n, 22.0 + n) for n, one in enumerate(served)),
        )
        ill = dataclasses.replace(
            well,
            id="node-2",
            address="10.0.0.3:7407",
            status="open",
            reason="3 failures in a row; asked again in 4 s",
            running=0,
            waiting=0,
            store_connected=False,
            swaps=(),
            resident=(),
            pinned=(),
        )
        return (well, ill)

    async def stream(
        self, asked: domain.Asked, deadline_s: float | None = None
    ) -> AsyncGenerator[domain.Piece, None]:
        """The bare model's answer, or, once it was learned, the card's."""
        self.check()
        assert isinstance(asked, domain.Conversation)
        question = asked.messages[-1].content
        known = question in self.learned
        text = ANSWER if known else UNKNOWN
        for word in text.split(" "):
            await asyncio.sleep(PAUSE_S / 4)
            yield domain.Piece(word + " ")
        event = "" if known or asked.no_learning else f"event-{question}"
        yield domain.Piece(
            "",
            final=domain.Answer(
                text=text,
                card=CARDS[0].reference if known else "",
                confidence=0.93 if known else 0.07,
                dissonance=not known,
                event_id=event,
                node="127.0.0.1:7407",
            ),
        )

    def check(self) -> None:
        """Fails as the scene wants it."""
        if self.scene == "down":
            raise errors.UnavailableError("failed to connect to all addresses; last error: <b>boo")
        if self.scene == "refused":
            raise errors.ForbiddenError("CardStore/ListCards: the token has the role peer")


class _Answers:
    """All services' answers."""

    def __init__(self, fake: Fake) -> None:
        self._fake = fake

    def _full(self) -> bool:
        self._fake.check()
        return self._fake.scene == "full"

    # Router.
    async def explain(self, query: str, top_k: int, threshold: float | None) -> dict[str, Any]:
        full = self._full()
        fits = full and query in self._fake.learned
        odds = [("nearest", 0.82, 0.35, 2.4), ("foreign_words", 0.1, 0.5, 0.9)]
        cards = [
            {
                "card": CARDS[0].reference,
                "probability": 0.91 if fits else 0.05,
                "fits": 0.9,
                "log_odds": 2.3,
                "start": -1.0,
                "rest": 0.0,
                "is_example": False,
                "examples": [{"text": "Who built the observatory?", "cosine": 0.81}],
                "stand_in": False,
                "known_words": ["observatory"],
                "foreign_words": [],
                "contributions": [
                    {
                        "feature": name,
                        "value": value,
                        "typical": typical,
                        "log_odds": log_odds,
                        "reachable": True,
                        "flips_at": 0.5,
                    }
                    for name, value, typical, log_odds in odds
                ],
            }
        ]
        return {
            "query": query,
            "reason": "FITS" if fits else "TOO_UNSURE" if full else "NO_CARDS",
            "cards": cards if full else [],
            "confidence": 0.93 if fits else 0.07,
            "none_probability": 0.07 if fits else 0.93,
            "threshold": 0.4,
            "flips_above": 0.93 if fits else 0.07,
            "number_of_cards": 3 if full else 0,
        }

    # One name for the status of router and store: whoever asks is told apart by what it takes.
    async def status(self) -> Any:
        full = self._full()
        return _Status(
            cards=4 if full else 0,
            revision=41 if full else 0,
            size_bytes=4 * 298_112 if full else 0,
            threshold=0.4,
            embedder_id="all-MiniLM-L6-v2",
            events_emitted=52 if full else 0,
            events_delivered=51 if full else 0,
            events_dropped=0,
            events_waiting=1 if full else 0,
            calibration_error=0.031 if full else None,
            calibration_rows=412 if full else 0,
            bins=BINS if full else (),
        )

    # Hierarchy.
    async def whole(self) -> domain.SharedLayers:
        if self._full():
            return SHARED
        return domain.SharedLayers(0, 0, 0, "healthy", (), (), (), (), ())

    # Distiller.
    async def teachers(self) -> domain.Teachers:
        self._fake.check()
        chain = (domain.Teacher("documents", "closed", "", 0.0),)
        return domain.Teachers(chain, costs.Spent(14, 9_100, 2_310, 0.0231))

    # Factory.
    async def tasks(self) -> list[domain.Task]:
        self._fake.polls += 1
        return [*reversed(self._fake.live.values()), *(TASKS if self._full() else ())]

    async def task(self, task_id: str) -> domain.Task:
        for one in await self.tasks():
            if one.id == task_id:
                return one
        raise errors.NotFoundError(f"task {task_id}: there is none")

    async def find_task(self, event_id: str, wait_s: float) -> domain.Task | None:
        self._fake.check()
        query = event_id.removeprefix("event-")
        if "weather" in query:
            return None
        opened = task(0, query, "PENDING", detail="gathers more questions about the same gap")
        self._fake.live[opened.id] = opened
        return opened

    async def reason_for_no_task(self, event_id: str) -> str:
        return "the base model is sure of its answer: nothing is learned"

    async def until_ended(
        self, task_id: str, on_change: Callable[[domain.Task], None] | None = None
    ) -> domain.Task:
        now = await self.task(task_id)
        if task_id not in self._fake.live:
            if now.ended:
                return now
            await asyncio.Event().wait()
        for status in ("DISTILLING", "TRAINING", "EVALUATING", "PUBLISHING", "COMPLETED"):
            if status == "EVALUATING":
                await self._fake.trained.wait()
            for progress in (0.3, 0.8):
                await asyncio.sleep(PAUSE_S)
                now = dataclasses.replace(now, status=status, progress=progress, detail="")
                if on_change is not None:
                    on_change(now)
        now = dataclasses.replace(now, card=CARDS[0].reference, stage_times=TIMES)
        self._fake.live[task_id] = now
        self._fake.learned.add(now.trigger_query)
        return now

    async def cancel(self, task_id: str) -> domain.Task:
        self._fake.calls.append(("cancel", task_id))
        return await self.task(task_id)

    async def retry(self, task_id: str, idempotency_key: str = "") -> domain.Task:
        self._fake.calls.append(("retry", task_id))
        opened = dataclasses.replace(TASKS[3], id="task-9", status="PENDING", retry_of=task_id)
        self._fake.live[opened.id] = opened
        return opened

    # Store.
    def _cards(self) -> list[domain.Card]:
        told = []
        for one in CARDS if self._full() else ():
            if one.digest in self._fake.revoked:
                continue
            if one.name == QUILLHAVEN:
                rest = tuple(alias for alias in one.aliases if alias != "latest")
                mine = ("latest",) if one.digest == self._fake.latest else ()
                one = dataclasses.replace(one, aliases=mine + rest)
            told.append(one)
        return told

    async def cards(self) -> list[domain.Card]:
        return [one for one in self._cards() if "latest" in one.aliases]

    async def versions(self, name: str) -> list[domain.Card]:
        return [one for one in self._cards() if one.name == name]

    async def record(self, reference: str) -> domain.CardRecord:
        found = next(one for one in CARDS if one.digest == reference)
        manifest = manifests.Manifest(
            name=found.name,
            version=found.version,
            base_model=manifests.BaseModelReference(
                id="embedded", revision="1", fingerprint=digest("base")
            ),
            target_modules=("q_proj", "k_proj", "v_proj", "o_proj"),
            domain=found.domain,
            description=found.description,
            routing=manifests.RoutingProfile(
                examples=tuple(f"{QUESTION} ({n})" for n in range(1, 9))
            ),
            lineage=manifests.Lineage(
                task_id="task-3",
                teacher="documents",
                dataset_digest=digest("dataset"),
                recipe={"rank": 8, "learning_rate": 0.004, "epochs": 25},
                seed=0,
                code_version="40cf2a0",
            ),
            gate=GATE,
            licence="Apache-2.0",
            created_at="2026-11-29T19:20:00Z",
        )
        return domain.CardRecord(found, manifest, "{}")

    async def residency(self, digest: str = "") -> list[domain.Residency]:
        if not self._full():
            return []
        held = tuple(one.digest for one in CARDS)
        return [
            domain.Residency("node-1", "127.0.0.1:7407", "f" * 64, 41, held, NOW_MS),
            domain.Residency("node-2", "10.0.0.3:7407", "f" * 64, 38, held[1:], NOW_MS),
        ]

    async def promote(self, name: str, alias: str, digest: str) -> None:
        self._fake.calls.append(("promote", name, alias, digest))
        if alias == "latest":
            self._fake.latest = digest

    async def roll_back(self, name: str, alias: str) -> None:
        self._fake.calls.append(("roll_back", name, alias))
        self._fake.latest = CARDS[0].digest

    async def revoke(self, digest: str, reason: str) -> list[str]:
        self._fake.calls.append(("revoke", digest, reason))
        self._fake.revoked.add(digest)
        return [digest]


@dataclasses.dataclass(frozen=True)
class _Status:
    """All that router and store tell of themselves."""

    cards: int
    revision: int
    size_bytes: int
    threshold: float
    embedder_id: str
    events_emitted: int
    events_delivered: int
    events_dropped: int
    events_waiting: int
    calibration_error: float | None
    calibration_rows: int
    bins: tuple[domain.Bin, ...]
