"""What agents learn again and again, until when, and what becomes of the rest."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses

import pytest

from services.inference.agents import describing, feedback, learner
from shared.hierarchy import learning, levels
from tests.unit.inference.agents import learning_nodes
from tests.unit.inference.agents.learning_nodes import PAIR


async def _others_move_the_shared_layers(node):
    newest = node.line.shared.snapshot()
    version = node.own.snapshot_version + 1
    await node.own.take_snapshot(dataclasses.replace(newest, version=version))


async def test_pair_takes_part_in_rounds_until_agent_and_shared_layers_answer_it(tmp_path):
    settings = learner.LearnerSettings(rounds=9)
    async with learning_nodes.running(tmp_path, learning_settings=settings) as node:
        asked = learning_nodes.says(node, by_agent=True, by_shared=False)
        await learning_nodes.learned(node, ticks=1)
        await node.until_submitted(2)
        assert asked == []  # Two rounds are the least.
        await node.line.tick(node.own)
        await node.until_submitted(3)
        assert asked == [PAIR] and node.own.record("ada").examples == 0
        learning_nodes.says(node, by_agent=True)
        await node.line.tick(node.own)
        await node.until(lambda: node.own.record("ada").examples == 1)
        assert (node.own.record("ada").rounds, await node.own.queued()) == (3, {})


@pytest.mark.parametrize("by_agent", [True, False])
async def test_pair_that_is_not_learned_in_its_rounds_is_told(tmp_path, by_agent):
    settings = learner.LearnerSettings(rounds=3)
    async with learning_nodes.running(tmp_path, learning_settings=settings) as node:
        learning_nodes.says(node, by_agent, by_shared=False)
        await learning_nodes.learned(node, ticks=3)
        while await node.own.queued():
            await asyncio.sleep(0.01)
        found = await describing.one(node.own, "ada")
        # What the agent itself answers right is kept, though others don't know it.
        wanted = [] if by_agent else [feedback.GivenUp(PAIR, feedback.Reason.ROUNDS)]
        assert (list(found.given_up), found.given_up_count) == (wanted, len(wanted))
        assert (found.record.examples, found.record.rounds) == (int(by_agent), 3)


async def test_agent_learns_again_what_others_took_from_it_until_that_is_contested(tmp_path):
    settings = learner.LearnerSettings(rounds=4, least_rounds=1, look_s=0.0, again=1)
    async with learning_nodes.running(tmp_path, learning_settings=settings) as node:
        learning_nodes.says(node, by_agent=True)
        await learning_nodes.learned(node, ticks=1)
        await node.until(lambda: node.own.record("ada").examples == 1)
        learning_nodes.says(node, by_agent=False)
        await _others_move_the_shared_layers(node)
        await node.until_submitted(2)
        assert await node.own.queued() == {"ada": 1}
        learning_nodes.says(node, by_agent=True)
        await node.line.tick(node.own)
        while await node.own.queued():
            await asyncio.sleep(0.01)
        learning_nodes.says(node, by_agent=False)
        await _others_move_the_shared_layers(node)
        while not (found := await node.own.given_up("ada")):
            await asyncio.sleep(0.01)
        assert found == [feedback.GivenUp(PAIR, feedback.Reason.CONTESTED)]
        assert (len(node.line.submitted), await node.own.queued()) == (2, {})


async def test_agent_rests_while_it_remembers_all(tmp_path):
    settings = learner.LearnerSettings(rounds=2, look_s=0.0)
    async with learning_nodes.running(tmp_path, learning_settings=settings) as node:
        asked = learning_nodes.says(node, by_agent=True)
        await learning_nodes.learned(node, ticks=2)
        await node.until(lambda: node.own.record("ada").examples == 1)
        held = await node.own.held("ada")
        before = len(asked)
        await _others_move_the_shared_layers(node)
        version = node.own.snapshot_version
        await node.until(lambda: held.looked_at_version == version)
        assert (len(node.line.submitted), node.own.record("ada").rounds) == (2, 2)
        assert len(asked) > before


async def test_tries_ask_the_agent_and_the_shared_layers_alone(tmp_path, monkeypatch):
    used = []

    @contextlib.contextmanager
    def answering_with(manager, layers):
        used.append(layers)
        yield

    def are_right(model, lessons, pad_id):
        return [levels.Level.AGENT in used[-1].layers] * len(lessons)

    monkeypatch.setattr(learning, "answering_with", answering_with)
    monkeypatch.setattr(learning, "are_right", are_right)
    async with learning_nodes.running(tmp_path) as node:
        node.line.has_room = False
        await node.own.give_feedback("ada", "", [PAIR])
        held = await node.own.held("ada")
        layers = node.known.stack("ada", held, node.line.shared.snapshot())
        found = await node.own._learns.tried(layers, [PAIR] * 20)
    assert found == [learner.Tried(True, False)] * 20
    assert [set(one.layers) for one in used] == [set(levels.LEVELS), set(levels.SHARED)] * 2


async def test_rounds_go_on_with_the_moments_of_the_one_before(tmp_path):
    settings = learner.LearnerSettings(rounds=9, least_rounds=9)
    async with learning_nodes.running(tmp_path, learning_settings=settings) as node:
        learn, given = node.own._learns.learn, []

        async def recorded(*arguments):
            given.append(arguments[-1])
            return await learn(*arguments)

        node.own._learns.learn = recorded
        await learning_nodes.learned(node, ticks=2)
        held = await node.own.held("ada")
        assert given[0] is None and given[1] is not None
        assert held.size_bytes > held.moments.size_bytes > 0
        steps = {float(one["step"]) for one in held.moments.state.values()}
        assert max(steps) > learning_nodes.RECIPE.steps
