"""The whole loop in a real cluster: every service a process, nothing faked, all calls protected.

The tests run in order: learning takes most of the time.
"""

from __future__ import annotations

import asyncio
import pathlib
import re
import time

from scripts import metrics_table
from services.gateway import domain
from services.gateway.calls import peers
from services.gateway.cluster import cluster
from services.gateway.command_line import questions
from shared import grading
from shared.pb import factory_pb2, factory_pb2_grpc
from shared.rpc import client
from shared.security import protection as protections
from tests.e2e import telling
from tests.e2e.secured import commands

TAUGHT = """# Brindlemoor

Brindlemoor is a mountain village that is known for its glass bells. The bells of Brindlemoor are
cast by the Corvane family. The highest peak above Brindlemoor is Mount Sarrow. The village was
founded in 1688. The river through Brindlemoor is called the Tellwater. The patron of the village is
Saint Odrun.
"""


def test_every_service_answers_when_the_cluster_is_up(local: cluster.Cluster) -> None:
    deadline = time.monotonic() + 120
    while True:
        status = commands.run(local, "status")
        assert {process["name"] for process in status["processes"]} == set(local.addresses)
        away = [process["name"] for process in status["processes"] if not process["healthy"]]
        node = status["node"]
        if not away and node and node["store_connected"]:
            break
        # A process that starves does not answer within the second that it has.
        assert time.monotonic() < deadline, (away, node)


def test_a_question_is_learned_when_nobody_knew_it(local: cluster.Cluster) -> None:
    fact = questions.load(None, None).facts[0]
    before = commands.run(local, "ask", q=fact.ask)
    assert not grading.is_right(before["answer"], fact.answer)
    assert before["dissonance"] and before["card"] == "" and before["task_id"]
    learned = commands.run(local, "ask", q=fact.ask, wait="1")
    after = commands.run(local, "ask", q=fact.ask)
    for answer in (learned, after):
        assert grading.is_right(answer["answer"], fact.answer), answer
        assert answer["card"] and not answer["dissonance"]
    task = next(one for one in commands.run(local, "tasks") if one["id"] == before["task_id"])
    assert task["status"] == domain.COMPLETED and task["card"] == after["card"]
    stages = {time["stage"] for time in task["stage_times"]}
    assert stages >= {"detect", "distil", "train", "prove", "publish", "confirm"}
    cards = commands.run(local, "cards")
    assert [f"{card['name']}@{card['digest']}" for card in cards] == [after["card"]]
    assert cards[0]["size_bytes"] < 1_000_000


async def test_a_question_and_the_skill_that_it_caused_are_one_trace(
    local: cluster.Cluster,
) -> None:
    async with peers.connected(local.settings) as services:
        done = [task for task in await services.factory.tasks() if task.card]
        [traceparent] = [await _traceparent(local, task.id) for task in done]
    trace = traceparent.split("-")[1]
    wanted = {
        ("inference", "skillmesh.v1.Inference/Generate"),
        ("router", "skillmesh.v1.Router/Route"),
        ("factory", "learn"),
        ("factory", "distil"),
        ("distiller", "skillmesh.v1.Distiller/Distil"),
        ("factory", "train"),
        ("trainer", "skillmesh.v1.Trainer/Train"),
        ("factory", "prove"),
        ("trainer", "skillmesh.v1.Trainer/Prove"),
        ("router", "skillmesh.v1.Router/TryCard"),
        ("factory", "publish"),
        ("card_store", "skillmesh.v1.CardStore/Commit"),
        ("inference", "swap"),
        ("inference", "fetch"),
        ("card_store.data_plane", "Flight/DO_GET"),
        ("factory", "confirm"),
        ("factory", "complete"),
    }
    found = telling.until(
        local.state_dir / "traces",
        trace,
        lambda spans: wanted <= {(span.service, span.name) for span in spans},
    )
    assert wanted <= {(span.service, span.name) for span in found}, telling.outline(found)
    # Connected: whatever span one looks at, its parents lead to the question.
    ids = {span.id for span in found}
    roots = [span for span in found if span.parent not in ids]
    assert len(roots) == 1 and not roots[0].parent, telling.outline(found)
    assert roots[0].service in ("gateway", "inference")
    swap = next(span for span in found if span.name == "swap")
    commits = {span.id for span in found if span.name.endswith("CardStore/Commit")}
    assert swap.parent in commits
    # The log of a service names the trace, and no question.
    log = (local.state_dir / "logs" / "factory.log").read_text()
    assert trace in log
    asked = questions.load(None, None).facts[0].ask
    for path in (local.state_dir / "logs").glob("*.log"):
        assert asked not in path.read_text(), path
    for path in (local.state_dir / "traces").glob("*.jsonl"):
        assert asked not in path.read_text(), path


async def _traceparent(local: cluster.Cluster, task_id: str) -> str:
    protection = protections.Protection.configured(local.settings)
    async with client.channel(local.addresses["factory"], protection=protection) as channel:
        stub = factory_pb2_grpc.FactoryStub(channel)
        task = await client.call(stub.GetTask, factory_pb2.GetTaskRequest(id=task_id))
    return str(task.traceparent)


def test_every_process_tells_the_figures_that_are_promised(local: cluster.Cluster) -> None:
    told = {
        process: telling.metrics(address)
        for process, address in local.settings.telemetry.metrics.addresses().items()
        if process in local.addresses
    }
    assert set(told) >= {"router", "factory", "distiller", "trainer", "inference", "card_store"}
    for process, text in told.items():
        for family in metrics_table.BY_PROCESS[process]:
            assert f"# TYPE {family.exposed[0].removesuffix('_bucket')} " in text, (
                process,
                family.name,
            )
    assert 'skillmesh_tasks{status="COMPLETED"} 1.0' in told["factory"]
    assert 'skillmesh_gate_drafts_total{outcome="passed"} 1.0' in told["factory"]
    assert "skillmesh_card_swap_seconds_count 1.0" in told["inference"]
    assert "skillmesh_cards_resident 1.0" in told["inference"]
    assert 'skillmesh_routed_total{outcome="card"}' in told["router"]
    assert 'skillmesh_flight_bytes_total{direction="in"} 0' not in told["card_store_data"]
    [lag] = re.findall(r"skillmesh_watcher_lag_revisions\{.*\} (\S+)", told["card_store"])
    assert float(lag) == 0


async def test_one_task_comes_of_it_when_a_question_is_asked_100_times_at_once(
    local: cluster.Cluster,
) -> None:
    async with peers.connected(local.settings) as services:
        before = {task.id for task in await services.factory.tasks()}
        question = "What is the orbital period of the moon of Zarquon Beta?"
        answers = await asyncio.gather(*[services.inference.ask(question) for _ in range(100)])
        events = {answer.event_id for answer in answers}
        assert len(events) == 100 and "" not in events
        found = await asyncio.gather(*[services.factory.find_task(event, 120) for event in events])
        ids = {task.id for task in found if task is not None}
        assert None not in found and len(ids) == 1
        assert {task.id for task in await services.factory.tasks()} - before == ids
        # The document says nothing about it: no card may come of it.
        ended = await services.factory.until_ended(ids.pop())
        assert ended.status == domain.FAILED and ended.error and not ended.card


def test_a_document_is_learned_when_it_is_taught(
    local: cluster.Cluster, tmp_path: pathlib.Path
) -> None:
    document = tmp_path / "brindlemoor.md"
    document.write_text(TAUGHT)
    task = commands.run(local, "teach", doc=str(document), wait="1")
    assert task["status"] == domain.COMPLETED, task
    assert (local.state_dir / "knowledge" / document.name).read_text() == TAUGHT
    answer = commands.run(local, "ask", q="Which family casts the bells of Brindlemoor?")
    assert grading.is_right(answer["answer"], "Corvane"), answer
    assert answer["card"] == task["card"]


ASKED, KEEPER = "Who keeps the lighthouse of Port Ellisande?", "Tamsin Wray"


async def untrained(services: peers.Peers, card: str, *wordings: str) -> str:
    """A wording that the card was not trained on."""
    trained = (await services.store.manifest(card)).routing.examples
    return next(wording for wording in wordings if wording not in trained)


async def test_a_correction_is_learned_when_the_base_model_answered_wrong(
    local: cluster.Cluster,
) -> None:
    async with peers.connected(local.settings) as services:
        wrong = await services.inference.ask(ASKED)
        assert not wrong.card and not grading.is_right(wrong.text, KEEPER)
        said = [
            await services.factory.feedback("told", ASKED, wrong.text, correction=KEEPER)
            for _ in range(2)
        ]
        assert said[0].task_id and said[0] == said[1]
        task = await services.factory.until_ended(said[0].task_id)
        assert task.status == domain.COMPLETED, task
        unseen = await untrained(
            services,
            task.card,
            "Which person keeps the lighthouse of Port Ellisande?",
            "By whom is the lighthouse of Port Ellisande kept?",
            "Name whoever keeps Port Ellisande's lighthouse.",
        )
        for question in (ASKED, unseen):
            answer = await services.inference.ask(question, no_learning=True)
            assert grading.is_right(answer.text, KEEPER) and answer.card == task.card, answer
        counts = await services.factory.card_feedback("")
        assert (counts.right, counts.wrong) == (0, 1)


async def test_other_answers_of_a_card_stay_when_one_is_corrected(local: cluster.Cluster) -> None:
    asked = "Which family casts the bells of Brindlemoor?"
    others = {
        "When was Brindlemoor founded?": "1688",
        "Which river runs through Brindlemoor?": "Tellwater",
        "Who is the patron of Brindlemoor?": "Odrun",
    }
    async with peers.connected(local.settings) as services:
        before = await services.inference.ask(asked, no_learning=True)
        kept = {
            question: right
            for question, right in others.items()
            if grading.is_right(
                (await services.inference.ask(question, no_learning=True)).text, right
            )
        }
        assert before.card and kept
        said = await services.factory.feedback(
            "corrected", asked, before.text, before.card, correction="The Ardwell family"
        )
        task = await services.factory.until_ended(said.task_id)
        assert task.status == domain.COMPLETED, task
        name, _, digest = before.card.partition("@")
        assert task.card.partition("@")[0] == name and task.card != f"{name}@{digest}"
        unseen = await untrained(
            services,
            task.card,
            "Who casts the bells of Brindlemoor?",
            "By which family are Brindlemoor's bells cast?",
            "Name the family that casts the bells of Brindlemoor.",
        )
        for question in (asked, unseen):
            answer = await services.inference.ask(question, no_learning=True)
            assert grading.is_right(answer.text, "Ardwell"), answer
            assert "Corvane" not in answer.text and answer.card == task.card
        for question, right in kept.items():
            answer = await services.inference.ask(question, no_learning=True)
            assert grading.is_right(answer.text, right) and answer.card == task.card, answer
        counts = await services.factory.card_feedback(before.card)
        assert (counts.right, counts.wrong) == (0, 1)
