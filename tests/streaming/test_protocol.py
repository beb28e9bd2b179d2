"""The wire protocol: what every text means, and that none can do harm."""

from __future__ import annotations

import json
import zlib

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from argus.errors import BAD_JSON, INVALID_ARGUMENT, NOT_TEXT, UNKNOWN_ACTION, Problem
from marketdata.types import DataType
from streaming import protocol
from streaming.codecs import DEFLATED, JSON, MSGPACK, Head
from streaming.parsing import parse
from streaming.protocol import Failure, Ping, Position, Resume, Subscribe, Unreadable
from streaming.selection import Frequency


def refused(text: str | bytes) -> dict[str, object]:
    message = parse(text)
    assert isinstance(message, Unreadable)
    return json.loads(JSON.text(Failure(message.error, message.id)))


def test_a_subscribe_carries_its_defaults() -> None:
    action = parse('{"action":"subscribe","id":"1","symbols":["600000.SH"]}')
    assert isinstance(action, Subscribe)
    assert (action.id, action.subscription, action.symbols) == ("1", "main", ["600000.SH"])
    assert action.data_types is action.update_frequency is action.filters is msgspec.UNSET


def test_a_subscribe_carries_what_was_given() -> None:
    action = parse('{"action":"subscribe","symbols":["*"],"subscription":"all","data_types":["price"],"update_frequency":"5s"}')
    assert isinstance(action, Subscribe)
    assert (action.subscription, action.data_types, action.update_frequency) == ("all", ["price"], Frequency.S5)


@pytest.mark.parametrize("id", ["1", "", "请求", 7, -3, 2**53])
def test_an_id_is_kept_as_it_was_given(id: str | int) -> None:
    action = parse(json.dumps({"action": "ping", "id": id}))
    assert isinstance(action, Ping)
    assert action.id == id
    assert type(action.id) is type(id)


def test_a_resume_is_read_with_its_positions() -> None:
    action = parse('{"action":"resume","session":"token","streams":{"main":{"epoch":7,"seq":1790}}}')
    assert action == Resume(session="token", streams={"main": Position(7, 1790)})
    wrong = parse('{"action":"resume","streams":{"main":{"epoch":7}}}')
    assert isinstance(wrong, Unreadable)
    assert wrong.error.params["parameter"] == "streams"


@pytest.mark.parametrize(
    ("text", "problem", "parameter", "id"),
    [
        ("", BAD_JSON, None, None),
        ("{", BAD_JSON, None, None),
        ("null", BAD_JSON, None, None),
        ("[]", BAD_JSON, None, None),
        ('"auth"', BAD_JSON, None, None),
        ('{"action":"ping"} x', BAD_JSON, None, None),
        ('{"action":"ping","id":NaN}', BAD_JSON, None, None),
        ('{"x":' + "[" * 50_000, BAD_JSON, None, None),
        ('{"action":"ping","id":"\ud800"}', BAD_JSON, None, None),
        (b'{"action":"ping"}', NOT_TEXT, None, None),
        ('{"action":"fly","id":3}', UNKNOWN_ACTION, None, 3),
        ('{"action":"Subscribe","id":3}', UNKNOWN_ACTION, None, 3),
        ("{}", INVALID_ARGUMENT, "action", None),
        ('{"action":7,"id":"a"}', INVALID_ARGUMENT, "action", "a"),
        ('{"action":"subscribe","id":"a"}', INVALID_ARGUMENT, "symbols", "a"),
        ('{"action":"subscribe","symbols":"600000.SH"}', INVALID_ARGUMENT, "symbols", None),
        ('{"action":"subscribe","symbols":["600000.SH",7]}', INVALID_ARGUMENT, "symbols", None),
        ('{"action":"subscribe","symbols":null}', INVALID_ARGUMENT, "symbols", None),
        ('{"action":"subscribe","symbols":["*"],"data_types":["candles"]}', INVALID_ARGUMENT, "data_types", None),
        ('{"action":"subscribe","symbols":["*"],"update_frequency":"2s"}', INVALID_ARGUMENT, "update_frequency", None),
        ('{"action":"subscribe","symbols":["*"],"subscription":""}', INVALID_ARGUMENT, "subscription", None),
        ('{"action":"subscribe","symbols":["*"],"symbol":"x"}', INVALID_ARGUMENT, "symbol", None),
        ('{"action":"auth"}', INVALID_ARGUMENT, "key", None),
        ('{"action":"auth","key":5}', INVALID_ARGUMENT, "key", None),
        ('{"action":"ping","id":{}}', INVALID_ARGUMENT, "id", None),
        ('{"action":"ping","id":1.5}', INVALID_ARGUMENT, "id", None),
        ('{"action":"ping","id":9007199254740993}', INVALID_ARGUMENT, "id", None),
        ('{"action":"ping","id":"' + "x" * 129 + '"}', INVALID_ARGUMENT, "id", None),
        ('{"action":"unsubscribe","id":1,"symbols":["` - at `$.key`",3]}', INVALID_ARGUMENT, "symbols", 1),
    ],
)
def test_a_wrong_message_is_told_what_is_wrong(
    text: str | bytes, problem: Problem, parameter: str | None, id: str | int | None
) -> None:
    error = refused(text)
    assert (error["code"], error.get("parameter"), error.get("id")) == (problem.code, parameter, id)


def test_an_unknown_action_is_told_the_known_ones() -> None:
    assert refused('{"action":"fly"}')["actions"] == list(protocol.ACTIONS)


def test_a_wrong_choice_is_told_the_allowed_ones() -> None:
    error = refused('{"action":"subscribe","symbols":["*"],"update_frequency":"2s"}')
    assert error["allowed"] == ["realtime", "1s", "5s", "1m"]


def test_an_error_does_not_give_a_long_message_back() -> None:
    text = json.dumps({"action": "subscribe", "symbols": ["*"], "update_frequency": "x" * 10_000})
    assert len(json.dumps(refused(text))) < 1_000


def test_every_known_action_is_read() -> None:
    needed = {"auth": {"key": "k"}, "subscribe": {"symbols": ["*"]}}
    for name in protocol.ACTIONS:
        assert not isinstance(parse(json.dumps({"action": name, **needed.get(name, {})})), Unreadable)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
words = st.sampled_from([*protocol.ACTIONS, "quote", "1s", "main", "*"]) | st.text(max_size=5)
names = st.sampled_from(["action", "id", "key", "subscription", "symbols", "data_types", "update_frequency", "filters"])
messages = st.dictionaries(names | st.text(max_size=8), words | st.lists(words, max_size=3) | json_values, max_size=6)


@given(st.binary() | st.text(st.characters()) | messages.map(json.dumps))
@example('{"action":"ping","id":"\\ud800x"}')
@example('{"action":"ping","id":' + "9" * 5_000 + "}")
def test_whatever_arrives_becomes_an_action_or_an_error_that_can_be_sent(data: str | bytes) -> None:
    message = parse(data)
    if isinstance(message, Unreadable):
        json.loads(JSON.text(Failure(message.error, message.id)))


@given(messages)
def test_an_id_that_can_be_read_is_echoed_in_the_error(fields: dict[str, object]) -> None:
    message = parse(json.dumps({**fields, "action": "fly", "id": "abc"}))
    assert isinstance(message, Unreadable)
    assert message.id == "abc"


def test_a_data_message_is_its_head_and_fragments() -> None:
    pieces = [b'{"symbol":"600000.SH","price":10.5}', b'{"symbol":"000001.SZ","price":null}']
    expected = {
        "type": "data",
        "feed": "main",
        "epoch": 1_700_000_000_000,
        "seq": 1842,
        "snapshot": True,
        "data": [{"symbol": "600000.SH", "price": 10.5}, {"symbol": "000001.SZ", "price": None}],
    }
    head = Head("main", 1_700_000_000_000, 1842, snapshot=True)
    assert json.loads(JSON.frame(JSON.head(head), pieces).payload()) == expected
    assert b"snapshot" not in JSON.head(Head("main", 7, 1842))
    packed = [MSGPACK.fragment(DataType.PRICE, piece) or b"" for piece in pieces]
    assert msgspec.msgpack.decode(MSGPACK.frame(MSGPACK.head(head), packed).payload()) == expected
    assert json.loads(DEFLATED.frame(DEFLATED.head(head), pieces).payload()) == expected


@pytest.mark.parametrize("count", [1, 15, 16, 100, 70_000])
def test_a_frame_of_any_number_of_fragments_can_be_read_in_every_codec(count: int) -> None:
    pieces = [b'{"type":"price","symbol":"%d"}' % number for number in range(count)]
    expected = [json.loads(piece) for piece in pieces]
    for codec in (JSON, MSGPACK, DEFLATED):
        frame = codec.frame(codec.head(Head("main", 7, 8)), [codec.fragment(DataType.PRICE, piece) or b"" for piece in pieces])
        payload = frame.payload()
        if codec is MSGPACK:
            message = msgspec.msgpack.decode(payload)
        else:
            message = json.loads(zlib.decompress(payload) if frame.binary else payload)
        assert (message["data"], frame.count) == (expected, count)


def test_an_action_is_read_from_messagepack_where_that_is_spoken() -> None:
    action = {"action": "subscribe", "id": 7, "symbols": ["000001.SZ"]}
    packed = msgspec.msgpack.encode(action)
    assert parse(packed, packed=True) == parse(json.dumps(action)) == Subscribe(id=7, symbols=["000001.SZ"])
    assert isinstance(parse(packed), Unreadable)


@given(st.binary(max_size=60))
def test_no_binary_message_raises(data: bytes) -> None:
    parse(data, packed=True)
