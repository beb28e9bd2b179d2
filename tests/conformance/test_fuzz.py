"""Anything a client can say, on a live connection with data on it: each request has its one answer, or the connection its end."""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from argus.errors import BY_NAME, GOODBYE_RESTART, PROBLEMS
from marketdata.types import EVENTS, DataType
from streaming.protocol import ACTIONS
from tests.conformance.peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Got, Peer, Server, closing, frame, request
from tests.e2e.embedded import Embedded, embedded
from tests.e2e.service import get, wait_for

DOCUMENTED = {problem.close for problem in PROBLEMS if problem.close} | {GOODBYE_RESTART, 1000, 1001, 1002, 1007, 1009}
"""Every close code that a client has to reckon with."""
PUSHED = {"data", "epoch", "gap", "goodbye", "heartbeat", "limits"}
"""Messages that answer nothing."""
SYMBOLS = ("*", "600000.SH", "000001.SZ", "market:SZ", "sector:沪深300", "999999.SH", "600000", "x" * 5000, "", "\x00", "é.SH")
FREQUENCIES = ("realtime", "1s", "5s", "1m", "2s", "")

Encode = Callable[[Any], bytes]


class Held(NamedTuple):
    """A session that anybody may take up who knows its token; ``feed`` had come as far as ``epoch`` and ``seq`` then."""

    token: str
    feed: str
    epoch: int
    seq: int


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ids = st.integers(-(2**53), 2**53) | st.text(max_size=128) | st.none()
names = st.sampled_from(["main", "mine", ""])
symbols = st.lists(st.sampled_from(SYMBOLS), max_size=6)
known_symbols = st.lists(st.sampled_from(SYMBOLS[:4]), min_size=1, max_size=3)
data_types = st.lists(st.sampled_from([*DataType, "tick", ""]), max_size=4)
filters = st.dictionaries(
    st.sampled_from(["min_price", "max_price", "min_volume", "only_changed", "sense"]), anything, max_size=2
)
subscribe = st.fixed_dictionaries(
    {"action": st.just("subscribe"), "id": ids, "symbols": known_symbols},
    optional={"data_types": st.lists(st.sampled_from([*DataType]), min_size=1, max_size=4)},
)
acknowledged = st.fixed_dictionaries(
    {
        "action": st.just("subscribe"),
        "id": ids,
        "symbols": known_symbols,
        "data_types": st.lists(st.sampled_from(sorted(EVENTS)), min_size=1, max_size=3),
        "ack": st.booleans() | st.just(True),
        "subscription": names | st.just("mine"),
    },
)


changes = st.one_of(
    st.fixed_dictionaries(
        {"action": st.just("update"), "id": ids, "update_frequency": st.sampled_from(FREQUENCIES[:4])},
        optional={"subscription": names},
    ),
    st.fixed_dictionaries({"action": st.just("unsubscribe"), "id": ids}, optional={"subscription": names}),
    st.fixed_dictionaries({"action": st.sampled_from(["subscriptions", "ping"]), "id": ids}),
)


@cache
def objects(held: Held) -> st.SearchStrategy[Any]:
    """What may be said: mostly what makes sense, somewhere."""
    tokens = st.just(held.token) | st.text(max_size=8)
    # A position ahead of the feed is waited for; it costs nobody but who says it, and here the time of the test.
    place = {"epoch": st.sampled_from([held.epoch, 0, -1]), "seq": st.sampled_from([held.seq, 0, held.seq - 5, 2**54])}
    streams = st.dictionaries(st.just(held.feed), st.fixed_dictionaries(place), max_size=1) | st.just(
        {"x": {"epoch": 0, "seq": 0}}
    )
    good = st.fixed_dictionaries(
        {"action": st.sampled_from(ACTIONS)},
        optional={
            "id": ids,
            "subscription": names,
            "symbols": symbols,
            "data_types": data_types,
            "update_frequency": st.sampled_from(FREQUENCIES),
            "filters": filters,
            "ack": st.booleans(),
            "key": st.text(max_size=8),
            "session": tokens,
            "streams": streams,
        },
    )
    at = {"epoch": st.just(held.epoch), "seq": st.sampled_from([held.seq, held.seq - 5, 0])}
    positions = st.fixed_dictionaries({}, optional={"streams": streams}) | st.fixed_dictionaries(
        at, optional={"feed": st.sampled_from([held.feed, ""])}
    )
    done = {"action": "ack", "subscription": "mine", "epoch": held.epoch, "seq": held.seq}
    ack = st.just(done) | st.builds(
        operator.or_, st.fixed_dictionaries({"action": st.just("ack"), "id": ids, "subscription": names}), positions
    )
    resume = st.builds(
        operator.or_,
        st.fixed_dictionaries({"action": st.just("resume"), "id": ids}, optional={"session": tokens}),
        positions,
    )
    nearly = st.builds(
        lambda message, name, value: message | {name: value},
        good,
        st.sampled_from(["id", "action", "more", "symbols", "ack", "session", "subscription"]),
        anything,
    )
    return resume | acknowledged | ack | subscribe | changes | good | nearly | anything


def to_json(value: Any) -> bytes:
    return json.dumps(value).encode()


ENCODE: dict[int, Encode] = {TEXT: to_json, BINARY: msgspec.msgpack.encode}
PROTOCOLS = {TEXT: "argus.v1.json", BINARY: "argus.v1.msgpack"}
"""Of messages in frames of a kind."""
GARBAGE = {
    TEXT: [
        b"",
        b"{",
        b"[" * 50_000,
        b'{"x":' + b"[" * 50_000,
        b'{"action":"ping","id":"\\ud800"}',
        b'{"id":1e400,"action":"ping"}',
        b"NaN",
    ],
    BINARY: [
        b"",
        b"\xc1",
        b"\x91" * 50_000,
        b"\x82\xa1x" + b"\x91" * 50_000,
        b"\xdf\xff\xff\xff\xff",
        b"\x82\xa6action\xa4ping\xa2id\xa2\xff\xff",
        b"\x82\xa6action\xa4ping\xa2id\xcb\x7f\xf8" + b"\x00" * 6,
        b"\x82\xa6action\xa4ping\x01\x01",
        b"\xd6\xff" + b"\x00" * 4,
    ],
}
"""What looks like a message and is none: cut short, too deep, larger than it is, no text, no number, no name, a timestamp."""


@st.composite
def damaged(draw: st.DrawFn, held: Held, encode: Encode) -> bytes:
    """A message that lost its end, or has a byte changed, or is followed by something."""
    whole = encode(draw(objects(held)))
    at = draw(st.integers(0, len(whole) - 1))
    return draw(st.sampled_from([whole[:at], whole[:at] + b"\x00" + whole[at + 1 :], whole + whole, whole + b" "]))


@cache
def messages(opcode: int, held: Held) -> st.SearchStrategy[bytes]:
    """Frames of whole messages to a connection that speaks in frames of this kind: most are of it, some of the other."""

    def framed(kind: int) -> st.SearchStrategy[bytes]:
        encode = ENCODE[kind]
        said = objects(held).map(encode) | damaged(held, encode) | st.sampled_from(GARBAGE[kind]) | st.text().map(str.encode)
        if kind == TEXT:
            # What is not UTF-8 has an end of its own.
            said = said.filter(_is_text)
        return said.map(lambda payload: frame(kind, payload))

    other = st.binary(max_size=40).map(lambda payload: frame(BINARY, payload)) if opcode == TEXT else framed(TEXT)
    return framed(opcode) | framed(opcode) | framed(opcode) | other


@cache
def conversations(opcode: int, held: Held) -> st.SearchStrategy[list[bytes]]:
    """What a connection is told; many begin by subscribing, or with what another has subscribed to."""
    begin = acknowledged | subscribe | st.just(taken_up(held))
    first = begin.map(lambda said: said_in(opcode, said))
    return st.builds(operator.add, st.lists(first, max_size=3), st.lists(messages(opcode, held), min_size=1, max_size=12))


def taken_up(held: Held) -> dict[str, Any]:
    """Go on where the other connection was."""
    return {"action": "resume", "session": held.token, "streams": {held.feed: {"epoch": held.epoch, "seq": held.seq}}}


def said_in(opcode: int, said: Any) -> bytes:
    """A message in a frame of this kind."""
    return frame(opcode, ENCODE[opcode](said))


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


def connect(live: Embedded, opcode: int, *, known: bool) -> tuple[Peer, dict[str, Any]]:
    """A connection that speaks in frames of this kind, and its first message."""
    peer = Peer(live.port, request(X_API_Key=live.key if known else None, Sec_WebSocket_Protocol=PROTOCOLS[opcode]))
    got = peer.next()
    assert got is not None
    hello = read(got)
    assert (got.opcode, hello["type"]) == (opcode, "connected")
    return peer, hello


def read(got: Got) -> dict[str, Any]:
    """The message in a frame."""
    return dict(json.loads(got.payload) if got.opcode == TEXT else msgspec.msgpack.decode(got.payload))


def answers(peer: Peer, opcode: int, last: str) -> tuple[list[dict[str, Any]], int | None]:
    """What is answered up to the request of this id, or the close code that comes before."""
    found: list[dict[str, Any]] = []
    while (got := peer.next()) is not None:
        if got.opcode == CLOSE:
            return found, got.code
        if got.opcode in (TEXT, BINARY):
            assert got.opcode == opcode
            message = read(got)
            if message.get("id") == last and message["type"] == "pong":
                return found, None
            if message["type"] not in PUSHED:
                found.append(message)
    return found, 1006


def check(found: list[dict[str, Any]], code: int | None, sent: int) -> None:
    """One answer for each of them, or an end that the documentation knows. Nobody here has a key to send: who is let in all the
    same has taken up a session, and is told that besides."""
    answered = [message for message in found if message["type"] != "authenticated"]
    assert len(found) - len(answered) <= 1
    for message in answered:
        if message["type"] == "error":
            assert message["name"] in BY_NAME
            assert message["name"] != "internal", message
        elif message["type"] == "resumed":
            assert message["recovered"] == all(gap["filled"] for gap in message["gaps"])
        elif message["type"] == "acked":
            assert message["pending"] >= 0
    if code is None:
        assert len(answered) == sent, answered
    else:
        assert code in DOCUMENTED, code
        assert len(answered) <= sent


@pytest.fixture(scope="module")
def held(live: Embedded) -> Held:
    """Good for ``HELD`` seconds, which is more than a test takes that needs it."""
    peer, hello = connect(live, TEXT, known=True)
    with peer:
        ack = {"subscription": "mine", "data_types": ["status", "kline:1m"], "ack": True}
        for extra in ({"data_types": ["quote", "kline:1m"]}, {"subscription": "slow", "update_frequency": "1s"}, ack):
            peer.send(frame(TEXT, to_json({"action": "subscribe", "symbols": ["*"], **extra})))
        peer.send(frame(TEXT, b'{"action":"ping","id":"the last"}'))
        found, _ = answers(peer, TEXT, "the last")
        assert [message["type"] for message in found] == ["subscribed"] * 3
    ((feed, position),) = hello["streams"].items()
    return Held(hello["session"], feed, **position)


@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["json", "msgpack"])
def test_every_request_has_one_answer_or_the_connection_its_end(live: Embedded, held: Held, opcode: int) -> None:
    seen: set[str] = set()
    position = {"epoch": held.epoch, "seq": held.seq}
    good = [
        taken_up(held),
        {"action": "ack", "subscription": "mine", **position},
        {"action": "subscribe", "symbols": ["600000.SH"], "data_types": ["trade"], "subscription": "own", "ack": True},
        {"action": "ack", "subscription": "own", "streams": {held.feed: position}},
        {"action": "resume", **position},
    ]

    @settings(max_examples=200, deadline=None)
    @example(requests=[said_in(opcode, said) for said in good], known=False, at_once=True)
    @example(requests=[frame(opcode, payload) for payload in GARBAGE[opcode]], known=True, at_once=False)
    @given(requests=conversations(opcode, held), known=st.booleans(), at_once=st.booleans())
    def converse(requests: list[bytes], known: bool, at_once: bool) -> None:
        peer, _ = connect(live, opcode, known=known)
        with peer:
            last = said_in(opcode, {"action": "ping", "id": "the last"})
            pieces = [*requests, last]
            peer.quietly(*([b"".join(pieces)] if at_once else pieces))
            found, code = answers(peer, opcode, "the last")
            check(found, code, len(requests))
            assert code is None or not known, "a client with a good key may say what it likes"
            seen.update(message["type"] for message in found)

    converse()
    assert seen >= {"authenticated", "resumed", "acked", "subscribed", "error"}, "it has not been about these"


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
