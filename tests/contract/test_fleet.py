"""The gateway's fleet on real gRPC servers: killed, draining, slow, without the card."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence

import grpc
import pytest

from services.gateway import domain
from services.gateway.nodes import fleet as fleets
from services.gateway.nodes import grpc_node
from shared import errors
from shared import settings as config
from shared.pb import cards_pb2, cards_pb2_grpc
from shared.rpc import access, client
from shared.rpc import server as rpc_server
from shared.security import callers
from shared.security import protection as protections
from tests.contract import addresses, inference_nodes, scripted_nodes, serving
from tests.contract.scripted_nodes import SKILL, WORDS, ScriptedNode

TEST_S = 120.0
QUESTION = domain.Conversation((domain.Message("user", "Who built it?"),))
TO_SKILL = domain.Conversation(QUESTION.messages, model=SKILL)


@contextlib.asynccontextmanager
async def _fleet(
    *nodes: str, every_s: float = 0.05, ready: bool = True, **gateway: object
) -> AsyncIterator[fleets.Fleet]:
    """A fleet of these nodes; `ready`: all of them answered a look before it is used."""
    settings = config.Settings(
        gateway=config.Gateway.model_validate({"nodes": nodes, "nodes_every_s": every_s} | gateway)
    )

    async def listed() -> Sequence[str]:
        return ()

    fleet = fleets.Fleet(settings, grpc_node.GrpcNode, listed)
    async with asyncio.timeout(TEST_S):
        await fleet.start()
        try:
            if ready:
                await _until(lambda: all(one.status == "ready" for one in fleet.nodes()))
            yield fleet
        finally:
            await fleet.stop()


def _status(fleet: fleets.Fleet, address: str) -> str:
    return next(one.status for one in fleet.nodes() if one.address == address)


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.01)


async def _process(
    stack: contextlib.AsyncExitStack, pieces: int
) -> tuple[str, asyncio.subprocess.Process]:
    """A node in a process of its own, which hangs after so many pieces."""
    address = addresses.free_address()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.contract.scripted_nodes", address, str(pieces)
    )

    async def end() -> None:
        if process.returncode is None:
            process.kill()
        await process.wait()

    stack.push_async_callback(end)
    async with client.channel(address) as channel:
        await serving.until_served(channel, process, TEST_S)
    return address, process


async def test_other_node_answers_when_one_is_killed_before_its_first_piece() -> None:
    other = ScriptedNode("other")
    other.running = 99
    async with contextlib.AsyncExitStack() as stack:
        address, process = await _process(stack, 0)
        second = await stack.enter_async_context(scripted_nodes.serving(other))
        fleet = await stack.enter_async_context(_fleet(address, second))
        asked = asyncio.create_task(fleet.answer(QUESTION))
        await _until(lambda: any(one.in_flight for one in fleet.nodes()))
        # On its way; where the kill comes first it is only refused sooner.
        process.kill()
        found = (await asked).answer
        assert (found.text, found.node) == ("".join(WORDS), second)
        await _until(lambda: _status(fleet, address) == "gone")
        assert [(await fleet.answer(QUESTION)).answer.node for _ in range(5)] == [second] * 5


async def test_error_is_retryable_when_the_node_is_killed_after_the_first_piece() -> None:
    async with contextlib.AsyncExitStack() as stack:
        address, process = await _process(stack, 1)
        other = ScriptedNode("other")
        other.running = 99
        second = await stack.enter_async_context(scripted_nodes.serving(other))
        fleet = await stack.enter_async_context(_fleet(address, second))
        pieces = fleet.stream(QUESTION)
        assert (await anext(pieces)).text == WORDS[0]
        process.kill()
        with pytest.raises(errors.SkillmeshError) as caught:
            await anext(pieces)
        assert caught.value.retryable
        assert not other.asked


async def test_answer_ends_and_new_ones_go_elsewhere_when_a_node_drains() -> None:
    async with contextlib.AsyncExitStack() as stack:
        address, process = await _process(stack, 1)
        other = ScriptedNode("other")
        other.running = 99
        second = await stack.enter_async_context(scripted_nodes.serving(other))
        fleet = await stack.enter_async_context(_fleet(address, second))
        pieces = fleet.stream(QUESTION)
        assert (await anext(pieces)).text == WORDS[0]
        process.send_signal(signal.SIGTERM)
        rest = [piece async for piece in pieces]
        assert rest[-1].final is not None and rest[-1].final.node == address
        assert await process.wait() == 0
        answers = [(await fleet.answer(QUESTION)).answer.node for _ in range(5)]
        assert answers == [second] * 5


async def test_other_node_answers_when_a_card_is_not_there_after_all() -> None:
    first, second = ScriptedNode("first", [SKILL]), ScriptedNode("second", [SKILL])
    first.lacks_cards, second.running = True, 99
    async with (
        scripted_nodes.serving(first) as one,
        scripted_nodes.serving(second) as two,
        _fleet(one, two) as fleet,
    ):
        found = (await fleet.answer(TO_SKILL)).answer
        assert (found.card, found.node) == (SKILL, two)
        assert len(first.asked) == 1
        with pytest.raises(errors.NotFoundError):
            await fleet.answer(domain.Conversation(QUESTION.messages, model="nothing"))
        assert await fleet.pin(SKILL) == (one, two)
        with pytest.raises(errors.NotFoundError):
            await fleet.pin("nothing")


async def test_others_are_looked_at_when_one_node_is_slow() -> None:
    slow, quick = ScriptedNode("slow"), ScriptedNode("quick")
    slow.status_waits = asyncio.Event()
    async with (
        scripted_nodes.serving(slow) as one,
        scripted_nodes.serving(quick) as two,
        _fleet(one, two, ready=False) as fleet,
    ):
        for _ in range(3):
            quick.looked.clear()
            await quick.looked.wait()
        assert not slow.looked.is_set()
        assert (await fleet.answer(QUESTION)).answer.node == two
        slow.status_waits.set()
        await _until(lambda: _status(fleet, one) == "ready")


async def test_call_is_cancelled_when_the_stream_is_closed() -> None:
    node = ScriptedNode("node")
    node.hangs_after = 1
    async with scripted_nodes.serving(node) as address, _fleet(address) as fleet:
        pieces = fleet.stream(QUESTION)
        assert (await anext(pieces)).text == WORDS[0]
        await pieces.aclose()
        await node.cancelled.wait()
        assert dict(fleet.nodes()[0].requests) == {"cancelled": 1}


async def test_deadline_goes_to_the_node_and_is_not_tried_again_when_it_is_over() -> None:
    first, second = ScriptedNode("first"), ScriptedNode("second")
    first.hangs_after = second.hangs_after = 0
    async with (
        scripted_nodes.serving(first) as one,
        scripted_nodes.serving(second) as two,
        _fleet(one, two) as fleet,
    ):
        with pytest.raises(errors.DeadlineError):
            await fleet.answer(QUESTION, 5.0)
        (left_s,) = first.time_left + second.time_left
        # gRPC rounds what it sends; without the caller's it would be that of config.yaml.
        assert left_s is not None and left_s < config.Gateway().deadline_s / 2


async def test_all_of_a_request_and_its_pieces_comes_through() -> None:
    node = ScriptedNode("node")
    asked = domain.Conversation(
        (domain.Message("system", "Be brief."), domain.Message("user", "Who?")),
        sampling=domain.Sampling(
            max_new_tokens=9, temperature=0.5, top_p=0.9, top_k=3, seed=4, stop=("x",),
            top_logprobs=1,
        ),
        json_schema="{}",
        no_learning=True,
        max_cards=2,
    )  # fmt: skip
    code = domain.Continuation("def f():\n    ", "\n", "lib/f.py", "base")
    async with scripted_nodes.serving(node) as address, _fleet(address) as fleet:
        pieces = [piece async for piece in fleet.stream(asked)]
        assert tuple(piece.text for piece in pieces) == (*WORDS, "")
        likely = domain.Likely("The ", b"The ", -0.5)
        assert pieces[0].logprobs == (domain.TokenLogprob("The ", b"The ", -0.5, (likely,)),)
        assert pieces[-1].final is not None
        assert (pieces[-1].final.text, pieces[-1].final.node) == ("".join(WORDS), address)
        (request,) = node.asked
        assert [(one.role, one.content) for one in request.messages] == [
            ("system", "Be brief."),
            ("user", "Who?"),
        ]
        assert (request.query, request.json_schema, request.no_learning) == ("", "{}", True)
        assert (request.max_new_tokens, request.top_k, request.seed) == (9, 3, 4)
        assert (request.temperature, request.top_logprobs, request.max_cards) == (0.5, 1, 2)
        assert list(request.stop) == ["x"]
        completed = [piece async for piece in fleet.stream(code)]
        assert completed[-1].final is not None
        assert (completed[0].text, completed[-1].final.finish) == ("pass", "length")
        assert (node.completed[0].prefix, node.completed[0].path) == (code.prefix, code.path)


async def test_caller_is_shown_to_nodes_and_the_gateway_itself_when_it_looks(
    tmp_path: pathlib.Path,
) -> None:
    tokens = tmp_path / "tokens.json"
    rows = [
        f'{{"name": "{name}", "sha256": "{callers.hash_of(name)}", "role": "{role}"}}'
        for name, role in (("ann", "user"), ("gateway", "node"))
    ]
    tokens.write_text(f"[{', '.join(rows)}]", encoding="utf-8")
    guarded = protections.Protection(token="gateway", admitted=callers.Callers(tokens))
    node = ScriptedNode("node")

    async def listed() -> Sequence[str]:
        return ()

    async with scripted_nodes.serving(node, guarded) as address, asyncio.timeout(TEST_S):
        fleet = fleets.Fleet(
            config.Settings(gateway=config.Gateway(nodes=(address,))),
            lambda found: grpc_node.GrpcNode(found, guarded),
            listed,
        )
        await fleet.start()
        try:
            await _until(lambda: _status(fleet, address) == "ready")
            with access.on_behalf_of(callers.header("ann")):
                await fleet.answer(QUESTION)
            assert node.authorizations == ["Bearer ann"]
            with access.on_behalf_of(""), pytest.raises(errors.UnauthenticatedError):
                await fleet.answer(QUESTION)
            # The look that an unknown card causes is the gateway's own, whoever asked.
            with access.on_behalf_of(""), pytest.raises(errors.NotFoundError):
                await fleet.answer(TO_SKILL)
            assert fleet.nodes()[0].status == "ready"
        finally:
            await fleet.stop()


class _Store(cards_pb2_grpc.CardStoreServicer):
    def __init__(self) -> None:
        self.nodes: list[str] = []

    async def ListResidency(
        self, request: cards_pb2.ListResidencyRequest, context: object
    ) -> cards_pb2.ListResidencyResponse:
        return cards_pb2.ListResidencyResponse(
            nodes=[
                cards_pb2.NodeResidency(node_id=address, address=address) for address in self.nodes
            ]
        )


@contextlib.asynccontextmanager
async def _store_server(store: _Store) -> AsyncIterator[str]:
    def add(grpc_server: grpc.aio.Server) -> str:
        cards_pb2_grpc.add_CardStoreServicer_to_server(store, grpc_server)
        return cards_pb2.DESCRIPTOR.services_by_name["CardStore"].full_name

    running = rpc_server.Server([add], "127.0.0.1:0")
    await running.start()
    try:
        yield f"127.0.0.1:{running.port}"
    finally:
        await running.stop()


async def test_nodes_of_the_store_are_asked_when_they_report_there() -> None:
    node, store = ScriptedNode("node"), _Store()
    async with (
        scripted_nodes.serving(node) as address,
        _store_server(store) as store_address,
        asyncio.timeout(TEST_S),
    ):
        settings = config.Settings(
            gateway=config.Gateway(nodes_every_s=0.05),
            card_store=config.CardStore(address=store_address),
            inference=config.Inference(address=addresses.free_address()),
        )
        async with fleets.running(settings) as fleet:
            assert [one.address for one in fleet.nodes()] == [settings.inference.address]
            store.nodes = [address]
            await _until(lambda: [one.address for one in fleet.nodes()] == [address])
            assert (await fleet.answer(QUESTION)).answer.node == address


async def test_real_node_answers_through_the_fleet_as_it_does_alone(
    tmp_path: pathlib.Path,
) -> None:
    async with inference_nodes.running(tmp_path, []) as node:
        alone = await node.ask()
        address = f"127.0.0.1:{node.port}"
        asked = domain.Conversation((domain.Message("user", inference_nodes.QUERY),))
        async with _fleet(address) as fleet:
            (state,) = fleet.nodes()
            assert (state.status, state.address) == ("ready", address)
            assert state.base_model and state.id
            whole = (await fleet.answer(asked)).answer
            pieces = [piece async for piece in fleet.stream(asked)]
            assert whole.text == alone.answer == inference_nodes.expected_of(None)
            assert "".join(piece.text for piece in pieces) == alone.answer
            assert pieces[-1].final == whole
            assert (whole.dissonance, whole.event_id) == (True, "event-1")
            assert (whole.prompt_tokens, whole.new_tokens) == (
                (alone.prompt_tokens, alone.new_tokens)
            )
