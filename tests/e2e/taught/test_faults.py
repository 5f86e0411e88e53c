"""A service dies by `kill -9` in the middle of learning; the task completes all the same.

The ordinary suite kills the service that owns a stage, at most stages, all in one cluster. `make
test-faults` kills every service at every stage, with a cluster for each service. Each stage has a
lesson of its own, so that nothing of it was learned before, and the teacher counts its calls.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence

import pytest

from services.gateway import domain
from services.gateway.calls import peers
from services.gateway.cluster import cluster
from shared import errors, grading
from shared.pb import cards_pb2, cards_pb2_grpc
from shared.rpc import client
from shared.security import protection as protections
from tests.e2e.taught import lessons, schools

FIND_S = 120.0
SERVICES = (
    "card_store",
    "card_store_data",
    "router",
    "distiller",
    "trainer",
    "inference",
    "factory",
)
FOLLOWED_ELSEWHERE = ("distilling", "proving")
"""Stages whose owner quicker tests kill, too: `test_teacher_kills`, `test_several_trainers`."""


def of_lessons(chosen: Sequence[lessons.Lesson]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("lesson", chosen, ids=lambda lesson: lesson.stage)


@pytest.mark.parametrize("school", [schools.TOGETHER], indirect=True, ids=[schools.TOGETHER])
@of_lessons([one for one in lessons.LESSONS if one.stage not in FOLLOWED_ELSEWHERE])
async def test_learning_completes_when_the_owner_of_a_stage_is_killed(
    school: schools.School, lesson: lessons.Lesson
) -> None:
    await check_learned_once(school, lesson, lesson.owner)


@pytest.mark.faults
@of_lessons(lessons.LESSONS)
@pytest.mark.parametrize(
    ("school", "service"), [(service, service) for service in SERVICES], indirect=["school"]
)
async def test_learning_completes_when_any_service_is_killed(
    school: schools.School, service: str, lesson: lessons.Lesson
) -> None:
    await check_learned_once(school, lesson, service)


async def check_learned_once(school: schools.School, lesson: lessons.Lesson, service: str) -> None:
    """Asks, kills the service at the stage, and looks at what came of it."""
    local, teacher = school.local, school.teacher
    killed: list[int] = []
    in_the_call = lesson.stage == "distilling"
    if in_the_call:
        teacher.hold(lesson.ask)

    def kill() -> None:
        killed.append(local.pid(service))
        os.kill(killed[0], signal.SIGKILL)
        teacher.release(lesson.ask)

    def kill_at_stage(task: domain.Task) -> None:
        if not killed and not in_the_call and lesson.reached(task):
            kill()

    async with peers.connected(local.settings) as services:
        before = await services.inference.ask(lesson.ask)
        assert not grading.is_right(before.text, lesson.answer)
        assert before.event_id, before
        task = await services.factory.find_task(before.event_id, FIND_S)
        assert task is not None
        if in_the_call:
            assert await asyncio.to_thread(teacher.until_asked, lesson.ask, FIND_S)
            kill()
        ended = await services.factory.until_ended(task.id, kill_at_stage)
        assert killed, f"the task never showed stage {lesson.stage}"
        assert ended.status == domain.COMPLETED, ended
        await asyncio.to_thread(local.until_healthy)
        assert local.pid(service) != killed[0]

        after = await client.retried(lambda: answered(services, lesson, ended.card), FIND_S)
        assert grading.is_right(after.text, lesson.answer), after
        assert [one.id for one in await services.factory.tasks() if lesson.ask in asked(one)] == [
            ended.id
        ]
    # A teacher costs money: it is asked again only by a distiller that died before it had heard.
    assert teacher.calls[lesson.ask] == (2 if in_the_call and service == "distiller" else 1)
    name, _, digest = ended.card.partition("@")
    assert await digests_of(local, name) == [digest]


async def answered(services: peers.Peers, lesson: lessons.Lesson, card: str) -> domain.Answer:
    """The answer of the card; a node that has just come back may not have it yet."""
    answer = await services.inference.ask(lesson.ask, no_learning=True)
    if answer.card != card:
        raise errors.UnavailableError(f"{card} does not answer yet: {answer}")
    return answer


def asked(task: domain.Task) -> tuple[str, ...]:
    return (task.trigger_query, *task.other_queries)


async def digests_of(local: cluster.Cluster, name: str) -> list[str]:
    """Every version of a card that the store ever took."""
    settings = local.settings
    protection = protections.Protection.configured(settings)
    async with client.channel(settings.card_store.address, protection=protection) as channel:
        stub = cards_pb2_grpc.CardStoreStub(channel)
        reply = await client.call(stub.ListCards, cards_pb2.ListCardsRequest(all_versions=True))
    return [card.digest for card in reply.cards if card.name == name]
