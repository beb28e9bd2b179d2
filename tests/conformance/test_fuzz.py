"""Anything a client can say, on a live connection with data on it: each request has its one answer, or the connection its end."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argus.errors import BY_NAME, GOODBYE_RESTART, PROBLEMS
from marketdata.types import DataType
from tests.conformance.peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Peer, Server, closing, frame, request
from tests.e2e.embedded import Embedded, embedded
from tests.e2e.service import get, wait_for

DOCUMENTED = {problem.close for problem in PROBLEMS if problem.close} | {GOODBYE_RESTART, 1000, 1001, 1002, 1007, 1009}
"""Every close code that a client has to reckon with."""
PUSHED = {"data", "epoch", "goodbye", "heartbeat", "limits"}
"""Messages that answer nothing."""
ACTIONS = ("auth", "subscribe", "update", "unsubscribe", "subscriptions", "ping", "resume")
SYMBOLS = ("*", "600000.SH", "000001.SZ", "market:SZ", "sector:沪深300", "999999.SH", "600000", "x" * 5000, "", "\x00", "é.SH")
FREQUENCIES = ("realtime", "1s", "5s", "1m", "2s", "")

Encode = Callable[[Any], bytes]

anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ids = st.integers(-(2**53), 2**53) | st.text(max_size=128) | st.none()
symbols = st.lists(st.sampled_from(SYMBOLS), max_size=6)
data_types = st.lists(st.sampled_from([*DataType, "tick", ""]), max_size=4)
filters = st.dictionaries(
    st.sampled_from(["min_price", "max_price", "min_volume", "only_changed", "sense"]), anything, max_size=2
)
position = st.dictionaries(st.sampled_from(["main", "x"]), st.fixed_dictionaries({"epoch": st.integers(), "seq": st.integers()}))
good = st.fixed_dictionaries(
    {"action": st.sampled_from(ACTIONS)},
    optional={
        "id": ids,
        "subscription": st.sampled_from(["main", "other", ""]),
        "symbols": symbols,
        "data_types": data_types,
        "update_frequency": st.sampled_from(FREQUENCIES),
        "filters": filters,
        "key": st.text(max_size=8),
        "session": st.text(max_size=8),
        "streams": position,
    },
)
subscribe = st.fixed_dictionaries(
    {"action": st.just("subscribe"), "id": ids, "symbols": st.lists(st.sampled_from(SYMBOLS[:4]), min_size=1, max_size=3)},
    optional={"data_types": st.lists(st.sampled_from([*DataType]), min_size=1, max_size=4)},
)
nearly = st.builds(
    lambda message, name, value: message | {name: value}, good, st.sampled_from(["id", "action", "more", "symbols"]), anything
)
objects = subscribe | good | nearly | anything


def to_json(value: Any) -> bytes:
    return json.dumps(value).encode()


@st.composite
def damaged(draw: st.DrawFn, encode: Encode) -> bytes:
    """A message that lost its end, or has a byte changed, or is followed by something."""
    whole = encode(draw(good))
    at = draw(st.integers(0, len(whole) - 1))
    return draw(st.sampled_from([whole[:at], whole[:at] + b"\x00" + whole[at + 1 :], whole + whole, whole + b" "]))


def messages(opcode: int, encode: Encode) -> st.SearchStrategy[bytes]:
    """Frames of whole messages."""
    garbage = st.sampled_from(
        [b"", b"{", b"[" * 50_000, b'{"action":"ping","id":"\\ud800"}', b'{"id":1e400,"action":"ping"}', b"NaN"]
    )
    own = objects.map(encode) | damaged(encode) | garbage | st.text().map(str.encode)
    if opcode == TEXT:
        # What is not UTF-8 has an end of its own.
        own = own.filter(_is_text)
    return own.map(lambda payload: frame(opcode, payload)) | st.binary(max_size=40).map(lambda payload: frame(BINARY, payload))


def _is_text(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """The whole service over a small market. When all is over it has no fault in its log, and nothing of any client left."""
    with embedded(tmp_path_factory.mktemp("fuzz"), ARGUS_POLL_INTERVAL="0.1", ARGUS_AUTH_TIMEOUT="60") as service:
        yield service
        wait_for(lambda: not left(service), f"nothing to be left of the clients: {left(service)}", 20)
        log = service.service.log("up")
        faults = [
            line for line in log.splitlines() if "Traceback" in line or '"level": "error"' in line or '"level":"error"' in line
        ]
        assert not faults, faults[:3]


def left(service: Embedded) -> dict[str, float]:
    """What the hub has of clients that are not there. Their sessions, and what those want, outlast them for a while."""
    text = get(service.port, "/metrics", service.key)[1]
    names = ("argus_stream_connections", "argus_stream_views", "argus_stream_behind")
    found = {name: math.fsum(map(float, re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))) for name in names}
    return {name: value for name, value in found.items() if value}


def answers(peer: Peer, last: str) -> tuple[list[dict[str, Any]], int | None]:
    """What is answered up to the request of this id, or the close code that comes before."""
    found: list[dict[str, Any]] = []
    while (got := peer.next()) is not None:
        if got.opcode == CLOSE:
            return found, got.code
        if got.opcode in (TEXT, BINARY):
            message = json.loads(got.payload) if got.opcode == TEXT else msgspec.msgpack.decode(got.payload)
            if message.get("id") == last and message["type"] == "pong":
                return found, None
            if message["type"] not in PUSHED:
                found.append(message)
    return found, 1006


def check(found: list[dict[str, Any]], code: int | None, sent: int) -> None:
    """One answer for each of them, or an end that the documentation knows."""
    for message in found:
        if message["type"] == "error":
            assert message["name"] in BY_NAME
            assert message["name"] != "internal", message
    if code is None:
        assert len(found) == sent, found
    else:
        assert code in DOCUMENTED, code
        assert len(found) <= sent


@settings(max_examples=120, deadline=None)
@given(requests=st.lists(messages(TEXT, to_json), max_size=12), known=st.booleans(), at_once=st.booleans())
def test_every_request_has_one_answer_or_the_connection_its_end(
    live: Embedded, requests: list[bytes], known: bool, at_once: bool
) -> None:
    with Peer(live.port, request(X_API_Key=live.key if known else None)) as peer:
        assert peer.message()["type"] == "connected"
        last = frame(TEXT, b'{"action":"ping","id":"the last"}')
        pieces = [*requests, last]
        peer.quietly(*([b"".join(pieces)] if at_once else pieces))
        found, code = answers(peer, "the last")
        check(found, code, len(requests))
        assert code is None or not known, "a client with a good key may say what it likes"


# Frames


codes = st.sampled_from([1000, 1001, 1005, 1006, 4000, 5000]).map(closing)
frames = st.builds(
    lambda opcode, payload, fin, reserved, masked: frame(
        opcode, payload, fin=fin, reserved=reserved, mask=b"\xa1\xb2\xc3\xd4" if masked else None
    ),
    st.sampled_from([TEXT] * 4 + [CONTINUATION, CONTINUATION, BINARY, PING, PONG, CLOSE, 3, 11]),
    st.binary(max_size=140) | st.just(b'{"action":"ping","id":1}'),
    st.sampled_from([True, True, True, False]),
    st.sampled_from([0] * 12 + [1, 4]),
    st.sampled_from([True] * 12 + [False]),
)


@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(frames | codes | st.binary(max_size=60), max_size=8), packet=st.integers(1, 400))
def test_any_bytes_end_in_an_answer_or_a_close_code(server: Server, pieces: list[bytes], packet: int) -> None:
    with Peer(server.port).greeted() as peer:
        data = b"".join(pieces)
        peer.quietly(*(data[at : at + packet] for at in range(0, len(data), packet)))
        peer.finish()
        before, close = peer.end()
        assert all(got.opcode in (TEXT, PONG) for got in before)
        assert close is None or close.code in DOCUMENTED | {1001, 1003, 1005, 1008, 1010, 1011, 4000}, close
