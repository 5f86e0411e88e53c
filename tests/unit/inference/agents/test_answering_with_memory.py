"""Questions that name an agent: its memory answers, alone or with the card that was chosen."""

from __future__ import annotations

import pytest

from services.inference import answering
from shared import errors
from tests import tiny_model
from tests.unit.inference.agents import learning_nodes, served

QUERY = served.QUERY


def _router(*candidates):
    async def route(query, no_learning, deadline_s, tenants):
        return answering.Routing(candidates, 0.1, 0.9, event_id="e1")

    return route


async def _no_route(*_):
    raise AssertionError("no router is asked")


async def _known(node, agent="ada"):
    """An agent whose layers say something, by one settled round."""
    await node.own.take_snapshot(node.line.shared.snapshot())
    await node.own.give_feedback(agent, "", [learning_nodes.PAIR])
    await node.until_submitted(1)
    await node.line.tick(node.own)
    held = await node.own.held(agent)
    return node.known.stack(agent, held, node.line.shared.snapshot())


async def test_agents_memory_answers_when_a_question_names_it(tmp_path):
    async with learning_nodes.running(tmp_path) as node:
        answers = answering.Answering(node.engine, _no_route, agents=node.own)
        made = await _known(node)
        found = await answers.answer(answering.Question(QUERY, "base", agent="ada"))
        assert found.memory == f"ada@{made.version}" and found.shares == ()
        assert found.generation.answer == served.alone(made)[: len(found.generation.answer)]
        plain = await answers.answer(answering.Question(QUERY, "base"))
        assert (plain.memory, plain.generation.card) == ("", None)
        await node.until(lambda: len(node.known.in_memory("ada").layers.cache) == 1)


async def test_routed_card_and_memory_answer_together(tmp_path):
    outcomes = []
    async with learning_nodes.running(tmp_path) as node:
        skill = tiny_model.card_for(tiny_model.tiny_base())
        await node.engine.load_lora(skill, "skill@1", lambda: skill)
        router = _router(answering.Candidate("skill@1", 0.9))
        answers = answering.Answering(node.engine, router, report=outcomes.append, agents=node.own)
        made = await _known(node)
        found = await answers.answer(answering.Question(QUERY, agent="ada"))
        expected = served.alone(made, [skill])
        assert found.memory == f"ada@{made.version}"
        assert [(one.card, one.weight) for one in found.shares] == [("skill@1", 1.0)]
        assert found.generation.answer == expected[: len(found.generation.answer)]
    # A skill answered: how sure the base is of it tells nothing.
    assert [one.signals for one in outcomes] == [None]


async def test_router_is_told_how_sure_the_model_is_when_memory_answers_alone(tmp_path):
    outcomes = []
    async with learning_nodes.running(tmp_path) as node:
        answers = answering.Answering(
            node.engine, _router(), report=outcomes.append, agents=node.own
        )
        await _known(node)
        found = await answers.answer(answering.Question(QUERY, agent="ada"))
    assert outcomes[0].signals.tokens >= found.generation.new_tokens > 0


async def test_question_of_an_agent_that_was_told_nothing_is_answered_all_the_same(tmp_path):
    async with learning_nodes.running(tmp_path) as node:
        answers = answering.Answering(node.engine, _no_route, agents=node.own)
        bare = await answers.answer(answering.Question(QUERY, "base"))
        # Not even what all share has come.
        found = await answers.answer(answering.Question(QUERY, "base", agent="ben"))
        assert (found.memory, found.generation.answer) == ("", bare.generation.answer)
        await _known(node)
        found = await answers.answer(answering.Question(QUERY, "base", agent="ben"))
        assert found.memory == f"shared@{node.line.shared.snapshot().version}"
        with pytest.raises(errors.InvalidInputError, match="1 to 64 letters"):
            await answers.answer(answering.Question(QUERY, "base", agent="a b"))
        without = answering.Answering(node.engine, _no_route)
        with pytest.raises(errors.NotFoundError, match=r"hierarchy\.enabled"):
            await without.answer(answering.Question(QUERY, "base", agent="ada"))
