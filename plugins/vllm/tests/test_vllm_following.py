"""Names that mean another card are forgotten by vLLM; a server on loopback stands for it."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator

import pytest
import stores
from skillmesh_vllm import following


class FakeServer:
    def __init__(self) -> None:
        self.forgotten: list[str] = []
        self.away = False
        self.told = threading.Event()

    def forget(self, name: str) -> None:
        if self.away:
            raise ConnectionRefusedError("away")
        self.forgotten.append(name)
        self.told.set()


class Vllm(http.server.BaseHTTPRequestHandler):
    """Knows one adapter, `known`, and asks for a key."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != "Bearer key":
            status, message = 401, "Unauthorized"
        elif self.path != "/v1/unload_lora_adapter":
            status, message = 404, "Not Found"
        elif body != {"lora_name": "known"}:
            status, message = 404, f"The lora adapter '{body['lora_name']}' cannot be found."
        else:
            status, message = 200, "Success"
        self.send_response(status)
        self.end_headers()
        self.wfile.write(message.encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Vllm)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def follower(
    every_s: float = 3600.0,
) -> tuple[following.NameFollower, stores.FakeStore, FakeServer]:
    cards, server = stores.FakeStore(), FakeServer()
    return following.NameFollower(cards.find, server, every_s), cards, server


def test_a_name_is_forgotten_once_when_its_alias_moved() -> None:
    names, cards, server = follower()
    first = cards.publish(stores.card(), "production")
    names.follow("tiny-skill@production", first.digest)
    names.follow(first.identity, first.digest)
    names.check()
    assert server.forgotten == []
    cards.publish(stores.card(seed=2, version="1.0.1"), "production")
    names.check()
    names.check()
    names.stop()
    assert server.forgotten == ["tiny-skill@production"]


def test_a_pinned_card_is_forgotten_when_the_store_no_longer_knows_it() -> None:
    names, cards, server = follower()
    card = cards.publish(stores.card())
    names.follow(card.identity, card.digest)
    del cards.meant[card.identity]
    names.check()
    names.stop()
    assert server.forgotten == [card.identity]


def test_names_stay_when_the_store_is_away() -> None:
    names, cards, server = follower()
    card = cards.publish(stores.card())
    names.follow("tiny-skill", card.digest)
    cards.away = True
    names.check()
    names.stop()
    assert server.forgotten == []


def test_a_name_is_forgotten_later_when_vllm_could_not_be_told() -> None:
    names, cards, server = follower()
    names.follow("tiny-skill", cards.publish(stores.card()).digest)
    cards.publish(stores.card(seed=2, version="1.0.1"))
    server.away = True
    names.check()
    server.away = False
    names.check()
    names.stop()
    assert server.forgotten == ["tiny-skill"]


def test_all_names_of_a_digest_are_forgotten_when_its_folder_goes() -> None:
    names, cards, server = follower()
    card = cards.publish(stores.card())
    names.follow("tiny-skill", card.digest)
    names.follow(card.identity, card.digest)
    names.follow("other", "b" * 64)
    server.away = True
    assert not names.forget_digest(card.digest)
    server.away = False
    assert names.forget_digest(card.digest)
    names.stop()
    assert sorted(server.forgotten) == ["tiny-skill", card.identity]


def test_a_move_is_noticed_when_nobody_asks() -> None:
    names, cards, server = follower(every_s=0.01)
    names.follow("tiny-skill", cards.publish(stores.card()).digest)
    cards.publish(stores.card(seed=2, version="1.0.1"))
    assert server.told.wait(30)
    names.stop()


def test_the_server_forgets_when_it_knows_the_name_and_needs_not_when_it_does_not(
    url: str,
) -> None:
    server = following.VllmServer(url, "key")
    server.forget("known")
    server.forget("unknown")


def test_an_error_is_raised_when_the_server_refuses_or_is_another(url: str) -> None:
    with pytest.raises(OSError, match="401"):
        following.VllmServer(url, "").forget("known")
    with pytest.raises(OSError, match="404"):
        following.VllmServer(f"{url}/elsewhere", "key").forget("known")
