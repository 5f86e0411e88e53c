"""The whole loop on PostgreSQL and S3 with two factories and two stores; one of each is killed.

The processes are the containers of docker-compose.yml with deploy/postgres-s3.env; see
`tests.deployment.mesh`. A balancer stands for the name of several.
"""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
import urllib.parse
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
import sqlalchemy as sa
import yaml

from services.card_store import bucket
from services.gateway import domain
from services.gateway.calls import peers
from shared import errors, grading
from shared import settings as config
from shared.rpc import client
from shared.security import certs
from tests import postgres, s3_server
from tests.contract import addresses
from tests.deployment import compose, dockerfile, mesh
from tests.e2e import counting_teacher
from tests.e2e.taught import lessons

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1200)]
LESSON = next(one for one in lessons.LESSONS if one.stage == "training")
COUNTS = {
    "card-store": 2,
    "card-store-data": 2,
    "router": 1,
    "distiller": 1,
    "trainer": 1,
    "inference": 1,
    "factory": 2,
    "gateway": 1,
}
PATIENCE_S = 240.0


@dataclasses.dataclass(frozen=True)
class Site:
    """Everything that runs."""

    mesh: mesh.Mesh
    settings: config.Settings
    """Of an operator's client."""
    database: str
    bucket: bucket.Bucket
    teacher: counting_teacher.CountingTeacher

    def query(self, text: str, **values: str) -> list[str]:
        engine = sa.create_engine(self.database, poolclass=sa.NullPool)
        with engine.connect() as connection:
            return [str(one) for one in connection.scalars(sa.text(text), values)]


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    programs = postgres.programs()
    if programs is None:
        pytest.skip("PostgreSQL's programs (initdb, postgres) are not on this machine")
    with postgres.running(programs, int(addresses.free_address().rpartition(":")[2])) as url:
        yield url


def secrets_in(folder: pathlib.Path, patch: pytest.MonkeyPatch) -> dict[str, pathlib.Path]:
    """What docs/deployment.md has people make, by the names of the compose file."""
    patch.setenv("SKILLMESH__CLUSTER__STATE_DIR", str(folder))
    patch.setattr("sys.argv", ["certs", "--token-files"])
    certs.main()
    made = compose.content({"SKILLMESH_CERTS": str(folder / "certs")})["secrets"]
    return {name: pathlib.Path(one["file"]) for name, one in made.items()}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(database: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with (
        pytest.MonkeyPatch.context() as patch,
        s3_server.running() as s3,
        counting_teacher.CountingTeacher([LESSON.facts]) as teacher,
    ):
        secrets = secrets_in(folder, patch)
        patch.undo()
        content = yaml.safe_load((dockerfile.ROOT / "config.yaml").read_text())
        content["evolution"] |= {"provider_type": "local", "endpoint": teacher.endpoint}
        content["distiller"]["judge"] = "none"
        content["model"]["recipes"]["embedded"]["max_steps"] = lessons.STEPS
        given = compose.variables_of(dockerfile.ROOT / "deploy" / "postgres-s3.env")
        url = s3.url("blobs")
        variables = given | {
            "SKILLMESH_FACTORY_DATABASE": _at(given["SKILLMESH_FACTORY_DATABASE"], database),
            "SKILLMESH_STORE_DATABASE": _at(given["SKILLMESH_STORE_DATABASE"], database),
            "SKILLMESH_STORE_BLOBS": _without_keys(url),
        }
        async with mesh.running(
            folder / "mesh", secrets, yaml.safe_dump(content), variables, COUNTS
        ) as running:
            yield Site(running, _client(running, secrets), database, bucket.Bucket(url), teacher)


def _at(given: str, database: str) -> str:
    """The URL of the file, at the server of the test."""
    server = sa.make_url(database)
    url = sa.make_url(given).set(
        host=server.host, port=server.port, username=server.username, database=server.database
    )
    return url.render_as_string(hide_password=False)


def _without_keys(url: str) -> str:
    """Keys come by variables of their own, as in the file."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _client(running: mesh.Mesh, secrets: dict[str, pathlib.Path]) -> config.Settings:
    tls = config.Tls(
        certificate=secrets["certificate"],
        key=secrets["key"],
        authority=secrets["authority"],
        server_name="skillmesh",
    )
    where = running.where
    return config.Settings(
        security=config.Security(tls=tls, token_file=secrets["operator-token"]),
        inference=config.Inference(address=where["inference:7407"]),
        factory=config.Factory(address=where["factory:7402"]),
        card_store=config.CardStore(address=where["card-store:7405"]),
        router=config.Router(address=where["router:7401"]),
    )


async def test_task_completes_once_when_a_factory_and_a_store_are_killed_in_it(site: Site) -> None:
    killed = asyncio.Event()

    async def kill(task_id: str) -> None:
        owner = site.query(
            "SELECT executor_id FROM dbos.workflow_status WHERE workflow_uuid = :id", id=task_id
        )[0]
        factories = site.mesh.replicas["factory"]
        at_work = next(one for one in factories if owner in one.log.read_text())
        dying = [
            at_work,
            *(site.mesh.replicas[name][0] for name in ("card-store", "card-store-data")),
        ]
        await asyncio.gather(*(one.kill() for one in dying))
        killed.set()

    async with peers.connected(site.settings) as services:
        before = await services.inference.ask(LESSON.ask)
        assert not grading.is_right(before.text, LESSON.answer) and before.event_id, before
        task = await services.factory.find_task(before.event_id, PATIENCE_S)
        assert task is not None
        while task.status not in ("TRAINING", "EVALUATING"):
            assert task.status not in domain.ENDED, task
            await asyncio.sleep(0.1)
            task = await services.factory.task(task.id)
        await kill(task.id)
        ended = await client.retried(lambda: services.factory.until_ended(task.id), 2 * PATIENCE_S)
        assert ended.status == domain.COMPLETED, ended

        async def answered() -> domain.Answer:
            answer = await services.inference.ask(LESSON.ask, no_learning=True)
            if answer.card != ended.card:
                raise errors.UnavailableError(f"{ended.card} does not answer yet: {answer}")
            return answer

        after = await client.retried(answered, PATIENCE_S)
        assert grading.is_right(after.text, LESSON.answer), after
        assert [one.id for one in await services.factory.tasks()] == [task.id]
        cards = await client.retried(services.store.cards, PATIENCE_S)
    assert [f"{card.name}@{card.digest}" for card in cards] == [ended.card]

    # Nothing doubled: one end, one publication, one call of the teacher,
    assert site.teacher.calls[LESSON.ask] == 1
    ends = site.query("SELECT status FROM task_updates WHERE task_id = :id", id=task.id)
    assert ends.count("COMPLETED") == 1 and "FAILED" not in ends
    assert site.query("SELECT kind FROM revisions").count("CARD_PUBLISHED") == 1
    # nothing lost, and nothing left over: what is on record is what is in the bucket.
    on_record = site.query("SELECT digest FROM cards UNION SELECT digest FROM datasets")
    assert len(on_record) == 2
    assert {file.digest for file in site.bucket.files()} == set(on_record)
    assert list(site.bucket.files("staging/")) == []


async def test_killed_ones_take_part_again_when_they_are_back(site: Site) -> None:
    dead = [one for one in site.mesh.all() if one.process is None]
    assert {one.container.name for one in dead} == {"factory", "card-store", "card-store-data"}
    await asyncio.gather(*(one.start() for one in dead))
    await asyncio.gather(*(one.until_healthy() for one in dead))
    # Each store knows of the node, whichever it reports to.
    tls = site.settings.security
    for one in site.mesh.replicas["card-store"]:
        address = one.environment["SKILLMESH__CARD_STORE__ADDRESS"]
        store = config.CardStore(address=address)
        async with peers.connected(config.Settings(security=tls, card_store=store)) as services:

            async def listed(services: peers.Peers = services) -> str:
                nodes = await services.store.residency()
                if not nodes:
                    raise errors.UnavailableError("no node has reported")
                return nodes[0].address

            assert await client.retried(listed, PATIENCE_S) == site.mesh.where["inference:7407"]
