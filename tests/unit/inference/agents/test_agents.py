"""A node's agents, from feedback to the next answer, with a real hierarchy in the process."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import pytest
import torch

from services.hierarchy import hierarchy
from services.inference.agents import describing, feedback, learner, ledger
from shared import errors
from shared.hierarchy import agent_state, learning, levels
from tests import tiny_model
from tests.unit.inference.agents import learning_nodes
from tests.unit.inference.agents.learning_nodes import PAIR


async def test_agent_gives_the_answer_that_it_was_told(tmp_path):
    settings = learner.LearnerSettings(rounds=100, least_rounds=100)
    async with learning_nodes.running(tmp_path, learning_settings=settings) as node:
        await node.own.give_feedback("ada", "", [PAIR])
        assert await node.ask("ada") != PAIR.answer
        for _ in range(12):
            await learning_nodes.learned(node, ticks=5)
            if (found := await node.ask("ada")) == PAIR.answer:
                break
        assert found == PAIR.answer
        # Nobody else's answers have changed.
        bare = tiny_model.reference_text(tiny_model.tiny_base(), PAIR.question, 12)
        assert (await node.engine.generate(PAIR.question)).answer == bare


async def test_layers_move_and_feedback_is_done_when_submissions_are_settled(tmp_path):
    async with learning_nodes.running(tmp_path) as node:
        learning_nodes.says(node, by_agent=True)
        await learning_nodes.learned(node, ticks=2)
        await node.until(lambda: node.own.record("ada").examples == 1)
        record, held = node.own.record("ada"), await node.own.held("ada")
        assert (record.rounds, record.examples, record.settled) == (2, 1, 2)
        assert record.mark in {"fast_track", "normal", "conflict"}
        assert await node.own.queued() == {}
        for layer in held.layers.weights.values():
            assert any(bool(one.b.any()) for one in layer.values())
        swarm = node.line.shared.snapshot().layers[levels.Level.SWARM]
        assert any(bool(one.b.any()) for one in swarm.values())
        assert [one.sequence for one in node.line.submitted] == [1, 2]
        assert {one.examples for one in node.line.submitted} == {1}


async def test_round_waits_for_the_settlement_of_the_one_before(tmp_path):
    async with learning_nodes.running(tmp_path) as node:
        await node.own.take_snapshot(node.line.shared.snapshot())
        await node.own.give_feedback("ada", "", [PAIR])
        await node.until_submitted(1)
        await asyncio.sleep(1.2)  # Longer than it takes to look for work.
        assert len(node.line.submitted) == 1
        await node.line.tick(node.own)
        await node.until_submitted(2)


async def test_state_is_the_same_to_the_bit_when_the_node_starts_again(tmp_path):
    shared = hierarchy.LoRAHierarchy(learning_nodes.frame_of(tiny_model.tiny_base()))
    async with learning_nodes.running(tmp_path, shared) as node:
        await learning_nodes.learned(node, ticks=2)
        await node.ask("ada")
        await node.until(lambda: len(node.known.in_memory("ada").layers.cache) == 1)
        first = await node.own.held("ada")
    async with learning_nodes.running(tmp_path, shared) as node:
        assert node.own.record("ada").settled == 2
        again = await node.own.held("ada")
        assert agent_state.to_bytes(again.layers) == agent_state.to_bytes(first.layers)
        # And it goes on as the other would have.
        for one in (first.layers, again.layers):
            one.maintain()
        assert agent_state.to_bytes(again.layers) == agent_state.to_bytes(first.layers)


async def test_submission_is_handed_on_when_the_node_died_before_it_could(tmp_path):
    shared = hierarchy.LoRAHierarchy(learning_nodes.frame_of(tiny_model.tiny_base()))
    async with learning_nodes.running(tmp_path, shared) as node:

        def die(submission):
            raise errors.UnavailableError("killed here")

        node.line.submit = die
        await node.own.take_snapshot(shared.snapshot())
        await node.own.give_feedback("ada", "", [PAIR])
        await node.until(lambda: node.own.record("ada").rounds == 1)
    assert shared.last_sequence("ada") == 0
    async with learning_nodes.running(tmp_path, shared) as node:
        await node.until_submitted(1)
        assert shared.last_sequence("ada") == 1
        await node.line.tick(node.own)
        assert node.own.record("ada").settled == 1
        assert not (await node.own.held("ada")).layers.unsettled


async def test_versions_never_come_twice_when_an_agent_is_forgotten_and_made_again(tmp_path):
    async with learning_nodes.running(tmp_path) as node:
        await learning_nodes.learned(node, ticks=2)
        await node.ask("ada")
        before = int(node.own.memory("ada").partition("@")[2])
        await node.own.forget("ada")
        await node.own.prepare("ada")
        assert node.own.compose("ada").name.startswith("shared@")
        with pytest.raises(errors.NotFoundError):
            await node.own.forget("ada")
        await node.own.give_feedback("ada", "", [PAIR])
        await node.ask("ada")
        assert int(node.own.memory("ada").partition("@")[2]) > before
        # Its numbers go on where the hierarchy saw the last one of the name.
        await node.until_submitted(3)
        assert [one.sequence for one in node.line.submitted] == [1, 2, 3]


async def test_least_used_agent_is_on_disk_alone_when_memory_is_full(tmp_path):
    async with learning_nodes.running(tmp_path, memory_bytes=1) as node:
        await learning_nodes.learned(node, "ada", 2)
        await node.ask("ada")
        held = node.known.in_memory("ada")
        await node.until(lambda: held.observed == 1)
        while await node.own.queued() or held.busy:
            await asyncio.sleep(0.01)
        await node.own.give_feedback("bob", "", [PAIR])
        await node.ask("bob")
        assert node.own.in_memory("ada") is None and node.backend.agents() == ["bob"]
        again = await node.own.held("ada")
        assert again is not held
        assert agent_state.to_bytes(again.layers) == agent_state.to_bytes(held.layers)
        assert len(again.layers.cache) == 1


async def test_generation_is_remembered_and_its_like_is_a_hit(tmp_path):
    async with learning_nodes.running(tmp_path) as node:
        await node.own.give_feedback("ada", "", [PAIR])
        for count in (1, 2):
            await node.ask("ada")
            await node.until(lambda count=count: node.known.in_memory("ada").observed == count)
        cache = (await node.own.held("ada")).layers.cache
        assert (len(cache), cache.hit_rate()) == (1, 0.5)
        (found,) = cache.rehearsal(1, torch.Generator())
        assert found.prompt.tolist() == tiny_model.tiny_base().prompt_ids(PAIR.question)
        told = await describing.one(node.own, "ada")
        assert (told.trajectories, told.hit_rate) == (1, 0.5)
        assert [one.level for one in told.layers] == list(levels.PRIVATE)
        (listed,) = await describing.every(node.own)
        assert dataclasses.replace(listed, layers=told.layers) == told


@pytest.mark.parametrize(
    ("agent", "pair", "message"),
    [
        ("", PAIR, "1 to 64 letters"),
        ("a b", PAIR, "1 to 64 letters"),
        ("..", PAIR, "first a letter or digit"),
        ("shared", PAIR, "what agents share"),
        ("ada", feedback.Pair("x\x1b[2Jy", "z"), r"pairs\[0\].question has .* U\+001B"),
        ("ada", feedback.Pair("x", "y " * 900), "tokens together; at most"),
        ("ada", feedback.Pair(" ", "x"), "question"),
        ("ada", feedback.Pair("x", "y" * 9000), r"pairs\[0\].answer has 9,000"),
    ],
)
async def test_feedback_is_refused_when_it_is_not_fit(tmp_path, agent, pair, message):
    async with learning_nodes.running(tmp_path) as node:
        with pytest.raises(errors.InvalidInputError, match=message):
            await node.own.give_feedback(agent, "", [pair])
        assert node.own.records() == []


async def test_feedback_is_bounded_and_taken_once(tmp_path):
    async with learning_nodes.running(tmp_path, most=2, queue=3) as node:
        node.line.has_room = False  # Nothing is learned meanwhile.
        first, second = ([feedback.Pair(f"{n}?", "x") for n in some] for some in ("ab", "cd"))
        assert await node.own.give_feedback("ada", "k", first) == feedback.Given(2, 2)
        assert await node.own.give_feedback("ada", "k", first) == feedback.Given(2, 2)
        with pytest.raises(errors.OverloadedError, match=r"hierarchy\.agents\.queue"):
            await node.own.give_feedback("ada", "l", second)
        assert await node.own.give_feedback("bob", "k", [PAIR]) == feedback.Given(1, 1)
        with pytest.raises(errors.CapacityError, match=r"hierarchy\.agents\.most"):
            await node.own.give_feedback("cid", "k", [PAIR])
        assert await node.own.queued() == {"ada": 2, "bob": 1}
    async with learning_nodes.running(tmp_path) as node:
        assert await node.own.queued() == {"ada": 2, "bob": 1}
        assert [one.agent for one in node.own.records()] == ["ada", "bob"]


async def test_answers_go_on_when_a_round_fails(tmp_path):
    async with learning_nodes.running(tmp_path) as node:

        async def fail(*_):
            raise errors.InvalidInputError("no memory")

        node.own._learns.learn = fail
        await node.own.take_snapshot(node.line.shared.snapshot())
        await node.own.give_feedback("ada", "", [PAIR])
        await node.until(lambda: "ada" in node.own._learner._failed_until)
        assert await node.ask("ada")
        assert await node.own.queued() == {"ada": 1}


async def test_settlement_is_not_lost_when_its_agent_leaves_memory_meanwhile(tmp_path):
    async with learning_nodes.running(tmp_path, memory_bytes=1) as node:
        await node.own.take_snapshot(node.line.shared.snapshot())
        for name in ("ada", "bob"):
            await node.own.give_feedback(name, "", [PAIR])
        await node.until_submitted(2)
        await asyncio.to_thread(node.line.shared.system_tick)
        told = [node.line.shared.settlements(name, 0)[0] for name in ("ada", "bob")]
        # Both come at once, and while others are read and push each other out.
        await asyncio.gather(
            *[node.own.take_settlement(one) for one in told],
            *[node.own.held(name) for name in ("ada", "bob") * 3],
        )
        for name in ("ada", "bob"):
            held = await node.own.held(name)
            assert node.own.record(name).settled == 1 and not held.layers.unsettled
            assert any(
                bool(one.b.any()) for one in held.layers.weights[levels.Level.AGENT].values()
            )


async def test_settlement_of_a_forgotten_namesake_changes_nothing(tmp_path):
    async with learning_nodes.running(tmp_path) as node:
        await node.own.take_snapshot(node.line.shared.snapshot())
        await node.own.give_feedback("ada", "", [PAIR])
        await node.until_submitted(1)
        await node.own.forget("ada")
        node.line.has_room = False
        await node.own.give_feedback("ada", "", [PAIR])
        await node.line.tick(node.own)
        held = await node.own.held("ada")
        assert (node.own.record("ada").settled, held.layers.sequence) == (0, 0)
        node.line.has_room = True
        await node.until_submitted(2)
        assert node.line.submitted[-1].sequence == 2


async def test_round_is_learned_again_when_it_could_not_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(learner, "_AFTER_FAILURE_S", 0.0)
    async with learning_nodes.running(tmp_path) as node:
        commit, calls = node.own._kept.commit, []

        def fail_once(*given):
            calls.append(given)
            if len(calls) == 1:
                raise errors.OverloadedError("the disk is full")
            return commit(*given)

        monkeypatch.setattr(node.own._kept, "commit", fail_once)
        await node.own.take_snapshot(node.line.shared.snapshot())
        await node.own.give_feedback("ada", "", [PAIR])
        await node.until_submitted(1)
        held = await node.own.held("ada")
        assert [one.sequence for one in held.layers.unsettled] == [1]
        await node.line.tick(node.own)
        await node.until_submitted(2)
        assert [one.sequence for one in node.line.submitted] == [1, 2]


async def test_agent_whose_state_is_damaged_says_so_and_can_be_forgotten(tmp_path):
    async with learning_nodes.running(tmp_path) as node:
        await learning_nodes.learned(node, ticks=1)
    kept = ledger.Ledger(tmp_path / "agents.sqlite", 4, 100, 50)
    data = kept.state("ada")
    kept.commit(kept.records()[0], data[:-100])
    kept.close()
    async with learning_nodes.running(tmp_path) as node:
        with pytest.raises(errors.IntegrityError, match="ForgetAgent"):
            await node.ask("ada")
        await node.own.forget("ada")
        await node.own.give_feedback("ada", "", [PAIR])
        assert await node.ask("ada")


async def test_correction_drops_what_the_agent_said_before(tmp_path):
    async with learning_nodes.running(tmp_path) as node:
        node.line.has_room = False
        await node.own.give_feedback("ada", "", [PAIR])
        for query in (PAIR.question, "How high is it?"):
            await node.ask("ada", query)
        held = await node.own.held("ada")
        await node.until(lambda: len(held.layers.cache) == 2)
        size = held.layers.cache.size_bytes
        await node.own.give_feedback("ada", "", [feedback.Pair(f" {PAIR.question}\n", "Bob. ")])
        (left,) = held.layers.cache.rehearsal(9, torch.Generator())
        assert left.prompt.tolist() == tiny_model.tiny_base().prompt_ids("How high is it?")
        assert held.layers.cache.size_bytes == left.size_bytes < size
        assert await node.own.queued() == {"ada": 1}


async def test_general_question_may_be_told_another_answer(tmp_path):
    told = feedback.Pair(learning_nodes.HELD[0], "Ten.")
    async with learning_nodes.running(tmp_path) as node:
        rows, steps = [], learning.Round.steps

        def recorded(own, lessons, rehearsed, seed, held):
            rows.append((lessons, held))
            return steps(own, lessons, rehearsed, seed, held)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(learning.Round, "steps", recorded)
            await learning_nodes.learned(node, ticks=1, pair=told)
    lessons, held = rows[0]
    assert held and {one.prompt for one in lessons}.isdisjoint(one.prompt for one in held)


async def test_who_was_told_nothing_answers_with_what_all_share(tmp_path):
    async with learning_nodes.running(tmp_path) as node:
        await node.own.prepare("ben")
        assert node.own.compose("ben") is None
        await learning_nodes.learned(node, ticks=1)
        snapshot = node.line.shared.snapshot()
        await node.own.prepare("ben")
        memory = node.own.compose("ben")
        assert (memory.name, memory.capture) == (f"shared@{snapshot.version}", None)
        assert memory.stack.layers == snapshot.layers
        assert await node.ask("ben")
        await node.until_submitted(2)
        await node.line.tick(node.own)
        version = node.line.shared.snapshot().version
        await node.until(lambda: node.own.compose("ben").name == f"shared@{version}")
        assert [one.agent for one in node.own.records()] == ["ada"]


async def test_bases_own_answers_are_asked_once_and_learned_with_the_feedback(tmp_path):
    lessons = []
    base = tiny_model.tiny_base()
    for _ in range(2):
        async with learning_nodes.running(tmp_path) as node:
            if not lessons:
                await learning_nodes.learned(node, ticks=1)
            answers = json.loads(next(tmp_path.glob("held-*.json")).read_bytes())
            lessons.append(answers)
    assert lessons[0] == lessons[1]
    assert lessons[0].keys() == set(learning_nodes.HELD)
    for question, answer in lessons[0].items():
        assert answer == tiny_model.reference_text(base, question, 48)
