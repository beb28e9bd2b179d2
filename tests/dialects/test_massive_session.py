"""Massive's dialect without any I/O: its requests onto our subscriptions, our words as its statuses and events."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from massive.websocket.models import Market, parse

from argus import errors
from argus.errors import ArgusError
from marketdata.builder import LiveBar
from marketdata.compat.massive import minute_event, quote_event, trade_event
from marketdata.types import DataType, Period, Quote, Trade
from marketdata.universe import Resolution, Universe, resolve
from streaming.codecs import Head
from streaming.dialects.massive import CHANNELS, MassiveSession
from streaming.dialects.massive_codec import JSON, STATUSES
from streaming.protocol import Epoch, Failure, Finished, Goodbye, Heartbeat
from streaming.selection import Selection
from streaming.session import MAX_REFUSED, Authenticate, Close, Cover, Effect, Reply
from tests.streaming.principals import principal

NOW = 1_700_000_000_000
UNIVERSE = Universe(symbols=("000001.SZ", "600000.SH", "600519.SH", "000001.SH"), sectors={"few": ("600519.SH",)})


def written(message: Any) -> list[dict[str, Any]]:
    """What the client gets of a message."""
    frame = JSON.encode(message)
    assert frame is not None
    assert not frame.binary
    statuses: list[dict[str, Any]] = json.loads(frame.payload())
    assert all(set(status) == {"ev", "status", "message"} and status["ev"] == "status" for status in statuses)
    return statuses


class Client:
    """The other end of a session."""

    def __init__(self, *, authenticated: bool = True, **limits: Any) -> None:
        self.session = MassiveSession(self._resolve, lambda: NOW, JSON)
        self.covered: dict[str, Selection] = {}
        if authenticated:
            self.session.accept(principal(**limits), id=None, quota=None)

    def _resolve(self, words: Sequence[str]) -> Resolution:
        return resolve(words, UNIVERSE)

    def take(self, effects: Sequence[Effect]) -> list[tuple[str, str]]:
        for effect in effects:
            if isinstance(effect, Cover):
                self.covered = dict(effect.selections)
        told = [status for effect in effects if isinstance(effect, Reply) for status in written(effect.message)]
        return [(status["status"], status["message"]) for status in told]

    def ask(self, action: str, params: str) -> list[tuple[str, str]]:
        return self.take(self.session.receive(json.dumps({"action": action, "params": params})))

    def holds(self) -> dict[str, set[str] | None]:
        """Channel -> its symbols, None for all."""
        return {
            channel: None if selection.symbols is None else set(selection.symbols) for channel, selection in self.covered.items()
        }


# Authentication


def hello(session: MassiveSession, shown: Any = None) -> list[Effect]:
    return session.connected(shown, connection_id="c", streams={}, heartbeat_interval=30.0, quota=None)


def test_the_conversation_begins_as_massive_s() -> None:
    client = Client(authenticated=False)
    assert client.take(hello(client.session)) == [("connected", "Connected Successfully")]
    assert client.session.receive('{"action":"auth","params":"argus_k"}') == [Authenticate(None, "argus_k")]
    assert client.take(client.session.accept(principal(), id=None, quota=None)) == [("auth_success", "authenticated")]


def test_a_client_whose_header_has_shown_a_key_is_answered_when_it_sends_one_as_well() -> None:
    client = Client(authenticated=False)
    assert client.take(hello(client.session, principal())) == [("connected", "Connected Successfully")]
    assert client.ask("auth", "argus_k") == [("auth_success", "authenticated already")]
    assert client.ask("subscribe", "Q.600519.SH")[0][0] == "success"


def test_a_key_that_is_not_good_is_auth_failed() -> None:
    client = Client(authenticated=False)
    effects = client.session.refuse(ArgusError(errors.KEY_INVALID), id=None)
    assert client.take(effects) == [("auth_failed", "The API key is not known.")]
    assert effects[-1] == Close(errors.KEY_INVALID)


def test_nothing_is_served_before_a_key_and_a_stranger_is_closed_in_the_end() -> None:
    client = Client(authenticated=False)
    for _ in range(MAX_REFUSED - 1):
        assert client.ask("subscribe", "Q.*") == [("auth_failed", "Send auth first.")]
    effects = client.session.receive('{"action":"subscribe","params":"Q.*"}')
    assert effects[-1] == Close(errors.NOT_AUTHENTICATED)
    assert client.covered == {}


# Subscriptions


def test_each_parameter_is_answered_and_the_prefix_ends_at_the_first_dot() -> None:
    client = Client()
    assert client.ask("subscribe", "T.600519.SH, Q.*,AM.sz000001") == [
        ("success", "subscribed to: T.600519.SH"),
        ("success", "subscribed to: Q.*"),
        ("success", "subscribed to: AM.sz000001"),
    ]
    assert client.holds() == {"T": {"600519.SH"}, "Q": None, "AM": {"000001.SZ"}}
    assert {channel: set(selection.data_types) for channel, selection in client.covered.items()} == {
        "T": {DataType.TRADE},
        "Q": {DataType.QUOTE},
        "AM": {DataType.KLINE_1M},
    }


def test_channels_grow_and_shrink_on_their_own() -> None:
    client = Client()
    client.ask("subscribe", "Q.600519.SH,AM.600519.SH")
    client.ask("subscribe", "Q.600000.SH")
    assert client.holds() == {"Q": {"600519.SH", "600000.SH"}, "AM": {"600519.SH"}}
    assert client.ask("unsubscribe", "Q.600519.SH,AM.600519.SH") == [
        ("success", "unsubscribed to: Q.600519.SH"),
        ("success", "unsubscribed to: AM.600519.SH"),
    ]
    assert client.holds() == {"Q": {"600000.SH"}}


def test_the_star_is_taken_out_alone_where_it_was_asked_for() -> None:
    """As the Python client goes from everything to one ticker: it subscribes first."""
    client = Client()
    client.ask("subscribe", "Q.*")
    client.ask("subscribe", "Q.600519.SH")
    assert client.ask("unsubscribe", "Q.*") == [("success", "unsubscribed to: Q.*")]
    assert client.holds() == {"Q": {"600519.SH"}}


def test_the_star_takes_all_of_a_channel_out_where_tickers_were_named() -> None:
    client = Client()
    client.ask("subscribe", "Q.600519.SH,Q.600000.SH,T.600519.SH")
    client.ask("unsubscribe", "Q.*")
    assert client.holds() == {"T": {"600519.SH"}}


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ("A.600519.SH", "no aggregates of a second"),
        ("LULD.*", "not told here"),
        ("FMV.600519.SH", "no fair market value"),
        ("XT.600519.SH", "no channel 'XT'; there is T, Q, AM"),
        ("600519.SH", "no channel '600519'"),
        ("T", "write T.600519.SH"),
        ("T.", "write T.600519.SH"),
        (".", "no channel ''"),
        ("Q.999999.SH", "not quoted"),
        ("Q.AAPL", "Q.AAPL: "),
        ("Q.sector:none", "no sector"),
        ("Q." + "9" * 100_000, "longer than"),
        ("x" * 100_000, "no channel"),
    ],
)
def test_what_cannot_be_had_is_an_error_and_the_rest_is_subscribed(params: str, says: str) -> None:
    client = Client()
    (refused,) = client.ask("subscribe", params)
    assert refused[0] == "error"
    assert says in refused[1]
    assert len(refused[1]) < 400
    assert client.covered == {}
    first, second = client.ask("subscribe", f"{params},Q.600519.SH")
    assert (first, second) == (refused, ("success", "subscribed to: Q.600519.SH"))
    assert client.holds() == {"Q": {"600519.SH"}}


def test_a_limit_refuses_a_channel_and_names_its_parameters() -> None:
    client = Client(symbols=2)
    (refused, taken) = client.ask("subscribe", "Q.*,AM.600519.SH")
    assert refused[0] == "error"
    assert refused[1].startswith("Q.*: ")
    assert "allows 2 symbols" in refused[1]
    assert taken == ("success", "subscribed to: AM.600519.SH")
    many = ",".join(f"T.{code:06}.SZ" for code in range(6001))
    ((status, message),) = client.ask("subscribe", many)
    assert (status, "and 5996 more" in message) == ("error", True)
    assert client.holds() == {"AM": {"600519.SH"}}


def test_a_plan_without_a_data_type_refuses_its_channel() -> None:
    client = Client(data_types=("quote",))
    refused, taken = client.ask("subscribe", "T.600519.SH,Q.600519.SH")
    assert (refused[0], "not trade" in refused[1]) == ("error", True)
    assert taken[0] == "success"


def test_what_was_not_subscribed_cannot_be_taken_out() -> None:
    client = Client()
    assert [status for status, _ in client.ask("unsubscribe", "Q.600519.SH")] == ["error"]
    client.ask("subscribe", "Q.600519.SH")
    assert client.ask("unsubscribe", "Q.600000.SH,Q.600519.SH") == [
        ("error", "Q.600000.SH: this subscription does not name the symbol"),
        ("success", "unsubscribed to: Q.600519.SH"),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"action":"dance","params":"Q.*"}', "no action 'dance'"),
        ('{"action":"subscribe","params":""}', "names nothing"),
        ('{"action":"subscribe","params":" , "}', "names nothing"),
        ('{"action":"subscribe"}', "names nothing"),
        ('{"action":"subscribe","params":["Q.*"]}', "both texts"),
        ('{"params":"Q.*"}', "both texts"),
        ("[]", "both texts"),
        ("{", "both texts"),
        ('{"x":' + "[" * 100_000, "both texts"),
        (b"\x81", "binary"),
    ],
)
def test_what_cannot_be_read_is_an_error_and_the_connection_goes_on(text: str | bytes, says: str) -> None:
    client = Client()
    ((status, message),) = client.take(client.session.receive(text))
    assert (status, says in message) == ("error", True), message
    assert client.ask("subscribe", "Q.600519.SH")[0][0] == "success"


words = st.sampled_from(
    ["T.600519.SH", "Q.*", "AM.000001", "AM.000001.SZ", "Q.600000.SH", "A.*", "T", "Q.", "Q.sector:few", "\ud800", "Q.\0", "."]
)
parameters = st.lists(words | st.text(max_size=12), max_size=6).map(",".join)
requests = (
    st.text()
    | st.binary()
    | st.builds(
        lambda action, params: json.dumps({"action": action, "params": params}),
        st.sampled_from(["auth", "subscribe", "unsubscribe", "x"]),
        parameters | st.none() | st.integers(),
    )
)


@given(authenticated=st.booleans(), messages=st.lists(requests, max_size=8))
def test_whatever_a_client_sends_is_answered_and_told_as_it_is(authenticated: bool, messages: list[str | bytes]) -> None:
    client = Client(authenticated=authenticated)
    for message in messages:
        effects = client.session.receive(message)
        assert effects
        assert client.take(effects) or all(isinstance(effect, Authenticate) for effect in effects)
        assert set(client.session.book) <= set(CHANNELS)
        assert client.holds() == {
            name: None if item.everything else set(item.symbols) for name, item in client.session.book.items()
        }


# What the server says of its own


def test_errors_are_told_as_statuses() -> None:
    told = {problem.name: written(Failure(ArgusError(problem)))[0]["status"] for problem in errors.PROBLEMS}
    assert {name: status for name, status in told.items() if status != "error"} == STATUSES


def test_what_massive_has_no_words_for_is_not_told() -> None:
    assert JSON.encode(Heartbeat(server_time=NOW, streams={}, stale=False)) is None
    assert JSON.encode(Epoch(feed="main", epoch=2, seq=0, previous={}, recovered=True)) is None
    assert written(Goodbye(reason="restart", reconnect_after_ms=100)) == [
        {"ev": "status", "status": "force_disconnect", "message": "restart: reconnect"}
    ]
    assert written(Finished(time=NOW))[0]["status"] == "success"


# Events


def read(*events: bytes | None) -> list[Any]:
    """What Massive's own client makes of them."""
    pieces = [event for event in events if event is not None]
    frame = JSON.frame(JSON.head(Head("main", 1, 1)), pieces)
    assert frame.count == len(pieces)
    return parse(json.loads(frame.payload()), logging.getLogger("test"), Market.Stocks)


def fragment(value: Any, seq: int = 7) -> bytes:
    return msgspec.json.encode(value)[:-1] + b',"seq":%d}' % seq


def test_a_quote_is_its_best_levels() -> None:
    book = {"bid_price": (9.99, 9.98), "bid_volume": (300, 500), "ask_price": (10.01,), "ask_volume": (200,)}
    (event,) = read(quote_event(fragment(Quote(symbol="600519.SH", time=NOW, price=10.0, source="test", **book))))
    assert (event.event_type, event.symbol, event.timestamp, event.sequence_number) == ("Q", "600519.SH", NOW, 7)
    assert (event.bid_price, event.bid_size, event.ask_price, event.ask_size) == (9.99, 300, 10.01, 200)


def test_a_side_that_is_empty_is_left_out_and_a_quote_without_a_book_is_not_told() -> None:
    at_the_limit = Quote(symbol="600519.SH", time=NOW, bid_price=(11.0,), bid_volume=(9,), source="test")
    (event,) = read(quote_event(fragment(at_the_limit)))
    assert (event.bid_price, event.ask_price, event.ask_size) == (11.0, None, None)
    assert quote_event(fragment(Quote(symbol="000001.SH", time=NOW, price=3000.0, source="test"))) is None


def test_a_trade_has_the_exchange_s_number() -> None:
    trade = Trade(symbol="600519.SH", time=NOW, index=4711, price=1408.8, volume=100, source="test")
    (event,) = read(trade_event(fragment(trade)))
    assert (event.event_type, event.symbol, event.price, event.size, event.timestamp) == ("T", "600519.SH", 1408.8, 100, NOW)
    assert (event.id, event.sequence_number) == ("4711", 4711)


def minute(**fields: Any) -> LiveBar:
    return LiveBar(
        **{
            "symbol": "600519.SH",
            "period": Period.M1,
            "time": NOW,
            "open": 10.0,
            "high": 10.2,
            "low": 9.9,
            "close": 10.1,
            "volume": 200,
            "amount": 2010.0,
            "closed": True,
            "provisional": True,
            "source": "test",
        }
        | fields
    )


def test_a_minute_that_has_closed_is_told_from_its_beginning_to_its_end() -> None:
    (event,) = read(minute_event(fragment(minute())))
    assert (event.event_type, event.symbol) == ("AM", "600519.SH")
    assert (event.open, event.high, event.low, event.close, event.volume, event.vwap) == (10.0, 10.2, 9.9, 10.1, 200, 10.05)
    assert (event.start_timestamp, event.end_timestamp) == (NOW - 60_000, NOW)
    (bare,) = read(minute_event(fragment(minute(volume=None, amount=None))))
    assert (bare.volume, bare.vwap) == (None, None)
    (index,) = read(minute_event(fragment(minute(symbol="000001.SH"))))
    assert index.vwap is None, "an index is not amount over volume"


def test_a_minute_that_forms_is_not_told() -> None:
    assert minute_event(fragment(minute(closed=False))) is None


numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 2**53)
levels = st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 2**53)), max_size=10)


@given(bids=levels, asks=levels, price=numbers, volume=st.none() | st.integers(0, 2**53), amount=numbers)
def test_every_quote_and_bar_can_be_told(bids: Any, asks: Any, price: Any, volume: Any, amount: Any) -> None:
    sides: dict[str, Any] = {}
    for side, rows in (("bid", bids), ("ask", asks)):
        sides |= {f"{side}_price": tuple(row[0] for row in rows), f"{side}_volume": tuple(row[1] for row in rows)}
    quote = Quote(symbol="600519.SH", time=NOW, price=price, volume=volume, amount=amount, source="test", **sides)
    assert len(read(quote_event(fragment(quote)))) == bool(bids or asks)
    assert len(read(minute_event(fragment(minute(volume=volume, amount=amount))))) == 1
