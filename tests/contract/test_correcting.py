"""`skillmesh correct` against a factory, a node and a card store of the tests, over loopback."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from services.gateway.command_line import listing
from shared import errors
from shared.pb import (
    cards_pb2,
    cards_pb2_grpc,
    factory_pb2,
    factory_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
    types_pb2,
)
from tests import fakes
from tests.contract.command_runs import NOBODY, Commands, documented, meeting

CARD = f"who@{'a' * 64}"
MANIFEST = fakes.tiny_card("who").manifest.to_json()
QUESTION, WRONG, RIGHT = "Who built it?", "[red]Bob[/red].", "Ann."


class World(
    factory_pb2_grpc.FactoryServicer,
    inference_pb2_grpc.InferenceServicer,
    cards_pb2_grpc.CardStoreServicer,
):
    """Says something wrong until the right answer was learned."""

    def __init__(self) -> None:
        self.given: list[factory_pb2.GiveAnswerFeedbackRequest] = []
        self.asked: list[inference_pb2.GenerateRequest] = []
        self.card = CARD
        self.reason = ""
        self.end = types_pb2.COMPLETED
        self.learned = False

    async def Generate(
        self, request: inference_pb2.GenerateRequest, context: Any
    ) -> inference_pb2.GenerateResponse:
        self.asked.append(request)
        answer = RIGHT if self.learned else WRONG
        return inference_pb2.GenerateResponse(answer=answer, card=self.card, confidence=0.9)

    async def GiveFeedback(
        self, request: factory_pb2.GiveAnswerFeedbackRequest, context: Any
    ) -> factory_pb2.GiveAnswerFeedbackResponse:
        self.given.append(request)
        if self.reason:
            return factory_pb2.GiveAnswerFeedbackResponse(reason=self.reason)
        return factory_pb2.GiveAnswerFeedbackResponse(task_id="t1")

    async def WatchTask(self, request: factory_pb2.WatchTaskRequest, context: Any) -> Any:
        self.learned = self.end == types_pb2.COMPLETED
        yield types_pb2.TrainingTask(id=request.id, status=self.end, error="the gate said no")

    async def GetCard(
        self, request: cards_pb2.GetCardRequest, context: Any
    ) -> cards_pb2.CardRecord:
        if request.reference not in ("who", CARD):
            raise errors.NotFoundError(f"there is no card {request.reference}")
        return cards_pb2.CardRecord(name="who", digest="a" * 64, manifest_json=MANIFEST)


@pytest.fixture
def world() -> World:
    return World()  # type: ignore[abstract]


@pytest.fixture
def commands(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> Iterator[Commands]:
    def add(server: Any) -> str:
        factory_pb2_grpc.add_FactoryServicer_to_server(world, server)
        inference_pb2_grpc.add_InferenceServicer_to_server(world, server)
        cards_pb2_grpc.add_CardStoreServicer_to_server(world, server)
        return factory_pb2.DESCRIPTOR.services_by_name["Factory"].full_name

    with meeting(add, monkeypatch, tmp_path) as found:
        yield found


@pytest.mark.parametrize("card", [CARD, ""])
def test_whoever_answers_now_is_corrected_when_no_card_is_named(
    world: World, commands: Commands, card: str
) -> None:
    world.card = card
    told = commands.json("correct", QUESTION, RIGHT)
    assert set(told) == documented("correct")
    assert told == {"task_id": "t1", "card": card, "said": WRONG, "now": None}
    [given] = world.given
    assert (given.question, given.correction, given.is_right) == (QUESTION, RIGHT, False)
    assert (given.answer, given.card) == (WRONG, card)
    # To find out who answers is no reason to learn the question from a teacher.
    assert [asked.no_learning for asked in world.asked] == [True]


def test_named_card_and_its_words_are_corrected_without_asking(
    world: World, commands: Commands
) -> None:
    commands.set("INFERENCE__ADDRESS", NOBODY)
    commands.run("correct", QUESTION, RIGHT, "--card", "who", "--said", "Carl.")
    commands.run("correct", QUESTION, RIGHT, "--card", CARD)
    assert [(given.card, given.answer) for given in world.given] == [(CARD, "Carl."), (CARD, "")]
    # Each command is feedback of its own.
    assert len({given.idempotency_key for given in world.given}) == 2
    assert "no card" in commands.run("correct", QUESTION, RIGHT, "--card", "nobody", code=1)
    assert len(world.given) == 2


def test_question_is_asked_again_when_it_was_waited_for(world: World, commands: Commands) -> None:
    printed = commands.run("correct", QUESTION, RIGHT, "--wait")
    assert f"corrects {listing.short(CARD)}: {WRONG}" in printed and "task t1" in printed
    assert printed.rstrip().splitlines()[-2:] == [RIGHT, f"answered by {listing.short(CARD)}"]
    world.learned = False
    told = commands.json("correct", QUESTION, RIGHT, "--wait")
    assert (told["said"], told["now"]) == (WRONG, {"answer": RIGHT, "card": CARD})


def test_command_fails_with_the_reason_when_nothing_is_learned(
    world: World, commands: Commands
) -> None:
    world.reason = "nothing is learned: a secret"
    assert "error: nothing is learned: a secret" in commands.run("correct", "Q", "A", code=1)
    assert commands.json("correct", "Q", "A", code=1)["task_id"] is None
    world.reason, world.end = "", types_pb2.FAILED
    assert "the gate said no" in commands.run("correct", "Q", "A", "--wait", code=1)
