"""One node as the fleet sees it: what it told last, what it is busy with, how requests to it end.

Knows nothing about the other nodes.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator

import structlog

from services.gateway import domain
from services.gateway.nodes import backend as backends
from shared import breaker, errors
from shared.cards import manifest as manifests

LOOK_DEADLINE_S = 2.0
"""A node at work answers within milliseconds; one that swaps or starves may take longer."""
_MOST_MISSED = 3
"""Looks in a row without an answer in time, until a node counts as gone; a refused one at once."""
HANGING_S = 10.0
"""Whoever waits so long for the first word of a stream, while nobody else hears one from the node,
finds it hanging."""
WARMING_S = 30.0
"""So long a node that has begun anew is expected to serve again what it did before."""
OK, CANCELLED = "ok", "cancelled"
_LATEST = "latest"
_log = structlog.get_logger(__name__)


class Member:
    """A node of the fleet."""

    def __init__(
        self,
        backend: backends.Backend,
        settings: breaker.Settings,
        clock: Callable[[], float],
    ) -> None:
        """Takes the way to it, when it is left alone, and seconds, monotonic."""
        self.backend = backend
        self.breaker = breaker.CircuitBreaker(backend.address, settings, clock, "node")
        self.node: domain.Node | None = None
        """What it told last; None before it was ever reached."""
        self.away: errors.SkillmeshError | None = None
        """Why it is not reached; None where it is."""
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.retries = 0
        self.in_flight = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self._clock = clock
        self._heard_s = clock()
        """When a request heard anything from it."""
        self._missed = 0
        self._served: frozenset[str] = frozenset()
        self._resident: frozenset[str] = frozenset()
        self._latest: dict[str, str] = {}
        self._expected: frozenset[str] = frozenset()
        self._expected_until_s = 0.0
        self._begun: collections.Counter[int] = collections.Counter()
        """Requests in flight by the look before which they began."""
        self._looks = self._looked = 0
        self._looking: asyncio.Task[None] | None = None
        # Looks are this process's own: they carry no caller's token, whoever causes them.
        self._context = contextvars.copy_context()

    @property
    def address(self) -> str:
        """Of the node."""
        return self.backend.address

    @property
    def is_reached(self) -> bool:
        """Whether it answered the latest look."""
        return self.node is not None and self.away is None

    @property
    def is_usable(self) -> bool:
        """Whether it is reached and its breaker lets a request through."""
        return self.is_reached and self.breaker.refusal() is None

    @property
    def load(self) -> float:
        """Requests that run and wait there, over those that may run together.

        To what the node told are added those that went there since it was asked.
        """
        told = self.node
        own = sum(self._begun[look] for look in range(self._looked, self._looks + 1))
        if told is None:
            return float(own)
        return (told.running + told.waiting + own) / max(1, told.most_rows)

    async def look(self) -> None:
        """Asks it how it is; whoever asks meanwhile waits for the same answer."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(
                self._look(), context=self._context.copy()
            )
        await asyncio.shield(self._looking)

    def rank(self, card: str) -> int | None:
        """How near a card is: 0 in memory, 1 served, 2 fetched when asked; None: not at all.

        Args:
            card: `name`, `name@digest` or `name@alias`.

        Raises:
            errors.InvalidInputError: it has another form.
        """
        name, selector = manifests.split_reference(card)
        key = self._latest.get(name, "") if selector == _LATEST else card
        if key in self._resident:
            return 0
        if key in self._served:
            return 1
        return 2 if self.node is not None and self.node.fetches_cards else None

    def expects(self, card: str) -> bool:
        """Whether a card that it does not serve is on its way back, since the node began anew."""
        name, selector = manifests.split_reference(card)
        if not self._is_warming:
            return False
        if selector == _LATEST:
            return any(one.partition("@")[0] == name for one in self._expected)
        return card in self._expected

    @contextlib.contextmanager
    def asked(self, streams: bool = False) -> Iterator[None]:
        """A request goes there; how the block ends is how the request did.

        Args:
            streams: `heard` is called for each piece; of an answer as a whole nothing is heard
                until its end.
        """
        self.breaker.asks()
        self.in_flight += 1
        self.idle.clear()
        began, began_s, outcome = self._looks, self._clock(), CANCELLED
        self._begun[began] += 1
        try:
            yield
            outcome = OK
            self.heard()
            self.breaker.succeeded()
        except errors.SkillmeshError as error:
            outcome = type(error).__name__
            self._failed(error, streams and self._hangs(began_s))
            raise
        except BaseException:
            # Whoever asked went away, which says nothing about a node that others hear.
            self._given_up(streams and self._hangs(began_s))
            raise
        finally:
            self.outcomes[outcome] += 1
            self.in_flight -= 1
            if not self.in_flight:
                self.idle.set()
            self._begun[began] -= 1
            if not self._begun[began]:
                del self._begun[began]

    def answers(self) -> None:
        """A first piece came: nobody waits for the last to find out that it is back."""
        self.breaker.succeeded()

    def heard(self) -> None:
        """Any piece came: whatever else fails there, it does not hang."""
        self._heard_s = self._clock()

    async def close(self) -> None:
        """Ends a look under way and closes the connections."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await self.backend.close()

    def state(self) -> domain.NodeState:
        """All of it, for people and metrics."""
        circuit = self.breaker.circuit()
        told = self.node or domain.Node("", (), (), 0, False)
        status: domain.Status = "ready"
        reason = circuit.reason
        if not self.is_reached:
            status, reason = "gone", str(self.away or "it was not asked yet")
        elif circuit.state is breaker.State.OPEN:
            status = "open"
        elif circuit.state is breaker.State.HALF_OPEN:
            status = "half-open"
        fields = {one.name: getattr(told, one.name) for one in dataclasses.fields(told)}
        return domain.NodeState(
            **fields,
            address=self.address,
            status=status,
            reason=reason,
            in_flight=self.in_flight,
            requests=tuple(sorted(self.outcomes.items())),
            retries=self.retries,
        )

    @property
    def _is_warming(self) -> bool:
        return self._clock() < self._expected_until_s

    def _hangs(self, began_s: float) -> bool:
        return self._heard_s <= began_s <= self._clock() - HANGING_S

    def _failed(self, error: errors.SkillmeshError, hangs: bool) -> None:
        if isinstance(error, errors.UnavailableError | errors.InternalError):
            self.breaker.failed(error)
        elif isinstance(error, errors.DeadlineError):
            self._given_up(hangs)  # The caller's time was up: that may have been short.
        else:
            self.breaker.succeeded()  # A refusal is an answer, too.

    def _given_up(self, hangs: bool) -> None:
        if hangs:
            self.breaker.failed(errors.DeadlineError(f"it said no word for {HANGING_S:.0f} s"))
        else:
            self.breaker.abandoned()

    async def _look(self) -> None:
        # What begins from here on may not be in what the node tells.
        self._looks += 1
        look = self._looks
        try:
            node = await self.backend.look(LOOK_DEADLINE_S)
        except errors.SkillmeshError as error:
            self._missed += 1
            refused = isinstance(error, errors.UnavailableError)
            if refused or self.node is None or self._missed >= _MOST_MISSED:
                if self.away is None:
                    _log.warning("node is not reached", node=self.address, reason=str(error))
                self.away = error
            return
        if self.away is not None:
            _log.info("node is reached again", node=self.address)
        self._missed, self.away = 0, None
        self._looked = look
        self._take(node)

    def _take(self, node: domain.Node) -> None:
        before, self.node = self.node, node
        began_anew = before is not None and before.id != node.id
        served = self._served
        self._served, self._resident = frozenset(node.served), frozenset(node.resident)
        self._latest = {key.partition("@")[0]: key for key in node.served}
        if began_anew:
            was_expected = self._expected if self._is_warming else frozenset()
            self._expected = served | was_expected
            self._expected_until_s = self._clock() + WARMING_S
        # It answers: what opened the circuit because it could not be reached is over. A node that
        # answers this, but fails its requests, is left alone as long as its pause lasts.
        is_closed = self.breaker.circuit().state is breaker.State.CLOSED
        was_unreached = isinstance(self.breaker.last_error, errors.UnavailableError)
        if not is_closed and (began_anew or was_unreached):
            self.breaker.succeeded()
