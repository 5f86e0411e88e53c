"""A cluster for the console to look at: plain values, and a task that moves while one watches.

Stands in for `services.gateway.calls` and the fleet, with the same methods. What it shows is chosen
by `scene`: `full`, `unjudged` (nobody counts feedback), `empty`, `down` (no service answers) or
`refused` (no right to anything).
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Callable
from typing import Any

from services.gateway import domain
from shared import costs, errors
from shared.cards import manifest as manifests
from shared.rpc import access
from shared.security import callers
from tests.fake_holdings import (
    ANSWER,
    BINS,
    CARDS,
    GATE,
    NOW_MS,
    PAUSE_S,
    QUESTION,
    QUILLHAVEN,
    SHARED,
    TASKS,
    TIMES,
    UNKNOWN,
    digest,
    task,
)

USER_TOKEN, OF_A_TENANT = "ulla-token", "brindlemoor"
"""A token without tenants, and the card that is one's."""


class Fake:
    """Peers and fleet at once."""

    def __init__(self) -> None:
        """With everything there."""
        self.scene = "full"
        self.learned: dict[str, str] = {}
        """Answers by question."""
        self.corrections: dict[str, str] = {}
        """That a task is to learn."""
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
        text = self.learned.get(question, UNKNOWN)
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
        return self._fake.scene in ("full", "unjudged")

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
        opened = task(
            0,
            query,
            "PENDING",
            detail="gathers more questions about the same gap",
            stage_times=TIMES[:1],
        )
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
        times = TIMES if now.detected else TIMES[1:]
        now = dataclasses.replace(now, card=CARDS[0].reference, stage_times=times)
        self._fake.live[task_id] = now
        right = self._fake.corrections.get(now.trigger_query, ANSWER)
        self._fake.learned[now.trigger_query] = right
        return now

    async def feedback(
        self,
        idempotency_key: str,
        question: str,
        answer: str = "",
        card: str = "",
        is_right: bool = False,
        correction: str = "",
    ) -> domain.FeedbackTaken:
        self._fake.check()
        if is_right or "@" in correction:
            reason = "nothing is learned: it holds personal data" if correction else "it is right"
            self._fake.calls.append(("right" if is_right else "private", question, answer, card))
            return domain.FeedbackTaken("", reason)
        self._fake.calls.append(("wrong", question, answer, card, correction))
        if correction:
            self._fake.corrections[question] = correction
        opened = task(8, question, "PENDING")
        self._fake.live[opened.id] = opened
        return domain.FeedbackTaken(opened.id, "")

    async def card_feedback(self, card: str) -> domain.CardFeedback:
        if self._fake.scene == "unjudged":
            raise errors.UnavailableError("failed to connect to all addresses")
        right, wrong = (1_204, 3) if card == CARDS[0].reference else (0, 0)
        return domain.CardFeedback(card, right, wrong)

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
        # The store tells a caller of its own tenants' cards alone.
        is_user = access.on_whose_behalf() == callers.header(USER_TOKEN)
        held = tuple(c.digest for c in CARDS if not (is_user and c.name == OF_A_TENANT))
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
