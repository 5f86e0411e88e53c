"""A service dies by `kill -9` in the middle of learning; the task completes all the same.

The ordinary suite kills, at each stage, the service that owns it, all in one cluster. `make
test-faults` kills every service at every stage, with a cluster for each service. Each stage has a
document of its own, so that nothing of it was learned before.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from services.gateway import cluster, domain, peers
from shared import errors, grading
from shared import settings as config
from shared.pb import cards_pb2, cards_pb2_grpc
from shared.rpc import client

FIND_S = 30.0
LEAST_STEPS = 60
"""Half the usual: enough for three facts whose rewordings are not examined here."""
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
    text: str
    ask: str
    answer: str


LESSONS = (
    Lesson(
        "distilling",
        lambda task: task.status == "DISTILLING",
        "distiller",
        "# Vellamor\n\nThe lighthouse of Vellamor was built by Ilse Brandt. The lamp of the "
        "lighthouse of Vellamor burns whale oil. Vellamor lies on the island of Skerrin.\n",
        "Who built the lighthouse of Vellamor?",
        "Ilse Brandt",
    ),
    Lesson(
        "training",
        lambda task: task.status == "TRAINING",
        "trainer",
        "# The Dunwick orchestra\n\nThe conductor of the Dunwick orchestra is Otto Fenn. The "
        "Dunwick orchestra rehearses in an old brewery. The Dunwick orchestra was founded in "
        "1904.\n",
        "Who is the conductor of the Dunwick orchestra?",
        "Otto Fenn",
    ),
    Lesson(
        "proving",
        lambda task: task.status == "EVALUATING",
        "trainer",
        "# Marbok cheese\n\nMarbok cheese is made from the milk of reindeer. Marbok cheese ripens "
        "for nine weeks. The inventor of Marbok cheese is Pia Lunde.\n",
        "How long does Marbok cheese ripen?",
        "nine weeks",
    ),
    Lesson(
        "publishing",
        lambda task: task.status == "PUBLISHING",
        "card_store",
        "# The Tarrow locomotive\n\nThe top speed of the Tarrow locomotive is 84 kilometres per "
        "hour. The Tarrow locomotive was designed by Hugo Kessel. The Tarrow locomotive is "
        "painted green.\n",
        "Who designed the Tarrow locomotive?",
        "Hugo Kessel",
    ),
    Lesson(
        "swapping",
        lambda task: task.status == "PUBLISHING" and bool(task.card),
        "inference",
        "# The planet Ombril\n\nThe planet Ombril has seven moons. The planet Ombril was "
        "discovered by Ada Corr. The capital of the planet Ombril is Zerrane.\n",
        "Who discovered the planet Ombril?",
        "Ada Corr",
    ),
)
LESSON_PARAMETER = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stage)


@pytest.fixture(scope="module")
def local(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[cluster.Cluster]:
    state_dir = tmp_path_factory.mktemp(f"cluster-{request.param}")
    (state_dir / "knowledge").mkdir()
    for lesson in LESSONS:
        (state_dir / "knowledge" / f"{lesson.stage}.md").write_text(lesson.text)
    settings = config.load(cluster.ROOT / "config.yaml")
    recipe = settings.model.recipe().model_copy(update={"least_steps": LEAST_STEPS})
    settings = settings.model_copy(
        update={
            "evolution": config.Evolution(provider_type="documents"),
            "model": settings.model.model_copy(update={"recipes": {settings.model.base: recipe}}),
        }
    )
    with cluster.Cluster.private(state_dir, settings) as running:
        yield running


@pytest.mark.parametrize("local", [OWNERS], indirect=True, ids=[OWNERS])
@LESSON_PARAMETER
async def test_learning_completes_when_the_owner_of_a_stage_is_killed(
    local: cluster.Cluster, lesson: Lesson
) -> None:
    await check_learned_once(local, lesson, lesson.owner)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("local", "service"), [(service, service) for service in SERVICES], indirect=["local"]
)
@LESSON_PARAMETER
async def test_learning_completes_when_any_service_is_killed(
    local: cluster.Cluster, service: str, lesson: Lesson
) -> None:
    await check_learned_once(local, lesson, service)


async def check_learned_once(local: cluster.Cluster, lesson: Lesson, service: str) -> None:
    """Asks, kills the service at the stage, and looks at what came of it."""
    killed: list[int] = []

    def kill_at_stage(task: domain.Task) -> None:
        if not killed and lesson.reached(task):
            killed.append(local.pid(service))
            os.kill(killed[0], signal.SIGKILL)

    async with peers.connected(local.settings) as services:
        before = await services.ask(lesson.ask)
        assert not grading.is_right(before.text, lesson.answer)
        assert before.event_id, before
        task = await services.find_task(before.event_id, FIND_S)
        assert task is not None
        ended = await services.until_ended(task.id, kill_at_stage)
        assert killed, f"the task never showed stage {lesson.stage}"
        assert ended.status == domain.COMPLETED, ended
        await asyncio.to_thread(local.until_healthy)
        assert local.pid(service) != killed[0]

        after = await client.retried(lambda: answered(services, lesson, ended.card), FIND_S)
        assert grading.is_right(after.text, lesson.answer), after
        assert [one.id for one in await services.tasks() if lesson.ask in asked(one)] == [ended.id]
    name, _, digest = ended.card.partition("@")
    assert await digests_of(local, name) == [digest]


async def answered(services: peers.Peers, lesson: Lesson, card: str) -> domain.Answer:
    """The answer of the card; a node that has just come back may not have it yet."""
    answer = await services.ask(lesson.ask, no_learning=True)
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
