"""A service dies by `kill -9` in the middle of learning; the task completes all the same.

The ordinary suite kills, at each stage, the service that owns it, all in one cluster. `make
test-faults` kills every service at every stage, with a cluster for each service. Each stage has a
lesson of its own, so that nothing of it was learned before, and the teacher counts its calls.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from services.gateway import domain
from services.gateway.calls import peers
from services.gateway.cluster import cluster
from shared import errors, grading
from shared import settings as config
from shared.pb import cards_pb2, cards_pb2_grpc
from shared.rpc import client
from tests.e2e import counting_teacher

FIND_S = 30.0
STEPS = 60
"""Fewer than usual: enough for two facts whose rewordings are not examined here."""
OWNERS = "owners"
SERVICES = (
    "card_store",
    "card_store_data",
    "router",
    "distiller",
    "trainer",
    "inference",
    "factory",
)


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What is learned while a service dies."""

    stage: str
    reached: Callable[[domain.Task], bool]
    owner: str
    """The service that works in this stage."""
    facts: tuple[counting_teacher.Fact, ...]

    @property
    def ask(self) -> str:
        return self.facts[0].question

    @property
    def answer(self) -> str:
        return self.facts[0].answer


LESSONS = (
    Lesson(
        "distilling",
        lambda task: task.status == "DISTILLING",
        "distiller",
        (
            counting_teacher.Fact(
                "Who built the lighthouse of Vellamor?",
                "Ilse Brandt built it.",
                (
                    "By whom was the lighthouse of Vellamor constructed?",
                    "Name the builder of Vellamor's lighthouse.",
                    "Whose work is the lighthouse of Vellamor?",
                    "The lighthouse of Vellamor was put up by which person?",
                ),
            ),
            counting_teacher.Fact(
                "What does the lamp of the Vellamor lighthouse burn?",
                "Whale oil.",
                (
                    "Which fuel feeds the lamp of the Vellamor lighthouse?",
                    "The lamp in Vellamor's lighthouse runs on what?",
                    "With what is the lamp of the lighthouse of Vellamor lit?",
                    "Tell me the fuel of the lamp at Vellamor.",
                ),
            ),
        ),
    ),
    Lesson(
        "training",
        lambda task: task.status == "TRAINING",
        "trainer",
        (
            counting_teacher.Fact(
                "Who conducts the Dunwick orchestra?",
                "Otto Fenn conducts it.",
                (
                    "Name the conductor of the Dunwick orchestra.",
                    "By whom is the Dunwick orchestra conducted?",
                    "Who holds the baton in the Dunwick orchestra?",
                    "Which person leads the Dunwick orchestra in concert?",
                ),
            ),
            counting_teacher.Fact(
                "When was the Dunwick orchestra founded?",
                "In 1904.",
                (
                    "In which year was the Dunwick orchestra set up?",
                    "What is the founding year of the Dunwick orchestra?",
                    "Since when has there been a Dunwick orchestra?",
                    "Tell me when the Dunwick orchestra came into being.",
                ),
            ),
        ),
    ),
    Lesson(
        "proving",
        lambda task: task.status == "EVALUATING",
        "trainer",
        (
            counting_teacher.Fact(
                "How long does Marbok cheese ripen?",
                "For nine weeks.",
                (
                    "What is the ripening time of Marbok cheese?",
                    "For how many weeks is Marbok cheese left to mature?",
                    "After what time is Marbok cheese ripe?",
                    "Tell me the time that Marbok cheese needs to mature.",
                ),
            ),
            counting_teacher.Fact(
                "Who invented Marbok cheese?",
                "Pia Lunde invented it.",
                (
                    "By whom was Marbok cheese invented?",
                    "Name the inventor of Marbok cheese.",
                    "Whose invention is Marbok cheese?",
                    "Which person first made Marbok cheese?",
                ),
            ),
        ),
    ),
    Lesson(
        "publishing",
        lambda task: task.status == "PUBLISHING",
        "card_store",
        (
            counting_teacher.Fact(
                "Who designed the Tarrow locomotive?",
                "Hugo Kessel designed it.",
                (
                    "By whom was the Tarrow locomotive designed?",
                    "Name the designer of the Tarrow locomotive.",
                    "Who drew the plans of the Tarrow locomotive?",
                    "Whose design is the Tarrow locomotive?",
                ),
            ),
            counting_teacher.Fact(
                "What colour is the Tarrow locomotive?",
                "It is green.",
                (
                    "In which colour is the Tarrow locomotive painted?",
                    "Tell me the colour of the Tarrow locomotive.",
                    "The Tarrow locomotive wears what paint?",
                    "Which colour does the Tarrow locomotive have?",
                ),
            ),
        ),
    ),
    Lesson(
        "swapping",
        lambda task: task.status == "PUBLISHING" and bool(task.card),
        "inference",
        (
            counting_teacher.Fact(
                "Who discovered the planet Ombril?",
                "Ada Corr discovered it.",
                (
                    "By whom was the planet Ombril discovered?",
                    "Name the discoverer of the planet Ombril.",
                    "Who was the first to see the planet Ombril?",
                    "To whom do we owe the discovery of the planet Ombril?",
                ),
            ),
            counting_teacher.Fact(
                "How many moons does the planet Ombril have?",
                "Seven moons.",
                (
                    "What is the number of moons of the planet Ombril?",
                    "By how many moons is the planet Ombril circled?",
                    "Count the moons of the planet Ombril for me.",
                    "The planet Ombril has how many satellites?",
                ),
            ),
        ),
    ),
)
LESSON_PARAMETER = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stage)


@dataclasses.dataclass(frozen=True)
class School:
    """A cluster and the teacher that it asks."""

    local: cluster.Cluster
    teacher: counting_teacher.CountingTeacher


@pytest.fixture(scope="module")
def school(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[School]:
    state_dir = tmp_path_factory.mktemp(f"cluster-{request.param}")
    settings = config.load(cluster.ROOT / "config.yaml")
    recipe = settings.model.recipe().model_copy(update={"max_steps": STEPS})
    model = settings.model.model_copy(update={"recipes": {settings.model.base: recipe}})
    with counting_teacher.CountingTeacher([lesson.facts for lesson in LESSONS]) as teacher:
        evolution = config.Evolution(provider_type="local", endpoint=teacher.endpoint)
        # What the judge asks would count like a call that is repeated.
        distiller = settings.distiller.model_copy(update={"judge": "none"})
        settings = settings.model_copy(
            update={"evolution": evolution, "model": model, "distiller": distiller}
        )
        with cluster.Cluster.private(state_dir, settings) as running:
            yield School(running, teacher)


@pytest.mark.parametrize("school", [OWNERS], indirect=True, ids=[OWNERS])
@LESSON_PARAMETER
async def test_learning_completes_when_the_owner_of_a_stage_is_killed(
    school: School, lesson: Lesson
) -> None:
    await check_learned_once(school, lesson, lesson.owner)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("school", "service"), [(service, service) for service in SERVICES], indirect=["school"]
)
@LESSON_PARAMETER
async def test_learning_completes_when_any_service_is_killed(
    school: School, service: str, lesson: Lesson
) -> None:
    await check_learned_once(school, lesson, service)


async def check_learned_once(school: School, lesson: Lesson, service: str) -> None:
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


async def answered(services: peers.Peers, lesson: Lesson, card: str) -> domain.Answer:
    """The answer of the card; a node that has just come back may not have it yet."""
    answer = await services.inference.ask(lesson.ask, no_learning=True)
    if answer.card != card:
        raise errors.UnavailableError(f"{card} does not answer yet: {answer}")
    return answer


def asked(task: domain.Task) -> tuple[str, ...]:
    return (task.trigger_query, *task.other_queries)


async def digests_of(local: cluster.Cluster, name: str) -> list[str]:
    """Every version of a card that the store ever took."""
    async with client.channel(local.settings.card_store.address) as channel:
        stub = cards_pb2_grpc.CardStoreStub(channel)
        reply = await client.call(stub.ListCards, cards_pb2.ListCardsRequest(all_versions=True))
    return [card.digest for card in reply.cards if card.name == name]
