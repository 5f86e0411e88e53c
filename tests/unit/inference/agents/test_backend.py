"""Agents' memories on a tiny model: who answers, with which version, and who leaves."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from benchmarks.hierarchy import stacks
from services.inference import mixing
from services.inference.agents import backend as backends
from shared import errors
from shared.hierarchy import levels
from tests import tiny_model
from tests.unit.inference import gates
from tests.unit.inference.agents import served
from tests.unit.inference.agents.served import QUERY, TOKENS


@pytest.fixture
def base():
    return tiny_model.tiny_base()


async def _until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


async def test_agent_answers_with_the_sum_of_its_layers_and_others_with_theirs(base):
    one, other = stacks.stacked(base.model, 1), stacks.stacked(base.model, 2)
    async with served.running(base) as (engine, backend):
        await backend.publish("one", one)
        await backend.publish("other", other)
        memories = [backend.compose("one"), backend.compose("other")]
        found = await asyncio.gather(
            *[served.asked(engine, memory) for memory in memories], engine.generate(QUERY)
        )
    answers = [one.answer for one in found]
    assert answers == [served.alone(one), served.alone(other), served.alone(None)]
    assert len(set(answers)) == 3
    assert [memory.name for memory in memories] == ["one@1", "other@2"]


async def test_memory_and_skill_card_add_up_when_both_answer(base):
    made, skill = stacks.stacked(base.model), tiny_model.card_for(base)
    async with served.running(base) as (engine, backend):
        await engine.load_lora(skill, "skill@1", lambda: skill)
        await backend.publish("agent", made)
        memory = backend.compose("agent", [mixing.Share("skill@1", 1.0)])
        found = (await served.asked(engine, memory)).answer
        assert memory.name == "agent@1"
        assert (await engine.generate(QUERY, "skill@1")).answer == served.alone(None, [skill])
    assert found == served.alone(made, [skill])
    assert len({found, served.alone(made), served.alone(None, [skill])}) == 3


async def test_generation_goes_on_with_its_version_when_a_new_one_comes(base):
    old, new = stacks.stacked(base.model, 1), stacks.stacked(base.model, 2)
    async with served.running(base) as (engine, backend):
        await backend.publish("agent", old)
        one_version = engine.held_bytes
        gate = gates.Gate(base.model)
        pieces = engine.stream(QUERY, backend.compose("agent").key)
        await gates.begun(gate, pieces)
        await gates.during(gate, engine, backend.publish("agent", new))
        assert engine.held_bytes == 2 * one_version
        gate.open()
        after = await served.asked(engine, backend.compose("agent"))
        final = [piece.final async for piece in pieces][-1]
        # Nobody uses the old one any more.
        await _until(lambda: engine.held_bytes == one_version)
    assert final.answer == served.alone(old) and final.card == "agent@1"
    assert after.answer == served.alone(new) != final.answer


async def test_memory_is_nobodys_to_choose_and_is_not_reported_as_a_card(base):
    async with served.running(base) as (engine, backend):
        await backend.publish("agent", stacks.stacked(base.model))
        assert engine.held_bytes > 0
        assert (engine.served(), engine.resident()) == ([], [])


async def test_unknown_agent_is_not_found(base):
    async with served.running(base) as (_, backend):
        with pytest.raises(errors.NotFoundError, match="'agent' is not known to this node"):
            backend.compose("agent")
        await backend.publish("agent", stacks.stacked(base.model, 4))
        assert (backend.agents(), backend.version("agent")) == (["agent"], 4)
        backend.forget("agent")
        backend.forget("agent")
        with pytest.raises(errors.NotFoundError):
            backend.compose("agent")
        with pytest.raises(errors.NotFoundError, match="gone@1"):
            await backend.publish("agent", stacks.stacked(base.model, 5))
            backend.compose("agent", [mixing.Share("gone@1", 1.0)])


async def test_older_version_is_left_out(base):
    new = stacks.stacked(base.model, 2)
    async with served.running(base) as (engine, backend):
        await backend.publish("agent", new)
        await backend.publish("agent", stacks.stacked(base.model, 1))
        assert (await served.asked(engine, backend.compose("agent"))).answer == served.alone(new)


async def test_one_before_goes_on_answering_when_a_new_version_does_not_fit(base):
    old = stacks.stacked(base.model, 1)
    large = stacks.stacked(base.model, 2, ranks={levels.Level.AGENT: 24})
    small = sum(
        one.a.nbytes + one.b.nbytes for layer in old.layers.values() for one in layer.values()
    )
    async with served.running(base, card_memory_mib=1.2 * small / 2**20) as (engine, backend):
        await backend.publish("agent", old)
        with pytest.raises(errors.CapacityError, match="agent@2"):
            await backend.publish("agent", large)
        assert (await served.asked(engine, backend.compose("agent"))).answer == served.alone(old)


async def test_memory_comes_back_when_others_had_taken_its_room(base):
    made = {name: stacks.stacked(base.model, at) for at, name in enumerate("abc", start=1)}
    room = 1.2 * 2 * (32 + 32 + 32 + 16 + 32 + 16 + 32 + 32) * 15 * 4 / 2**20
    async with served.running(base, card_memory_mib=room) as (engine, backend):
        for name, one in made.items():
            await backend.publish(name, one, warm=name != "c")
        for name in "abcabc":
            found = await served.asked(engine, backend.compose(name))
            assert found.answer == served.alone(made[name])
            assert engine.held_bytes <= room * 2**20


async def test_answers_are_the_same_when_versions_of_all_agents_change_meanwhile(base):
    rounds, queries = 12, ("Who built it?", "When was that?", "How tall is it?")
    versions = {v: stacks.stacked(base.model, v) for v in range(1, rounds + 2)}
    answers: dict[tuple[str, str], set[str]] = {}
    asking, generations = asyncio.Semaphore(0), 0
    async with served.running(base) as (engine, backend):
        await backend.publish("agent", versions[1])

        async def change():
            for version in range(2, rounds + 2):
                await asking.acquire()  # A generation is under way.
                await backend.publish("other", versions[version])
                await backend.publish("agent", versions[version])

        changing = asyncio.create_task(change())
        while not changing.done() or generations % 6:
            if generations % 6 == 5:
                asking.release()
            memory, query = backend.compose("agent"), queries[generations % 3]
            found = await engine.generate(query, memory.key)
            assert found.card == memory.name
            answers.setdefault((memory.name, query), set()).add(found.answer)
            generations += 1
        await changing
    assert generations >= 60
    assert len({name for name, _ in answers}) > rounds / 2
    assert all(len(found) == 1 for found in answers.values())
    for (name, query), found in answers.items():
        version = versions[int(name.partition("@")[2])]
        assert found == {served.alone(version, query=query)}


async def _two_halves(base, live):
    """An answer during which the weights of its agent change."""
    settings = backends.BackendSettings(trajectory_share=0.0, live=live)
    async with served.running(base, settings) as (engine, backend):
        await backend.publish("agent", stacks.stacked(base.model, 1))
        pieces = engine.stream(QUERY, backend.compose("agent").key)
        gate = gates.Gate(base.model)
        async with contextlib.aclosing(pieces):
            await gates.begun(gate, pieces)
            await gates.during(
                gate, engine, backend.publish("agent", stacks.stacked(base.model, 2))
            )
            gate.open()
            final = [piece.final async for piece in pieces][-1]
        after = await served.asked(engine, backend.compose("agent"))
    return final.answer, after.answer


async def test_weights_change_within_an_answer_in_live_mode_alone(base):
    first, second = (served.alone(stacks.stacked(base.model, one)) for one in (1, 2))
    assert await _two_halves(tiny_model.tiny_base(), live=False) == (first, second)
    changed, after = await _two_halves(base, live=True)
    assert after == second
    assert changed not in (first, second) and changed[0] == first[0]


async def test_rows_of_other_agents_keep_theirs_when_one_is_rewritten(base):
    settings = backends.BackendSettings(trajectory_share=0.0, live=True)
    async with served.running(base, settings) as (engine, backend):
        for agent in ("one", "other"):
            await backend.publish(agent, stacks.stacked(base.model, 1 if agent == "one" else 7))
        gate = gates.Gate(base.model)
        first = engine.stream(QUERY, backend.compose("one").key)
        await gates.begun(gate, first)
        second = asyncio.create_task(served.asked(engine, backend.compose("other")))
        await gates.until_under_way(gate, engine, 2)
        await gates.during(gate, engine, backend.publish("one", stacks.stacked(base.model, 2)))
        gate.open()
        final = [piece.final async for piece in first][-1]
        assert (await second).answer == served.alone(stacks.stacked(base.model, 7))
    assert final.answer not in {served.alone(stacks.stacked(base.model, one)) for one in (1, 2)}


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.25, 2), (1.0, 8)])
async def test_share_of_generations_is_remembered(base, share, expected):
    path = "model.layers.1.self_attn.o_proj"
    settings = backends.BackendSettings(trajectory_share=share, inputs=(path,), top_k=3)
    async with served.running(base, settings) as (engine, backend):
        await backend.publish("agent", stacks.stacked(base.model))
        memories = [backend.compose("agent") for _ in range(8)]
        for memory in memories:
            pieces = engine.stream(QUERY, memory.key, capture=memory.capture)
            assert [piece async for piece in pieces]
    kept = [memory.capture.taken() for memory in memories if memory.capture is not None]
    assert len(kept) == expected
    for taken in kept:
        assert taken.top_logits.shape == (TOKENS, 3) and len(taken.answer) == TOKENS
        assert taken.inputs[path].shape == (32,)
        # Channels of the agent layer, and behind them those of the context layer.
        assert {one.shape for one in taken.activity.values()} == {(2 + 1,)}
        assert taken.activity.keys() == stacks.stacked(base.model).composed().keys()
