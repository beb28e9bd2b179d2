"""Alpaca's session without a network: its messages, its full state, its errors; nothing that a client sends makes it raise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest
from django.utils.translation import override
from hypothesis import given
from hypothesis import strategies as st

from argus.access.principal import DATA_TYPES
from argus.errors import PROBLEMS, ArgusError
from marketdata import universe
from marketdata.builder import LiveBar
from marketdata.compat import alpaca
from marketdata.types import DataType, Period, Quote, Side, Trade
from marketdata.universe import Universe
from streaming.dialects.alpaca import CHANNELS, AlpacaSession, Change
from streaming.dialects.alpaca_codec import JSON, MSGPACK
from streaming.dialects.alpaca_errors import CODES, MESSAGES, error_of
from streaming.protocol import Auth, Heartbeat
from streaming.selection import Frequency
from streaming.session import Authenticate, Close, Cover, Effect, Reply
from tests.streaming.principals import principal

MOUTAI, PUFA, PINGAN = "600519.SH", "600000.SH", "000001.SZ"
UNIVERSE = Universe(symbols=(MOUTAI, PUFA, PINGAN), sectors={"few": (PUFA, PINGAN)})
KEY = "argus_abcd1234_" + "A" * 43
CONNECTED: dict[str, Any] = {"connection_id": "c", "streams": {}, "heartbeat_interval": 30.0, "quota": None}


def session(*, feed: str = "sip", authenticated: bool = True, **limits: Any) -> AlpacaSession:
    made = AlpacaSession(lambda words: universe.resolve(words, UNIVERSE), lambda: 0, JSON)
    made.feed = feed
    made.connected(principal(**limits) if authenticated else None, **CONNECTED)
    return made


def said(effects: Sequence[Effect], codec: Any = JSON) -> list[dict[str, Any]]:
    """The messages, each of which came alone in its array."""
    frames = [codec.encode(effect.message) for effect in effects if isinstance(effect, Reply)]
    messages = [json.loads(frame.payload()) if codec is JSON else msgpack.unpackb(frame.payload()) for frame in frames if frame]
    assert all(len(message) == 1 for message in messages)
    return [message[0] for message in messages]


def ask(made: AlpacaSession, **message: Any) -> list[dict[str, Any]]:
    return said(made.receive(json.dumps(message)))


def code(made: AlpacaSession, data: str | bytes) -> int:
    """The code of the one error with which a message is answered."""
    (error,) = said(made.receive(data))
    assert (error["T"], error["msg"]) == ("error", MESSAGES[error["code"]])
    return int(error["code"])


def subscription(**channels: list[str]) -> dict[str, Any]:
    """The full state, as Alpaca tells it."""
    trades = channels.get("trades", [])
    empty: dict[str, Any] = {"T": "subscription", **{channel: [] for channel in CHANNELS}, "lulds": []}
    return empty | {"corrections": trades, "cancelErrors": trades} | channels


def cover(effects: Sequence[Effect]) -> Cover:
    (found,) = [effect for effect in effects if isinstance(effect, Cover)]
    return found


def test_the_welcome_is_one_message_and_a_second_one_where_the_handshake_showed_a_key() -> None:
    made = session(authenticated=False)
    assert said(made.connected(None, **CONNECTED)) == [{"T": "success", "msg": "connected"}]
    both = [{"T": "success", "msg": "connected"}, {"T": "success", "msg": "authenticated"}]
    assert said(made.connected(principal(), **CONNECTED)) == both


@pytest.mark.parametrize(
    "message",
    [
        {"action": "auth", "key": "PK1", "secret": KEY},
        {"action": "auth", "key": KEY, "secret": "anything"},
        {"action": "auth", "key": "oauth", "secret": KEY},
        {"action": "auth", "key": KEY},
    ],
)
def test_the_key_may_be_the_secret_or_the_id(message: dict[str, Any]) -> None:
    made = session(authenticated=False)
    assert made.read(json.dumps(message)) == made.read(msgpack.packb(message)) == Auth(key=KEY)
    (effect,) = made.receive(json.dumps(message))
    assert isinstance(effect, Authenticate)
    assert said(made.accept(principal(), id=None, quota=None)) == [{"T": "success", "msg": "authenticated"}]
    assert code(made, json.dumps(message)) == 403


@pytest.mark.parametrize("shown", [{}, {"key": 1, "secret": KEY}, {"secret": ""}, {"key": None}, {"secret": "x" * 300}])
def test_an_auth_without_a_key_is_not_understood(shown: dict[str, Any]) -> None:
    assert code(session(authenticated=False), json.dumps({"action": "auth", **shown})) == 400


@pytest.mark.parametrize("feed", ["delayed_sip", "boats", "x"])
def test_another_feed_is_refused_when_the_key_is_known(feed: str) -> None:
    made = session(feed=feed, authenticated=False)
    effects = made.accept(principal(), id=None, quota=None)
    (error,) = said(effects)
    assert (error["code"], error["msg"]) == (409, "insufficient subscription")
    assert isinstance(effects[-1], Close)
    assert made.principal is None
    assert said(session(authenticated=False).connected(principal(), **CONNECTED))[-1]["msg"] == "authenticated"


def test_every_answer_has_the_full_state() -> None:
    made = session()
    assert ask(made, action="subscribe", trades=[MOUTAI], quotes=[PUFA, PINGAN], bars=["*"]) == [
        subscription(trades=[MOUTAI], quotes=[PINGAN, PUFA], bars=["*"])
    ]
    assert ask(made, action="subscribe", statuses=["sh600519"], dailyBars=[MOUTAI], updatedBars=[PUFA], lulds=[]) == [
        subscription(
            trades=[MOUTAI],
            quotes=[PINGAN, PUFA],
            bars=["*"],
            statuses=[MOUTAI],
            dailyBars=[MOUTAI],
            updatedBars=[PUFA],
        )
    ]
    assert ask(made, action="unsubscribe", bars=["*"], quotes=[PUFA, MOUTAI], trades=[MOUTAI], updatedBars=["nonsense"]) == [
        subscription(quotes=[PINGAN], statuses=[MOUTAI], dailyBars=[MOUTAI], updatedBars=[PUFA])
    ]
    assert ask(made, action="unsubscribe", statuses=["*"], lulds=[]) == [
        subscription(quotes=[PINGAN], statuses=[MOUTAI], dailyBars=[MOUTAI], updatedBars=[PUFA])
    ]


def test_channels_are_our_data_types() -> None:
    made = session()
    selections = cover(
        made.receive(json.dumps({"action": "subscribe", **{channel: [MOUTAI] for channel in CHANNELS}}))
    ).selections
    assert {name: (set(item.data_types), item.frequency) for name, item in selections.items()} == {
        "trades": ({DataType.TRADE}, Frequency.REALTIME),
        "quotes": ({DataType.QUOTE}, Frequency.REALTIME),
        "bars": ({DataType.KLINE_1M}, Frequency.M1),
        "updatedBars": ({DataType.KLINE_1M}, Frequency.M1),
        "dailyBars": ({DataType.KLINE_1D}, Frequency.M1),
        "statuses": ({DataType.STATUS}, Frequency.REALTIME),
    }
    everything = cover(made.receive(json.dumps({"action": "subscribe", "quotes": ["*"]}))).selections
    assert everything["quotes"].symbols is None


def test_what_is_no_symbol_is_told_and_the_rest_subscribed() -> None:
    made = session()
    error, state = ask(made, action="subscribe", quotes=[MOUTAI, "999999.SH"], trades=["nonsense"])
    assert (error["T"], error["code"]) == ("error", 400)
    assert "999999.SH" in error["detail"]
    assert state == subscription(quotes=[MOUTAI])
    assert code(made, json.dumps({"action": "subscribe", "quotes": ["nonsense"]})) == 400
    assert ask(made, action="subscribe") == [subscription(quotes=[MOUTAI])]


@pytest.mark.parametrize("limits", [{"symbols": 2}, {"data_types": frozenset({"quote", "trade"})}])
def test_beyond_the_plan_nothing_is_changed(limits: dict[str, Any]) -> None:
    made = session(**limits)
    ask(made, action="subscribe", quotes=[MOUTAI])
    expected = 405 if "symbols" in limits else 409
    assert code(made, json.dumps({"action": "subscribe", "trades": [PUFA], "bars": ["*"]})) == expected
    assert ask(made, action="subscribe") == [subscription(quotes=[MOUTAI])]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("", 400),
        ("[]", 400),
        ('{"action":"dance"}', 400),
        ('{"action":"subscribe","quotes":"600519.SH"}', 400),
        ('{"action":"subscribe","quotes":[1]}', 400),
        ('{"action":"subscribe","lulds":["600519.SH"]}', 410),
        ('{"action":"subscribe","imbalances":["*"]}', 410),
        ('{"action":"subscribe","corrections":["600519.SH"]}', 410),
        ('{"action":"subscribe","orderbooks":["600519.SH"]}', 410),
        ('{"action":"unsubscribe","news":["*"]}', 410),
        (b"\xc1", 400),
        (b"\x81\x01\x02", 400),
        ('{"action":' + "[" * 100_000, 400),
    ],
)
def test_what_is_not_understood_has_alpaca_s_code(data: str | bytes, expected: int) -> None:
    assert code(session(), data) == expected


def test_without_a_key_nothing_is_subscribed_and_patience_ends() -> None:
    made = session(authenticated=False)
    message = json.dumps({"action": "subscribe", "quotes": [MOUTAI]})
    assert code(made, message) == 401
    assert made.book == {}
    last: Sequence[Effect] = ()
    for _ in range(7):
        last = made.receive(message)
    assert isinstance(last[-1], Close)
    (error,) = said(session(authenticated=False).timed_out())
    assert (error["code"], error["msg"]) == (404, "auth timeout")


texts = st.text(max_size=12) | st.sampled_from([MOUTAI, PUFA, "*", "sector:few", "market:SH", "nonsense", ""])
values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | texts, lambda inner: st.lists(inner, max_size=4))
names = st.sampled_from([*CHANNELS, "lulds", "corrections", "action", "key", "secret", "id"]) | st.text(max_size=8)
actions = st.sampled_from(["auth", "subscribe", "unsubscribe", "dance"]) | values
fields = st.dictionaries(names, values | st.lists(texts, max_size=4), max_size=5)
objects = st.builds(lambda action, rest: {**rest, "action": action}, actions, fields)
packed = objects.map(lambda item: msgpack.packb(item, default=str, unicode_errors="surrogatepass") if _fits(item) else b"\xc0")
messages = st.text() | st.binary() | objects.map(json.dumps) | packed


def _fits(item: Any) -> bool:
    """Whether MessagePack has numbers that large."""
    try:
        msgpack.packb(item, unicode_errors="surrogatepass")
    except (OverflowError, ValueError):
        return False
    return True


@given(st.lists(messages, max_size=8), st.booleans())
def test_nothing_that_a_client_sends_makes_it_raise(received: list[str | bytes], authenticated: bool) -> None:
    made = session(authenticated=authenticated, symbols=2)
    for data in received:
        effects = made.receive(data)
        assert effects
        for codec in (JSON, MSGPACK):
            for message in said(effects, codec):
                assert message["T"] in ("success", "error", "subscription")
        if any(isinstance(effect, Authenticate) for effect in effects):
            made.accept(principal(symbols=2), id=None, quota=None)
        state = said(effects)[-1:] if made.principal else []
        if state and state[0]["T"] == "subscription":
            assert {channel: len(state[0][channel]) for channel in CHANNELS if state[0][channel]} == {
                channel: len(item.names) + len(item.groups) for channel, item in made.book.items()
            }


def test_an_answer_in_messagepack_says_the_same() -> None:
    made = session()
    effects = made.receive(msgpack.packb({"action": "subscribe", "quotes": [MOUTAI]}))
    assert said(effects, MSGPACK) == said(effects, JSON) == [subscription(quotes=[MOUTAI])]
    assert isinstance(made.read('{"action":"subscribe"}'), Change)


def test_what_alpaca_has_no_words_for_is_not_told() -> None:
    heartbeat = Heartbeat(server_time=0, streams={}, stale=False)
    assert JSON.encode(heartbeat) is None
    assert MSGPACK.encode(heartbeat) is None


def fragment(item: msgspec.Struct) -> bytes:
    return msgspec.json.encode(item)[:-1] + b',"seq":7}'


TIME = 1_782_441_002_123
STAMP = datetime.fromtimestamp(TIME / 1000, UTC)
MARKET = {"c": [], "z": "SH"}
QUOTE = Quote(
    symbol=MOUTAI,
    time=TIME,
    price=1408.88,
    bid_price=(1408.8,),
    bid_volume=(300,),
    ask_price=(1408.9,),
    ask_volume=(100,),
    source="t",
)


def bar(**fields: Any) -> LiveBar:
    known: dict[str, Any] = {
        "symbol": MOUTAI,
        "period": Period.M1,
        "time": 1_782_441_060_000,
        "closed": True,
        "provisional": True,
    }
    prices = {
        "open": 1400.0,
        "high": 1410.0,
        "low": 1399.0,
        "close": 1405.0,
        "volume": 1000,
        "amount": 1_404_000.0,
        "source": "t",
    }
    return LiveBar(**(known | prices | fields))


def status(**fields: Any) -> bytes:
    known = {"type": "status", "symbol": MOUTAI, "time": TIME, "status": "continuous", "limit": None}
    return json.dumps(known | {"limit_up": 1549.0, "limit_down": 1268.0, "source": "t", "seq": 7} | fields).encode()


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=lambda codec: str(codec.name))
@pytest.mark.parametrize(
    ("data_type", "given_fragment", "expected"),
    [
        (
            DataType.QUOTE,
            fragment(QUOTE),
            {
                "T": "q",
                "S": MOUTAI,
                "bx": "SH",
                "bp": 1408.8,
                "bs": 300,
                "ax": "SH",
                "ap": 1408.9,
                "as": 100,
                "t": STAMP,
                **MARKET,
            },
        ),
        (
            DataType.QUOTE,
            fragment(msgspec.structs.replace(QUOTE, ask_price=(), ask_volume=())),
            {"T": "q", "S": MOUTAI, "bx": "SH", "bp": 1408.8, "bs": 300, "ax": "", "ap": 0, "as": 0, "t": STAMP, **MARKET},
        ),
        (DataType.QUOTE, fragment(msgspec.structs.replace(QUOTE, bid_price=(), ask_price=())), None),
        (
            DataType.TRADE,
            fragment(Trade(symbol=MOUTAI, time=TIME, index=9, price=1408.8, volume=200, side=Side.SELL, source="t")),
            {"T": "t", "S": MOUTAI, "i": 9, "x": "SH", "p": 1408.8, "s": 200, "t": STAMP, "tks": "S", **MARKET},
        ),
        (
            DataType.KLINE_1M,
            fragment(bar()),
            {"T": "b", "S": MOUTAI, "o": 1400.0, "h": 1410.0, "l": 1399.0, "c": 1405.0, "v": 1000, "n": None, "vw": 1404.0}
            | {"t": datetime(2026, 6, 26, 2, 30, tzinfo=UTC)},
        ),
        (DataType.KLINE_1M, fragment(bar(closed=False)), None),
        (DataType.KLINE_1M, fragment(bar(volume=None)), None),
        (
            DataType.KLINE_1D,
            fragment(bar(period=Period.D1, time=1_782_457_200_000, closed=False)),
            {"T": "d", "S": MOUTAI, "o": 1400.0, "h": 1410.0, "l": 1399.0, "c": 1405.0, "v": 1000, "n": None, "vw": 1404.0}
            | {"t": datetime(2026, 6, 25, 16, tzinfo=UTC)},
        ),
        (
            DataType.STATUS,
            status(),
            {"T": "s", "S": MOUTAI, "sc": "T", "sm": "Trading Resumption", "rc": "", "rm": "", "t": STAMP, "z": "SH"},
        ),
        (
            DataType.STATUS,
            status(limit="up"),
            {"T": "s", "S": MOUTAI, "sc": "T", "sm": "Trading Resumption", "rc": "LU", "rm": "Limit Up", "t": STAMP, "z": "SH"},
        ),
        (
            DataType.STATUS,
            status(status="halted"),
            {"T": "s", "S": MOUTAI, "sc": "H", "sm": "Trading Halt", "rc": "", "rm": "", "t": STAMP, "z": "SH"},
        ),
        (
            DataType.STATUS,
            status(status="after_hours"),
            {"T": "s", "S": MOUTAI, "sc": "after_hours", "sm": "After Hours", "rc": "", "rm": "", "t": STAMP, "z": "SH"},
        ),
    ],
)
def test_our_objects_in_alpaca_s_words(
    codec: Any, data_type: DataType, given_fragment: bytes, expected: dict[str, Any] | None
) -> None:
    written = codec.fragment(data_type, given_fragment)
    if expected is None:
        assert written is None
        return
    frame = codec.frame(b"[" if codec is JSON else b"", [written] * 20)
    assert frame.count == 20
    if codec is JSON:
        found = json.loads(frame.payload())
        for item in found:
            item["t"] = datetime.fromisoformat(item["t"])
    else:
        found = msgpack.unpackb(frame.payload())
        for item in found:
            item["t"] = item["t"].to_datetime()
    assert found == [expected] * 20


def test_a_bar_that_the_source_has_settled_is_an_update() -> None:
    assert (alpaca.bar_message(fragment(bar(provisional=False))) or {})["T"] == "u"


def test_every_data_type_that_can_be_asked_for_has_words() -> None:
    asked_for = {data_type for data_type, _ in CHANNELS.values()}
    for data_type in asked_for:
        assert data_type in DATA_TYPES
    assert set(CODES.values()) | {500} == set(MESSAGES)


def test_every_problem_of_ours_has_a_code() -> None:
    for problem in PROBLEMS:
        told = error_of(ArgusError(problem, "why"))
        assert (told["T"], told["detail"]) == ("error", "why")
        assert told["msg"] == MESSAGES[told["code"]]


def test_an_error_is_the_same_to_whoever_reads_it() -> None:
    told = {}
    for language in ("en", "zh-hans"):
        with override(language):
            told[language] = [error_of(ArgusError(problem)) for problem in PROBLEMS]
    assert told["zh-hans"] == told["en"]
    assert {error["code"] for error in told["en"]} == set(MESSAGES)


def test_the_page_of_the_dialects_has_the_table_of_codes() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "dialects.md").read_text(encoding="utf-8")
    for code, text in MESSAGES.items():
        names = [problem.name for problem in PROBLEMS if CODES.get(problem.name) == code]
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {code} | {text} |")]
        assert {word.strip("` ") for word in row.split("|")[3].split(",")} == (set(names) or {"all others"})
