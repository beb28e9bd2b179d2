"""The protocol is the same under every server: real processes of uvicorn and of Daphne, spoken to from outside."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect

from tests.e2e.service import Service, call, free_port, wait_for

COMMANDS = {
    "uvicorn": ("manage.py", "serve", "--server", "uvicorn", "--port"),
    "daphne": ("-m", "daphne", "argus.asgi:application", "-b", "127.0.0.1", "-p"),
}


PLACES = 20
"""Connections that one address may have."""


class Running(NamedTuple):
    """A web process without any source behind it."""

    service: Service
    port: int
    key: str

    def connect(self, path: str = "/ws", key: str | None = None, **options: Any) -> ClientConnection:
        headers = {"X-API-Key": key} if key else {}
        return connect(f"ws://127.0.0.1:{self.port}{path}", additional_headers=headers, proxy=None, max_size=None, **options)


@pytest.fixture(scope="module", params=COMMANDS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = {"ARGUS_SEND_TIMEOUT": "1", "ARGUS_AUTH_TIMEOUT": "2", "ARGUS_HEARTBEAT_INTERVAL": "0.5"}
    settings["ARGUS_CONNECTIONS_PER_ADDRESS"] = str(PLACES)
    service = Service(tmp_path_factory.mktemp(request.param), **settings)
    key = service.install(("create_key", "test")).split()[-1]
    port = free_port()
    service.start(request.param, *COMMANDS[request.param], str(port))
    try:
        live = wait_for(lambda: call("GET", port, "/health/live")[0] == 200, f"{request.param}:\n{service.log(request.param)}")
        assert live
        yield Running(service, port, key)
    finally:
        service.close()


def receive(client: ClientConnection, type: str | None = None) -> dict[str, Any]:
    while True:
        message: dict[str, Any] = json.loads(client.recv(timeout=10))
        if message["type"] == type or (type is None and message["type"] != "heartbeat"):
            return message


def close_code(client: ClientConnection) -> int:
    """Read on until the server closes."""
    try:
        while True:
            client.recv(timeout=15)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else 1006


def test_a_session_from_the_first_message_to_the_last(running: Running) -> None:
    with running.connect("/ws/market_data", subprotocols=["argus.v1.json"]) as client:
        assert client.subprotocol == "argus.v1.json"
        assert receive(client)["authenticated"] is False
        for request, answer in (
            ({"action": "subscribe", "symbols": ["600000.SH"]}, "error"),
            ({"action": "auth", "key": running.key}, "authenticated"),
            ({"action": "subscribe", "symbols": ["600000.SH"]}, "subscribed"),
            ({"action": "update", "data_types": ["price"]}, "updated"),
            ({"action": "subscriptions"}, "subscriptions"),
            ({"action": "unsubscribe"}, "unsubscribed"),
            ({"action": "ping"}, "pong"),
        ):
            client.send(json.dumps(request | {"id": answer}))
            reply = receive(client)
            assert (reply["type"], reply["id"]) == (answer, answer)
        assert receive(client, "heartbeat")["stale"] is True


@pytest.mark.parametrize(
    ("message", "name"), [("{", "bad_json"), (b"\x00", "not_text"), ('{"action":"fly"}', "unknown_action"), ("", "bad_json")]
)
def test_a_bad_message_is_answered(running: Running, message: str | bytes, name: str) -> None:
    with running.connect(key=running.key) as client:
        assert receive(client)["authenticated"] is True
        client.send(message)
        assert receive(client)["name"] == name


@pytest.mark.parametrize(
    ("path", "key", "name", "code"),
    [
        ("/ws", "nonsense", "key_invalid", 4102),
        ("/ws?key=argus_x", None, "key_in_url", 4126),
        ("/ws?ticket=used", None, "ticket_invalid", 4127),
        ("/ws", None, "auth_timeout", 4112),
    ],
)
def test_who_may_not_come_in_is_told_why(running: Running, path: str, key: str | None, name: str, code: int) -> None:
    with running.connect(path, key) as client:
        assert receive(client, "error")["name"] == name
        assert close_code(client) == code


def test_a_handshake_that_is_refused_gets_its_http_answer(running: Running) -> None:
    with pytest.raises(InvalidStatus) as elsewhere:
        running.connect("/ws/elsewhere")
    assert elsewhere.value.response.status_code == 404
    with contextlib.ExitStack() as clients:
        with pytest.raises(InvalidStatus) as refused:
            for _ in range(PLACES + 1):
                clients.enter_context(running.connect())
        response = refused.value.response
        assert response.body is not None
        assert (response.status_code, json.loads(response.body)["name"]) == (429, "address_limit")
        assert response.headers["content-type"] == "application/problem+json"


def test_a_ticket_opens_a_connection(running: Running) -> None:
    status, body, _ = call("POST", running.port, "/api/v1/stream/ticket", running.key)
    assert status == 201
    with running.connect(f"/ws?ticket={body['ticket']}") as client:
        assert receive(client)["authenticated"] is True


def test_a_message_that_is_too_big_closes_the_connection(running: Running) -> None:
    with running.connect(key=running.key) as client:
        receive(client)
        with contextlib.suppress(ConnectionClosed):
            client.send("x" * 10_000_000)
        assert close_code(client) == 1009


def test_a_flood_of_a_client_that_never_reads_is_cut_off(running: Running) -> None:
    with running.connect(key=running.key) as other, socket.socket() as mute:
        mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        mute.settimeout(30)
        mute.connect(("127.0.0.1", running.port))
        mute.sendall(
            f"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-API-Key: {running.key}\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert mute.recv(12) == b"HTTP/1.1 101"
        flood = Frame(Opcode.TEXT, b'{"action":"ping","id":"' + b"x" * 120 + b'"}').serialize(mask=True) * 500
        with pytest.raises(ConnectionError):
            while True:
                mute.sendall(flood)
        other.send('{"action":"ping","id":1}')
        assert receive(other, "pong")["id"] == 1


def test_a_revoked_key_ends_its_connections(running: Running) -> None:
    key = running.service.manage("create_key", "short").strip().splitlines()[-1]
    with running.connect(key=key) as client:
        receive(client, "connected")
        running.service.manage("revoke_key", key.split("_")[1])
        assert receive(client, "error")["name"] == "key_revoked"
        assert close_code(client) == 4110
