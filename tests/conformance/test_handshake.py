"""The opening handshake under both servers (RFC 6455, 4.2): what is answered, what is refused and how."""

from __future__ import annotations

import pytest

from tests.conformance.peer import ACCEPT, KEY, Peer, Server, request


def test_a_good_one(server: Server) -> None:
    with Peer(server.port) as peer:
        peer.greeted()
        assert peer.headers["sec-websocket-accept"] == ACCEPT
        assert peer.headers["upgrade"].lower() == "websocket"
        assert peer.headers["connection"].lower() == "upgrade"
        assert "sec-websocket-protocol" not in peer.headers


@pytest.mark.parametrize("connection", ["upgrade", "keep-alive, Upgrade"])
@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket"])
def test_names_are_not_case_sensitive_and_may_stand_among_others(server: Server, connection: str, upgrade: str) -> None:
    with Peer(server.port, request(Connection=connection, Upgrade=upgrade)) as peer:
        assert peer.greeted().alive()


def test_a_subprotocol_is_chosen_and_an_extension_is_not(server: Server) -> None:
    offered = {"Sec_WebSocket_Protocol": "other, argus.v1.json", "Sec_WebSocket_Extensions": "permessage-deflate"}
    with Peer(server.port, request(**offered)) as peer:
        assert peer.headers["sec-websocket-protocol"] == "argus.v1.json"
        assert "sec-websocket-extensions" not in peer.headers
        assert peer.greeted().alive()


@pytest.mark.parametrize("version", ["0", "8", "14", "255"])
def test_another_version_is_told_ours(server: Server, version: str) -> None:
    with Peer(server.port, request(Sec_WebSocket_Version=version)) as peer:
        assert peer.status == 426
        assert peer.headers["sec-websocket-version"] == "13"


@pytest.mark.parametrize("key", [None, "", "short", "not base64 at all!!!!!!!", KEY + "AAAA"])
def test_a_key_that_is_none_is_refused(server: Server, key: str | None) -> None:
    with Peer(server.port, request(Sec_WebSocket_Key=key)) as peer:
        assert peer.status == 400


@pytest.mark.parametrize("version", [None, "", "x", "-13"])
def test_a_version_that_is_none_is_refused(server: Server, version: str | None) -> None:
    with Peer(server.port, request(Sec_WebSocket_Version=version)) as peer:
        assert peer.status in (400, 426)


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD"])
def test_nothing_but_get_opens_a_connection(server: Server, method: str) -> None:
    with Peer(server.port, request(method=method, Content_Length="0")) as peer:
        assert peer.status in (400, 405)


def test_a_request_without_a_host_is_refused(server: Server) -> None:
    with Peer(server.port, request(Host=None)) as peer:
        assert peer.status == 400


def test_the_stream_is_nothing_for_plain_http(server: Server) -> None:
    with Peer(server.port, request(Upgrade=None, Connection=None)) as peer:
        assert peer.status in (404, 426)


def test_the_server_goes_on_after_all_of_it(server: Server) -> None:
    with Peer(server.port) as peer:
        assert peer.greeted().alive()
