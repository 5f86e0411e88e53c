"""A node's line to the hierarchy, over whatever happens to it."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

from shared import errors
from shared import settings as config
from shared.hierarchy import levels, messages, weights, wire
from shared.pb import hierarchy_pb2
from shared.security import certs
from shared.security import protection as protections
from tests import fake_layers
from tests.contract import addresses, hierarchies

LARGE = 2**30


class Lasting:
    """Layers that outlive the service that serves them, as those on disk do."""

    def __init__(self) -> None:
        self.layers = fake_layers.FakeLayers()

    def __call__(self, frame: wire.Frame) -> fake_layers.FakeLayers:
        assert frame == dataclasses.replace(fake_layers.FRAME, most_circuits=64)
        return self.layers


async def tick(house: hierarchies.House) -> None:
    await house.call("Tick", hierarchy_pb2.TickRequest())


async def test_submissions_are_settled_in_order_when_several_agents_send(
    tmp_path: pathlib.Path,
) -> None:
    lasting, heard = Lasting(), hierarchies.Listener()
    chosen = hierarchies.settings(tmp_path)
    async with (
        hierarchies.running(chosen, lasting) as house,
        hierarchies.node(house.address, tmp_path / "node", heard) as client,
    ):
        for agent in ("ada", "bob"):
            client.follow(agent, settled=0)
            for sequence in (1, 2):
                client.submit(fake_layers.submission(agent, sequence))
        await heard.until(lambda: all(client.position(a).sent == 2 for a in ("ada", "bob")))
        await heard.until(lambda: client.version == 0)
        assert len(lasting.layers.pending) == 4
        assert client.waiting("ada") == [1, 2]
        await tick(house)
        await heard.until(lambda: len(heard.settlements) == 4 and client.version == 1)
        assert client.waiting("ada") == client.waiting("bob") == []
    assert sorted(heard.settled) == [("ada", 1), ("ada", 2), ("bob", 1), ("bob", 2)]
    assert [one.sequence for one in heard.settlements if one.agent == "ada"] == [1, 2]
    assert heard.settlements[0].factors == {levels.Level.AGENT: 0.5}
    versions = [snapshot.version for snapshot in heard.snapshots]
    assert versions == [0, 1]


async def test_what_was_submitted_counts_once_when_the_hierarchy_was_away(
    tmp_path: pathlib.Path,
) -> None:
    lasting, heard = Lasting(), hierarchies.Listener()
    address = addresses.free_address()
    chosen = hierarchies.settings(tmp_path, control=address)
    async with hierarchies.node(address, tmp_path / "node", heard) as client:
        client.follow("ada", settled=0)
        client.submit(fake_layers.submission(sequence=1))
        assert not client.connected and client.waiting("ada") == [1]
        async with hierarchies.running(chosen, lasting) as house:
            await heard.until(lambda: client.position("ada").sent == 1)
            await tick(house)
            await heard.until(lambda: heard.settled == [("ada", 1)] and client.version == 1)
        client.submit(fake_layers.submission(sequence=2))
        await heard.until(lambda: not client.connected)
        # Answers go on: the last snapshot stays.
        assert client.version == 1
        async with hierarchies.running(chosen, lasting) as house:
            await heard.until(lambda: client.position("ada").sent == 2)
            assert [one.sequence for one in lasting.layers.pending] == [2]
            await tick(house)
            await heard.until(lambda: heard.settled == [("ada", 1), ("ada", 2)])
    assert lasting.layers.ticks == 2


async def test_node_goes_on_where_it_was_when_it_starts_again(tmp_path: pathlib.Path) -> None:
    lasting, first, second = Lasting(), hierarchies.Listener(), hierarchies.Listener()
    chosen, folder = hierarchies.settings(tmp_path), tmp_path / "node"
    async with hierarchies.running(chosen, lasting) as house:
        async with hierarchies.node(house.address, folder, first) as client:
            client.follow("ada", settled=0)
            for sequence in (1, 2):
                client.submit(fake_layers.submission(sequence=sequence))
            await first.until(lambda: len(lasting.layers.pending) == 2)
            await tick(house)
            await first.until(lambda: len(first.settlements) == 2)
            client.submit(fake_layers.submission(sequence=3))
            await first.until(lambda: len(lasting.layers.pending) == 1)
        # The node's agent was kept before it had taken its second settlement.
        async with hierarchies.node(house.address, folder, second) as client:
            client.follow("ada", settled=1)
            assert client.waiting("ada") == [3]
            await second.until(lambda: second.settled == [("ada", 2)])
            await tick(house)
            await second.until(lambda: second.settled == [("ada", 2), ("ada", 3)])
    assert lasting.layers.version == 2


async def test_last_snapshot_is_there_at_once_when_no_hierarchy_is(tmp_path: pathlib.Path) -> None:
    heard, folder = hierarchies.Listener(), tmp_path / "node"
    async with (
        hierarchies.running(hierarchies.settings(tmp_path)) as house,
        hierarchies.node(house.address, folder, heard) as client,
    ):
        client.follow("ada", settled=0)
        await heard.until(lambda: client.version == 0 and (folder / "snapshot.arrow").exists())
    alone = hierarchies.Listener()
    async with hierarchies.node(addresses.free_address(), folder, alone) as client:
        await alone.until(lambda: client.version == 0)
        assert not client.connected
    for path, pair in heard.snapshots[0].layers[levels.Level.SWARM].items():
        assert alone.snapshots[0].layers[levels.Level.SWARM][path].a.equal(pair.a)
    # One of other layers than those configured is left alone.
    other = wire.Frame({"layers.0.q_proj": weights.Shape(4, 6)}, fake_layers.SPECS)
    fresh = hierarchies.Listener()
    async with (
        hierarchies.running(hierarchies.settings(tmp_path / "other")) as house,
        hierarchies.node(house.address, folder, fresh, other) as client,
    ):
        client.follow("ada", settled=0)
        await fresh.until(lambda: client.version == 0)
        assert set(fresh.snapshots[0].layers[levels.Level.SWARM]) == {"layers.0.q_proj"}


async def test_submission_waits_when_the_hierarchy_takes_no_more_before_its_tick(
    tmp_path: pathlib.Path,
) -> None:
    lasting, heard = Lasting(), hierarchies.Listener()
    chosen = hierarchies.settings(tmp_path, limits={"submissions_per_tick": 1})
    async with (
        hierarchies.running(chosen, lasting) as house,
        hierarchies.node(house.address, tmp_path / "node", heard) as client,
    ):
        for agent in ("ada", "bob"):
            client.follow(agent, settled=0)
        for sequence in (1, 2):
            client.submit(fake_layers.submission("ada", sequence))
        await heard.until(lambda: client.position("ada").sent == 1)
        # Whoever is held up holds up nobody else.
        client.submit(fake_layers.submission("bob", 1))
        await heard.until(lambda: client.position("bob").sent == 1)
        assert client.position("ada").sent == 1
        await tick(house)
        await heard.until(lambda: client.position("ada").sent == 2)
        assert [(one.agent, one.sequence) for one in lasting.layers.pending] == [("ada", 2)]


async def test_those_that_follow_are_settled_when_one_submission_does_not_fit(
    tmp_path: pathlib.Path,
) -> None:
    lasting, heard = Lasting(), hierarchies.Listener()
    wrong = messages.Submission("ada", 1, 0, {levels.Level.SWARM: fake_layers.layer(7)}, {})
    async with (
        hierarchies.running(hierarchies.settings(tmp_path), lasting) as house,
        hierarchies.node(house.address, tmp_path / "node", heard) as client,
    ):
        client.follow("ada", settled=0)
        client.submit(wrong)
        client.submit(fake_layers.submission(sequence=2))
        await heard.until(lambda: len(lasting.layers.pending) == 2)
        assert [bool(one.shared) for one in lasting.layers.pending] == [False, True]
        assert "swarm" in client.position("ada").refused
        await tick(house)
        await heard.until(lambda: heard.settled == [("ada", 1), ("ada", 2)])


async def test_node_holds_no_more_than_it_may_while_the_hierarchy_is_away(
    tmp_path: pathlib.Path,
) -> None:
    heard = hierarchies.Listener()
    address = addresses.free_address()
    async with hierarchies.node(address, tmp_path, heard, most_waiting_bytes=1) as client:
        with pytest.raises(errors.NotFoundError, match="follow it"):
            client.submit(fake_layers.submission())
        client.follow("ada", settled=0)
        assert client.has_room
        client.submit(fake_layers.submission(sequence=1))
        assert not client.has_room
        with pytest.raises(errors.OverloadedError, match="waiting_mib"):
            client.submit(fake_layers.submission(sequence=2))
        client.leave("ada")
        assert client.has_room


async def test_others_go_on_when_one_agent_may_not_join(tmp_path: pathlib.Path) -> None:
    lasting, heard = Lasting(), hierarchies.Listener()
    chosen = hierarchies.settings(tmp_path, limits={"agents": 1})
    async with (
        hierarchies.running(chosen, lasting) as house,
        hierarchies.node(house.address, tmp_path / "node", heard) as client,
    ):
        client.follow("ada", settled=0)
        await heard.until(lambda: client.position("ada").joined)
        client.follow("bob", settled=0)
        await heard.until(lambda: bool(client.position("bob").refused))
        assert "limits.agents" in client.position("bob").refused
        for agent in ("bob", "ada"):
            client.submit(fake_layers.submission(agent))
        await heard.until(lambda: client.position("ada").sent == 1)
        await tick(house)
        await heard.until(lambda: heard.settled == [("ada", 1)])
        assert client.waiting("bob") == [1]


async def test_agent_may_not_join_when_the_ranks_here_are_others(tmp_path: pathlib.Path) -> None:
    heard = hierarchies.Listener()
    ours = dict(fake_layers.SPECS) | {levels.Level.SWARM: levels.Spec(9, 0.7)}
    frame = dataclasses.replace(fake_layers.FRAME, specs=ours)
    async with (
        hierarchies.running(hierarchies.settings(tmp_path)) as house,
        hierarchies.node(house.address, tmp_path / "node", heard, frame) as client,
    ):
        client.follow("ada", settled=0)
        await heard.until(lambda: bool(client.position("ada").refused))
        assert "hierarchy.layers" in client.position("ada").refused and not heard.snapshots


async def test_everything_goes_over_tls_with_a_token_when_they_are_configured(
    tmp_path: pathlib.Path,
) -> None:
    lasting, heard, strange = Lasting(), hierarchies.Listener(), hierarchies.Listener()
    folder = tmp_path / "certs"
    certs.make(folder, [])
    chosen = hierarchies.settings(tmp_path, tokens=True)
    tls = {"certificate": folder / "service.pem", "key": folder / "service.key"}
    security = chosen.security.model_copy(update={"tls": config.Tls(**tls)})
    authority = (folder / "authority.pem").read_bytes()
    known = protections.Protection(authority=authority, token="token-of-one")
    other = protections.Protection(authority=authority, token="token-of-two")
    async with hierarchies.running(
        chosen.model_copy(update={"security": security}), lasting
    ) as house:
        address = house.address.replace("127.0.0.1", "localhost")
        async with (
            hierarchies.node(address, tmp_path / "a", heard, protection=known) as client,
            hierarchies.node(address, tmp_path / "b", strange, protection=other) as stranger,
        ):
            client.follow("ada", settled=0)
            client.submit(fake_layers.submission())
            await heard.until(lambda: len(lasting.layers.pending) == 1 and bool(heard.snapshots))
            stranger.follow("ada", settled=0)
            stranger.submit(fake_layers.submission(seed=1))
            await strange.until(lambda: bool(stranger.position("ada").refused))
            assert "another token" in stranger.position("ada").refused
        assert len(lasting.layers.pending) == 1 and not strange.settlements


async def test_node_without_agents_has_the_newest_snapshot(tmp_path: pathlib.Path) -> None:
    there, heard = hierarchies.Listener(), hierarchies.Listener()
    chosen = hierarchies.settings(tmp_path)
    async with (
        hierarchies.running(chosen) as house,
        hierarchies.node(house.address, tmp_path / "without", heard) as without,
    ):
        await heard.until(lambda: without.connected)
        assert without.version == -1  # Nobody has said yet what the layers are of.
        async with hierarchies.node(house.address, tmp_path / "node", there) as client:
            client.follow("ada", settled=0)
            client.submit(fake_layers.submission("ada", 1))
            await there.until(lambda: client.position("ada").sent == 1)
            await tick(house)
            await heard.until(lambda: without.version == 1)
    assert heard.settlements == []


async def test_node_without_agents_leaves_alone_a_snapshot_of_another_base(
    tmp_path: pathlib.Path,
) -> None:
    heard = hierarchies.Listener()
    async with hierarchies.running(hierarchies.settings(tmp_path)) as house:
        await house.join("ada", base_fingerprint="e" * 64)
        async with hierarchies.node(house.address, tmp_path / "node", heard) as client:
            await heard.until(lambda: client.connected)
            await house.call("Tick", hierarchy_pb2.TickRequest())
            client.follow("bob", settled=0)
            await heard.until(lambda: bool(client.position("bob").refused))
    assert heard.snapshots == []


async def test_agent_of_the_same_name_on_another_node_is_refused(tmp_path: pathlib.Path) -> None:
    here, there = hierarchies.Listener(), hierarchies.Listener()
    async with (
        hierarchies.running(hierarchies.settings(tmp_path)) as house,
        hierarchies.node(house.address, tmp_path / "here", here) as first,
        hierarchies.node(house.address, tmp_path / "there", there, name="node-2") as second,
    ):
        first.follow("ada", settled=0)
        await here.until(lambda: first.position("ada").joined)
        second.follow("ada", settled=0)
        second.follow("bob", settled=0)
        await there.until(lambda: second.position("bob").joined)
        position = second.position("ada")
        assert not position.joined and "on node node-1 now" in position.refused
        second.submit(fake_layers.submission("ada", 1, seed=2))
        first.submit(fake_layers.submission("ada", 1))
        await here.until(lambda: first.position("ada").sent == 1)
        assert second.waiting("ada") == [1]  # It waits; it is not dropped as a repetition.
