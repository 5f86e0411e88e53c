"""The node's line to the hierarchy, over any interruption of it.

    client = hierarchy_client.HierarchyClient(...)
    client.start()                                # takes the snapshot of before, then connects
    client.follow("ada", settled=0)
    client.submit(submission)                     # on disk at once, sent in turn, counted once

Joins each agent, sends its submissions in order, fetches every new snapshot by its ticket, and
hands out settlements; for a node without agents it only fetches snapshots. While the hierarchy is
away, answers go on with the last snapshot and submissions wait on disk. What the agents' layers
are, it does not know.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pathlib
import random
import time
from collections.abc import Mapping
from typing import Any, Protocol

import structlog

from services.inference.agents import outbox
from shared import atomic, discovery, errors
from shared.flight import client as flight_client
from shared.hierarchy import levels, messages, wire
from shared.pb import hierarchy_pb2, hierarchy_pb2_grpc
from shared.rpc import client as rpc_client
from shared.rpc import hierarchy_messages
from shared.security import protection as protections

SILENCE_S = 6.0
"""Three heartbeats: longer silence means that the line is dead."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_JOIN_AGAIN_S = 30.0
"""An agent that was refused is told again so late."""
_SNAPSHOT_FILE = "snapshot.arrow"
_log = structlog.get_logger(__name__)


class Listener(Protocol):
    """What takes in the news; called one after the other."""

    async def take_snapshot(self, snapshot: messages.Snapshot) -> None:
        """The shared layers as they are now."""

    async def take_settlement(self, settlement: messages.Settlement) -> None:
        """What became of a submission; once this returned it is not told again."""


@dataclasses.dataclass
class Followed:
    """Where one agent is."""

    settled: int
    """The last sequence whose settlement was taken."""
    sent: int = 0
    """The last sequence that the hierarchy has seen."""
    joined: bool = False
    refused: str = ""
    """Why it can't join or submit; empty where it can."""
    again_at_s: float = 0.0
    """Not before is it joined or sent again; monotonic."""
    pause_s: float = _FIRST_PAUSE_S


class HierarchyClient:
    """One node's; for the loop that `start` was called on."""

    def __init__(
        self,
        address: str,
        node: str,
        base_fingerprint: str,
        frame: wire.Frame,
        folder: pathlib.Path,
        listener: Listener,
        most_waiting_bytes: int,
        protection: protections.Protection = protections.OPEN,
        silence_s: float = SILENCE_S,
    ) -> None:
        """Prepares; connects when started.

        Args:
            address: `host:port` of the hierarchy's control plane.
            node: names this node.
            base_fingerprint: of the base model loaded here.
            frame: modules and ranks, as configured here; the hierarchy must have the same.
            folder: where submissions wait and the last snapshot lies.
            listener: takes in snapshots and settlements.
            most_waiting_bytes: of the submissions that wait.
            protection: what is shown to the hierarchy and asked of it.
            silence_s: how long the line may be silent before it counts as dead.

        Raises:
            errors.ConfigError: the folder can't be used.
        """
        self._address, self._node, self._frame = address, node, frame
        self._fingerprint = base_fingerprint
        self._folder, self._listener = folder, listener
        self._outbox = outbox.Outbox(folder / "outbox", most_waiting_bytes)
        self._protection, self._silence_s = protection, silence_s
        self._agents: dict[str, Followed] = {}
        self._digest = ""
        self._flight = ""
        self._work = asyncio.Event()
        self._regroup = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.version = -1
        """Of the snapshot that was taken last; -1 before the first."""
        self.connected = False
        """Whether the line is alive."""

    def start(self) -> None:
        """Begins; a hierarchy that can't be reached is joined later."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Ends; what waits goes on waiting on disk."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def follow(self, agent: str, settled: int) -> None:
        """Joins an agent, and hands out its settlements.

        Args:
            agent: its id.
            settled: the last sequence whose settlement was taken; it is not told again.
        """
        if agent not in self._agents:
            self._agents[agent] = Followed(settled)
            self._outbox.settle(agent, settled)
            self._regroup.set()

    def leave(self, agent: str) -> None:
        """Forgets an agent here, with what it has not sent; what it sent counts."""
        if self._agents.pop(agent, None) is not None:
            self._outbox.forget(agent)
            self._regroup.set()

    def position(self, agent: str) -> Followed:
        """Where an agent is, as far as is known here; `sent` is above 0 only once it joined."""
        return self._agents[agent]

    def waiting(self, agent: str) -> list[int]:
        """Sequences of submissions that are not settled, in order."""
        return self._outbox.waiting(agent)

    @property
    def has_room(self) -> bool:
        """Whether another submission may wait: learning should pause where not."""
        return self._outbox.has_room(1)

    def submit(self, submission: messages.Submission) -> None:
        """Has a submission sent; it is on disk when this returns. The same sequence counts once.

        Raises:
            errors.OverloadedError: too many wait already.
            errors.NotFoundError: the agent is not followed.
        """
        if submission.agent not in self._agents:
            raise errors.NotFoundError(f"agent {submission.agent}: follow it before it submits")
        data = wire.submission_to_bytes(submission)
        self._outbox.put(submission.agent, submission.sequence, data)
        self._work.set()

    async def _run(self) -> None:
        await self._take_kept()
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                async with rpc_client.channel(
                    self._address, protection=self._protection
                ) as channel:
                    stub: Any = hierarchy_pb2_grpc.HierarchyStub(channel)
                    for at in self._agents.values():
                        at.joined = False  # It may be another, or know less than before.
                    while True:
                        await self._session(stub)
                        pause_s = _FIRST_PAUSE_S
            except (errors.SkillmeshError, OSError) as error:
                _log.info("hierarchy lost", address=self._address, reason=str(error))
            except Exception:
                # Whatever is wrong with one message must not end the line.
                _log.exception("hierarchy: the line broke")
            finally:
                self.connected = False
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _session(self, stub: Any) -> None:
        """Joins all, then sends and follows; ends where agents came or left."""
        self._regroup.clear()
        if not self._agents:
            await self._find(stub)
        for agent in list(self._agents):
            await self._join(stub, agent)
        sending = asyncio.create_task(self._send())
        following = asyncio.create_task(self._follow(stub))
        regrouping = asyncio.create_task(self._regrouped())
        tasks = (sending, following, regrouping)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _find(self, stub: Any) -> None:
        """Learns where snapshots are, for a node that has no agents to join."""
        request = hierarchy_pb2.GetHierarchyStatusRequest()
        status = await rpc_client.call(stub.GetHierarchyStatus, request)
        # Layers of another base are of no use here.
        fits = status.base_fingerprint in ("", self._fingerprint)
        address = discovery.reachable(status.flight_address, self._address)
        self._flight = address if fits else ""

    async def _regrouped(self) -> None:
        """Returns once agents came or left, or one that was refused may try again."""
        due = [one.again_at_s for one in self._agents.values() if not one.joined]
        # Without any: for ever.
        left_s = max(0.0, min(due) - time.monotonic()) if due else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left_s):
                await self._regroup.wait()

    async def _join(self, stub: Any, agent: str) -> None:
        at = self._agents.get(agent)
        if at is None or at.joined or at.again_at_s > time.monotonic():
            return
        request = hierarchy_messages.join_request(
            agent, self._node, self._fingerprint, self._frame.shapes
        )
        try:
            answer = await rpc_client.call(stub.Join, request)
            self._check_specs(hierarchy_messages.specs(answer.specs))
        except errors.SkillmeshError as error:
            if error.retryable:
                raise
            if at.refused != str(error):
                _log.error("agent may not join the hierarchy", agent=agent, reason=str(error))
            at.refused, at.again_at_s = str(error), time.monotonic() + _JOIN_AGAIN_S
            return
        at.joined, at.refused, at.sent = True, "", answer.last_sequence
        self._flight = discovery.reachable(answer.flight_address, self._address)

    def _check_specs(self, theirs: Mapping[levels.Level, levels.Spec]) -> None:
        ours = {level: spec.rank for level, spec in self._frame.specs.items()}
        other = {level: spec.rank for level, spec in theirs.items()}
        if ours != other:
            raise errors.ConfigError(
                f"hierarchy.layers: the ranks here are {ours}, those of the hierarchy {other}; "
                "give all nodes and the hierarchy the same"
            )

    async def _send(self) -> None:
        """Sends what waits, each agent's in order, for as long as the line holds."""
        connection = None
        try:
            while True:
                self._work.clear()
                sent = False
                for agent, at in list(self._agents.items()):
                    sequence = self._next(agent, at)
                    if sequence is None or at.again_at_s > time.monotonic():
                        continue
                    if connection is None:
                        connection = flight_client.LoRAFlightClient(self._flight, self._protection)
                    sent |= await self._send_one(connection, agent, at, sequence)
                if not sent:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._until_due_s()):
                            await self._work.wait()
        finally:
            if connection is not None:
                connection.close()

    def _next(self, agent: str, at: Followed) -> int | None:
        if not at.joined:
            return None
        return next((one for one in self._outbox.waiting(agent) if one > at.sent), None)

    def _until_due_s(self) -> float | None:
        due = [at.again_at_s for agent, at in self._agents.items() if self._next(agent, at)]
        return max(0.01, min(due) - time.monotonic()) if due else None

    async def _send_one(
        self,
        connection: flight_client.LoRAFlightClient,
        agent: str,
        at: Followed,
        sequence: int,
    ) -> bool:
        data = self._outbox.read(agent, sequence)
        try:
            await asyncio.to_thread(
                connection.put, "submission", data, agent=agent, sequence=sequence
            )
        except errors.OverloadedError as error:
            _log.debug("submission waits", agent=agent, sequence=sequence, reason=str(error))
            at.again_at_s = time.monotonic() + at.pause_s * random.uniform(0.8, 1.2)
            at.pause_s = min(at.pause_s * 2, _LONGEST_PAUSE_S)
            return False
        except (errors.InvalidInputError, errors.CapacityError) as error:
            # It would be refused for ever, and with it all that follow: an empty one takes its
            # place and its number.
            _log.error("submission refused", agent=agent, sequence=sequence, reason=str(error))
            empty = messages.Submission(agent, sequence, max(0, self.version), {}, {})
            self._outbox.put(agent, sequence, wire.submission_to_bytes(empty), replace=True)
            at.refused, at.again_at_s = str(error), time.monotonic() + at.pause_s
            at.pause_s = min(at.pause_s * 2, _LONGEST_PAUSE_S)
            return False
        at.sent, at.pause_s = sequence, _FIRST_PAUSE_S
        return True

    async def _follow(self, stub: Any) -> None:
        """Takes in snapshots and settlements until the line breaks."""
        positions = [
            hierarchy_pb2.AgentPosition(agent=agent, after=at.settled)
            for agent, at in self._agents.items()
            if at.joined
        ]
        call = stub.Watch(hierarchy_pb2.WatchHierarchyRequest(agents=positions))
        try:
            while True:
                try:
                    async with asyncio.timeout(self._silence_s), rpc_client.typed_errors():
                        news = await call.read()
                except TimeoutError:
                    raise errors.UnavailableError(
                        f"the hierarchy was silent for {self._silence_s:g} s"
                    ) from None
                if not isinstance(news, hierarchy_pb2.HierarchyNews):  # The end of the stream.
                    raise errors.UnavailableError("the hierarchy ended the watch")
                self.connected = True
                if news.HasField("snapshot"):
                    await self._fetch(news.snapshot)
                for told in news.settlements:
                    await self._settle(hierarchy_messages.settlement(told))
        finally:
            call.cancel()

    async def _fetch(self, ticket: hierarchy_pb2.SnapshotTicket) -> None:
        if ticket.digest == self._digest or not self._flight:
            return
        try:
            data = await asyncio.to_thread(self._fetched, ticket.digest)
        except errors.NotFoundError:
            return  # Overtaken: the news of the newer one is on its way.
        await self._take(data)
        self._digest = ticket.digest
        await asyncio.to_thread(atomic.write, self._folder / _SNAPSHOT_FILE, data)

    def _fetched(self, digest: str) -> bytes:
        connection = flight_client.LoRAFlightClient(self._flight, self._protection)
        try:
            return connection.get(digest)
        finally:
            connection.close()

    async def _take(self, data: bytes) -> None:
        snapshot = await asyncio.to_thread(wire.snapshot_from_bytes, data, self._frame)
        await self._listener.take_snapshot(snapshot)
        self.version = snapshot.version

    async def _take_kept(self) -> None:
        """The snapshot of before, so that a hierarchy that is away is not missed."""
        path = self._folder / _SNAPSHOT_FILE
        try:
            await self._take(await asyncio.to_thread(path.read_bytes))
        except FileNotFoundError:
            return
        except (errors.InvalidInputError, errors.CapacityError, OSError) as error:
            _log.warning("the kept snapshot is not used", file=str(path), reason=str(error))

    async def _settle(self, settlement: messages.Settlement) -> None:
        at = self._agents.get(settlement.agent)
        if at is None or settlement.sequence <= at.settled:
            return
        await self._listener.take_settlement(settlement)
        at.settled = settlement.sequence
        at.sent = max(at.sent, settlement.sequence)
        self._outbox.settle(settlement.agent, settlement.sequence)
