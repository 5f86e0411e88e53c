import contextlib
import socket

from services.gateway.web import server


def test_a_connection_sends_small_parts_at_once():
    with (
        contextlib.closing(server.listen("127.0.0.1:0")) as listening,
        contextlib.closing(socket.create_connection(listening.getsockname())),
        contextlib.closing(listening.accept()[0]) as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
