"""A session: what a client may ask for when, and that a refused request leaves no trace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from argus.access.principal import MESSAGES_PER_SECOND, SUBSCRIPTIONS
from argus.errors import AUTH_TIMEOUT, KEY_INVALID, NOT_AUTHENTICATED, ArgusError
from marketdata.types import DataType
from marketdata.universe import Resolution, Universe, resolve
from streaming.codecs import JSON
from streaming.filters import Filter, QuoteField
from streaming.protocol import Position
from streaming.selection import Frequency, Selection
from streaming.session import MAX_REFUSED, Authenticate, Close, Cover, Effect, Reply, Restore, Session
from streaming.subscriptions import MAX_NAMED, MAX_REJECTED, MAX_SUBSCRIPTIONS, MAX_SYMBOLS_PER_MESSAGE, saved
from tests.streaming.principals import principal

NOW = 1_700_000_000_000
UNIVERSE = Universe(
    symbols=("000001.SZ", "000002.SZ", "300750.SZ", "600000.SH", "600519.SH", "510300.SH"),
    sectors={"沪深300": ("600519.SH", "300750.SZ"), "银行": ("000001.SZ", "600000.SH")},
    names={"600519.SH": "贵州茅台"},
)


class Client:
    """The other end of a session."""

    def __init__(self, *, authenticated: bool = True, universe: Universe = UNIVERSE, **limits: Any) -> None:
        self.universe = universe
        self.session = Session(self._resolve, lambda: NOW)
        self.covered: dict[str, Selection] = {}
        if authenticated:
            self.session.accept(principal(**limits), id=None, quota=None)

    def _resolve(self, words: Sequence[str]) -> Resolution:
        return resolve(words, self.universe)

    def take(self, effects: Sequence[Effect]) -> list[dict[str, Any]]:
        """The messages among the effects."""
        for effect in effects:
            if isinstance(effect, Cover):
                self.covered = dict(effect.selections)
        return [json.loads(JSON.text(effect.message)) for effect in effects if isinstance(effect, Reply)]

    def ask(self, action: str, **fields: Any) -> dict[str, Any]:
        """Send one action; its one answer."""
        (answer,) = self.take(self.session.receive(json.dumps({"action": action, **fields})))
        return answer

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.ask("subscriptions")["subscriptions"]
        return state


def selection(*symbols: str, types: tuple[str, ...] = ("quote",), frequency: Frequency = Frequency.REALTIME) -> Selection:
    return Selection(symbols=frozenset(symbols), data_types=frozenset(DataType(word) for word in types), frequency=frequency)


# Authentication


@pytest.mark.parametrize("action", ["subscribe", "update", "unsubscribe", "subscriptions", "resume"])
def test_nothing_is_served_before_authentication(action: str) -> None:
    client = Client(authenticated=False)
    needed = {"symbols": ["*"]} if action == "subscribe" else {}
    assert client.ask(action, id=4, **needed)["name"] == "not_authenticated"
    assert client.covered == {}


def test_a_ping_is_answered_before_authentication() -> None:
    assert Client(authenticated=False).ask("ping", id="p") == {"type": "pong", "id": "p", "server_time": NOW}


def test_a_key_is_handed_on_to_be_checked() -> None:
    session = Client(authenticated=False).session
    assert session.receive('{"action":"auth","id":1,"key":"argus_k"}') == [Authenticate(1, "argus_k")]


def test_an_accepted_key_is_told_its_limits() -> None:
    client = Client(authenticated=False)
    (answer,) = client.take(client.session.accept(principal(symbols=50), id=1, quota=None))
    assert (answer["type"], answer["id"]) == ("authenticated", 1)
    assert answer["limits"] == {
        "requests_per_minute": 600,
        "connections": 5,
        "symbols": 50,
        "data_types": sorted(DataType),
        "subscriptions": MAX_SUBSCRIPTIONS,
        "symbols_per_message": MAX_SYMBOLS_PER_MESSAGE,
        "key_subscriptions": SUBSCRIPTIONS,
        "messages_per_second": MESSAGES_PER_SECOND,
    }


def test_a_refused_key_closes_with_the_problems_close_code() -> None:
    effects = Client(authenticated=False).session.refuse(ArgusError(KEY_INVALID), id=1)
    assert effects[-1] == Close(KEY_INVALID)


def test_a_second_key_is_refused() -> None:
    assert Client().ask("auth", key="argus_k")["name"] == "already_authenticated"


def test_the_time_for_a_key_ends() -> None:
    assert Client(authenticated=False).session.timed_out()[-1] == Close(AUTH_TIMEOUT)


def test_the_time_for_a_key_does_not_matter_once_it_is_accepted() -> None:
    assert Client().session.timed_out() == []


def test_a_stranger_is_refused_a_few_times_and_then_closed() -> None:
    session = Client(authenticated=False).session
    outcomes = [session.receive("{") for _ in range(MAX_REFUSED)]
    assert [len(effects) for effects in outcomes] == [1] * (MAX_REFUSED - 1) + [2]
    assert outcomes[-1][-1] == Close(NOT_AUTHENTICATED)


def test_a_client_with_a_key_may_be_refused_any_number_of_times() -> None:
    session = Client().session
    assert all(len(session.receive("{")) == 1 for _ in range(10 * MAX_REFUSED))


def test_the_first_message_says_who_is_connected() -> None:
    client = Client(authenticated=False)
    (hello,) = client.take(
        client.session.connected(
            principal(), connection_id="c1", streams={"main": {"epoch": 7, "seq": 3}}, heartbeat_interval=30.0, quota=None
        )
    )
    assert hello.pop("limits")["symbols"] == 500
    assert hello == {
        "type": "connected",
        "connection_id": "c1",
        "protocol": 1,
        "authenticated": True,
        "streams": {"main": {"epoch": 7, "seq": 3}},
        "server_time": NOW,
        "heartbeat_interval": 30.0,
    }


# Subscribing


def test_a_subscription_covers_its_symbols_in_whatever_form_they_are_written() -> None:
    client = Client()
    answer = client.ask("subscribe", id="1", symbols=["sz000001", "600519.XSHG", "贵州茅台", " 600000.SH "])
    assert answer == {
        "type": "subscribed",
        "id": "1",
        "subscription": "main",
        "symbols": ["000001.SZ", "600519.SH", "600000.SH"],
        "rejected": [],
        "subscriptions": {
            "main": {
                "symbols": ["000001.SZ", "600000.SH", "600519.SH"],
                "count": 3,
                "data_types": ["quote"],
                "update_frequency": "realtime",
            }
        },
    }
    assert client.covered == {"main": selection("000001.SZ", "600519.SH", "600000.SH")}


def test_the_answer_comes_before_the_data() -> None:
    effects = Client().session.receive('{"action":"subscribe","symbols":["600000.SH"]}')
    assert [type(effect) for effect in effects] == [Reply, Cover]


def test_groups_stand_for_their_members() -> None:
    client = Client()
    answer = client.ask("subscribe", symbols=["sector:银行", "market:SH"])
    assert answer["subscriptions"]["main"]["symbols"] == ["sector:银行", "market:SH"]
    assert answer["subscriptions"]["main"]["count"] == 4
    assert client.covered["main"].symbols == {"000001.SZ", "600000.SH", "600519.SH", "510300.SH"}


def test_a_star_covers_what_there_is_and_will_be() -> None:
    client = Client()
    assert client.ask("subscribe", symbols=["*"])["subscriptions"]["main"]["count"] == len(UNIVERSE.symbols)
    assert client.covered["main"].symbols is None


def test_what_cannot_be_taken_is_listed_with_its_reason() -> None:
    client = Client()
    answer = client.ask("subscribe", symbols=["600000.SH", "000003.SZ", "x y", "000001", "sector:none", "market:MARS"])
    assert answer["symbols"] == ["600000.SH"]
    assert {item["symbol"]: item["code"] for item in answer["rejected"]} == {
        "000003.SZ": 421,
        "x y": 422,
        "000001": 423,
        "sector:none": 424,
        "market:MARS": 424,
    }
    assert all(item["reason"] and item["name"] for item in answer["rejected"])


def test_a_request_of_which_nothing_can_be_taken_is_an_error() -> None:
    client = Client()
    answer = client.ask("subscribe", id=1, symbols=["000003.SZ", "x y"])
    assert (answer["type"], answer["code"], len(answer["rejected"])) == ("error", 421, 2)
    assert client.state() == {}


def test_subscribing_again_adds_symbols() -> None:
    client = Client()
    client.ask("subscribe", symbols=["600000.SH", "sector:银行"], data_types=["price"], update_frequency="1s")
    answer = client.ask("subscribe", symbols=["600519.SH"])
    assert answer["symbols"] == ["600519.SH"]
    assert client.covered == {"main": selection("600000.SH", "000001.SZ", "600519.SH", types=("price",), frequency=Frequency.S1)}


@pytest.mark.parametrize("terms", [{"data_types": ["quote", "price"]}, {"update_frequency": "5s"}])
def test_subscribing_again_does_not_change_the_terms(terms: dict[str, Any]) -> None:
    client = Client()
    client.ask("subscribe", symbols=["600000.SH"])
    answer = client.ask("subscribe", symbols=["600519.SH"], **terms)
    assert (answer["name"], answer["parameter"]) == ("invalid_argument", *terms)
    assert client.state()["main"]["symbols"] == ["600000.SH"]


def test_subscriptions_stand_beside_each_other() -> None:
    client = Client()
    client.ask("subscribe", subscription="a", symbols=["600000.SH"])
    client.ask("subscribe", subscription="b", symbols=["600000.SH"], data_types=["orderbook"], update_frequency="1m")
    assert client.covered == {
        "a": selection("600000.SH"),
        "b": selection("600000.SH", types=("orderbook",), frequency=Frequency.M1),
    }


# Filters


def test_a_filter_is_served_and_shown() -> None:
    client = Client()
    answer = client.ask("subscribe", symbols=["*"], filters={"min_price": 100, "only_changed": ["volume", "price"]})
    assert answer["subscriptions"]["main"]["filters"] == {"min_price": 100.0, "only_changed": ["price", "volume"]}
    chosen = Filter(min_price=100, only_changed=(QuoteField.PRICE, QuoteField.VOLUME))
    assert client.covered["main"].filter == chosen
    client.ask("subscribe", subscription="all", symbols=["600000.SH"], filters=None)
    assert client.covered["all"].filter is None
    assert "filters" not in client.state()["all"]


def test_subscribing_again_keeps_the_filter_and_does_not_change_it() -> None:
    client = Client()
    client.ask("subscribe", symbols=["600000.SH"], filters={"min_price": 100})
    for filters in ({"min_price": 101}, {"min_price": 100, "max_price": 200}, None):
        answer = client.ask("subscribe", symbols=["600519.SH"], filters=filters)
        assert (answer["name"], answer["parameter"]) == ("invalid_argument", "filters")
    assert client.ask("subscribe", symbols=["600519.SH"], filters={"min_price": 100})["type"] == "subscribed"
    assert client.ask("subscribe", symbols=["000001.SZ"])["type"] == "subscribed"
    assert client.covered["main"].filter == Filter(min_price=100)
    assert client.ask("subscribe", subscription="x", symbols=["600519.SH"])["type"] == "subscribed"
    assert client.ask("subscribe", subscription="x", symbols=["600519.SH"], filters={"min_price": 1})["parameter"] == "filters"


def test_an_update_replaces_the_whole_filter_and_null_takes_it_away() -> None:
    client = Client()
    client.ask("subscribe", symbols=["600000.SH"], filters={"min_price": 100, "min_volume": 5})
    client.ask("update", update_frequency="1s")
    assert client.covered["main"].filter == Filter(min_price=100, min_volume=5)
    client.ask("update", filters={"max_price": 7})
    assert client.covered["main"].filter == Filter(max_price=7)
    assert "filters" not in client.ask("update", filters=None)["subscriptions"]["main"]
    assert client.covered["main"] == selection("600000.SH", frequency=Frequency.S1)


@pytest.mark.parametrize("data_type", ["status", "kline:1m", "kline:1d", "trade"])
def test_a_filter_goes_with_quotes_and_their_parts_alone(data_type: str) -> None:
    client = Client()
    filters = {"min_change_pct": 5}
    parts = ["quote", "price", "volume", "orderbook"]
    answer = client.ask("subscribe", symbols=["600000.SH"], data_types=["quote", data_type], filters=filters)
    assert (answer["name"], answer["parameter"], answer["allowed"]) == ("invalid_argument", "filters", parts)
    assert client.ask("subscribe", symbols=["600000.SH"], data_types=parts, filters=filters)["type"] == "subscribed"
    assert client.ask("update", data_types=[data_type])["parameter"] == "filters"
    client.ask("update", data_types=[data_type], filters=None)
    assert client.ask("update", filters=filters)["parameter"] == "filters"
    assert client.covered == {"main": selection("600000.SH", types=(data_type,))}


@pytest.mark.parametrize("action", ["subscribe", "update"])
@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"min_price": None},
        {"min_price": "100"},
        {"min_price": 2, "max_price": 1},
        {"min_change_pct": -1},
        {"only_changed": []},
        {"only_changed": ["status"]},
        {"price": 5},
        [],
        True,
    ],
)
def test_a_filter_that_means_nothing_is_refused(action: str, filters: Any) -> None:
    client = Client()
    client.ask("subscribe", symbols=["600000.SH"])
    answer = client.ask(action, symbols=["600519.SH"], filters=filters)
    assert (answer["name"], answer["parameter"]) == ("invalid_argument", "filters")
    assert client.covered == {"main": selection("600000.SH")}


# Limits


def test_the_symbols_of_all_subscriptions_count_together_and_each_once() -> None:
    client = Client(symbols=3)
    client.ask("subscribe", subscription="a", symbols=["600000.SH", "600519.SH"])
    assert client.ask("subscribe", subscription="b", symbols=["600519.SH", "000001.SZ"])["type"] == "subscribed"
    answer = client.ask("subscribe", subscription="c", symbols=["000002.SZ"])
    assert (answer["name"], answer["limit"]) == ("symbol_limit", 3)
    assert client.state().keys() == {"a", "b"}


def test_a_group_counts_with_its_members() -> None:
    assert Client(symbols=5).ask("subscribe", symbols=["*"])["name"] == "symbol_limit"


def test_data_types_outside_the_plan_are_refused() -> None:
    client = Client(data_types=("quote", "price"))
    answer = client.ask("subscribe", symbols=["600000.SH"], data_types=["price", "orderbook"])
    assert (answer["name"], answer["data_types"]) == ("data_type_not_allowed", ["orderbook"])


def test_a_connection_has_a_bounded_number_of_subscriptions() -> None:
    client = Client()
    for number in range(MAX_SUBSCRIPTIONS):
        client.ask("subscribe", subscription=str(number), symbols=["600000.SH"])
    answer = client.ask("subscribe", subscription="more", symbols=["600000.SH"])
    assert (answer["name"], answer["limit"]) == ("subscription_limit", MAX_SUBSCRIPTIONS)
    assert client.ask("subscribe", subscription="0", symbols=["600519.SH"])["type"] == "subscribed"


@pytest.mark.parametrize("action", ["subscribe", "update", "unsubscribe"])
def test_too_many_symbols_in_one_message_are_refused(action: str) -> None:
    client = Client()
    client.ask("subscribe", symbols=["600000.SH"])
    answer = client.ask(action, symbols=[f"{number:06}.SZ" for number in range(10_000)])
    assert (answer["name"], answer["limit"]) == ("symbol_limit", MAX_SYMBOLS_PER_MESSAGE)
    assert client.state()["main"]["symbols"] == ["600000.SH"]


@pytest.mark.parametrize("action", ["subscribe", "update", "unsubscribe"])
def test_a_message_full_of_wrong_symbols_is_refused_as_a_whole(action: str) -> None:
    client = Client()
    client.ask("subscribe", symbols=["600000.SH"])
    answer = client.ask(action, symbols=["600519.SH", *(f"{number:06}.BJ" for number in range(5_000))])
    assert (answer["type"], len(answer["rejected"])) == ("error", MAX_REJECTED)
    assert client.state()["main"]["symbols"] == ["600000.SH"]


def test_a_connection_names_a_bounded_number_of_symbols() -> None:
    """However often it names the same ones: every answer shows them all."""
    client = Client(universe=Universe(symbols=tuple(f"{number:06}.SZ" for number in range(5_000))), symbols=5_000)
    for number in range(MAX_NAMED // 5_000):
        client.ask("subscribe", subscription=str(number), symbols=client.universe.symbols)
    answer = client.ask("subscribe", subscription="more", symbols=["000001.SZ"])
    assert (answer["name"], answer["limit"]) == ("symbol_limit", MAX_NAMED)
    client.ask("unsubscribe", subscription="0")
    assert client.ask("subscribe", subscription="more", symbols=["000001.SZ", "*"])["type"] == "subscribed"


@pytest.mark.parametrize("action", ["subscribe", "update", "unsubscribe"])
def test_an_empty_list_of_symbols_is_refused(action: str) -> None:
    client = Client()
    client.ask("subscribe", symbols=["600000.SH"])
    assert client.ask(action, symbols=[])["parameter"] == "symbols"


# Updating


def test_an_update_replaces_what_it_gives_and_keeps_the_rest() -> None:
    client = Client()
    client.ask("subscribe", symbols=["600000.SH", "600519.SH"])
    client.ask("update", update_frequency="5s")
    assert client.covered == {"main": selection("600000.SH", "600519.SH", frequency=Frequency.S5)}
    client.ask("update", data_types=["price", "volume"])
    assert client.covered == {"main": selection("600000.SH", "600519.SH", types=("price", "volume"), frequency=Frequency.S5)}
    answer = client.ask("update", id=9, symbols=["sector:沪深300", "nonsense"])
    assert (answer["type"], answer["id"], len(answer["rejected"])) == ("updated", 9, 1)
    assert client.covered == {"main": selection("600519.SH", "300750.SZ", types=("price", "volume"), frequency=Frequency.S5)}


def test_an_update_of_nothing_is_refused() -> None:
    client = Client()
    client.ask("subscribe", symbols=["600000.SH"])
    assert client.ask("update")["name"] == "invalid_argument"
    assert client.ask("update", data_types=[])["parameter"] == "data_types"


@pytest.mark.parametrize("action", ["update", "unsubscribe"])
def test_a_subscription_that_is_not_there_is_named(action: str) -> None:
    client = Client()
    client.ask("subscribe", subscription="a", symbols=["600000.SH"])
    answer = client.ask(action, subscription="b", **({"update_frequency": "1s"} if action == "update" else {}))
    assert answer["name"] == "unknown_subscription"
    assert "'b'" in answer["message"]


# Unsubscribing


def test_unsubscribing_ends_a_subscription() -> None:
    client = Client()
    client.ask("subscribe", symbols=["600000.SH", "sector:银行"])
    answer = client.ask("unsubscribe", id=2)
    assert answer == {
        "type": "unsubscribed",
        "id": 2,
        "subscription": "main",
        "symbols": ["sector:银行", "600000.SH"],
        "rejected": [],
        "subscriptions": {},
    }
    assert client.covered == {}


def test_unsubscribing_symbols_takes_them_out() -> None:
    client = Client()
    client.ask("subscribe", symbols=["600000.SH", "600519.SH", "000001.SZ"])
    answer = client.ask("unsubscribe", symbols=["sh600000", "贵州茅台", "000002.SZ"])
    assert answer["symbols"] == ["600000.SH", "600519.SH"]
    assert [(item["symbol"], item["code"]) for item in answer["rejected"]] == [("000002.SZ", 417)]
    assert client.covered == {"main": selection("000001.SZ")}


def test_unsubscribing_a_group_keeps_the_other_groups_members() -> None:
    client = Client()
    client.ask("subscribe", symbols=["sector:银行", "market:SH", "000002.SZ"])
    client.ask("unsubscribe", symbols=["market:SH"])
    assert client.covered == {"main": selection("000001.SZ", "600000.SH", "000002.SZ")}


def test_taking_the_last_symbol_out_ends_the_subscription() -> None:
    client = Client()
    client.ask("subscribe", symbols=["600000.SH"])
    assert client.ask("unsubscribe", symbols=["600000.SH"])["subscriptions"] == {}


def test_unsubscribing_only_what_is_not_there_is_an_error() -> None:
    client = Client()
    client.ask("subscribe", symbols=["600000.SH"])
    answer = client.ask("unsubscribe", symbols=["sector:银行", "600519.SH"])
    assert (answer["name"], len(answer["rejected"])) == ("unknown_subscription", 2)
    assert client.state()["main"]["symbols"] == ["600000.SH"]


def test_a_symbol_that_is_no_longer_quoted_can_be_taken_out() -> None:
    client = Client()
    client.ask("subscribe", symbols=["600000.SH", "600519.SH"])
    client.universe = Universe(symbols=("600519.SH",))
    assert client.ask("unsubscribe", symbols=["600000.SH"])["symbols"] == ["600000.SH"]


# Changes from outside


def test_a_lowered_plan_stops_growth_but_not_shrinking() -> None:
    client = Client()
    client.ask("subscribe", symbols=["600000.SH", "600519.SH", "000001.SZ"])
    client.take(client.session.principal_changed(principal(symbols=1)))
    assert len(client.covered["main"].symbols or ()) == 3
    assert client.ask("subscribe", symbols=["000002.SZ"])["name"] == "symbol_limit"
    assert client.ask("unsubscribe", symbols=["600519.SH"])["type"] == "unsubscribed"
    assert client.ask("update", symbols=["600000.SH"])["type"] == "updated"


def test_data_types_that_a_plan_loses_are_no_longer_received() -> None:
    client = Client()
    client.ask("subscribe", symbols=["600000.SH"], data_types=["quote", "orderbook"])
    client.ask("subscribe", subscription="book", symbols=["600519.SH"], data_types=["orderbook"])
    (message,) = client.take(client.session.principal_changed(principal(data_types=("quote",))))
    assert message["type"] == "limits"
    assert message["limits"]["data_types"] == ["quote"]
    assert message["subscriptions"]["main"]["data_types"] == ["quote"]
    assert message["subscriptions"]["book"]["data_types"] == []
    assert client.covered == {"main": selection("600000.SH")}


def test_a_change_of_the_key_that_leaves_the_limits_is_not_announced() -> None:
    assert Client().session.principal_changed(principal()) == []


def test_groups_follow_the_universe() -> None:
    client = Client()
    client.ask("subscribe", symbols=["sector:银行", "000002.SZ"])
    client.universe = Universe(symbols=UNIVERSE.symbols, sectors={"银行": ("600519.SH",)})
    client.take(client.session.universe_changed())
    assert client.covered == {"main": selection("600519.SH", "000002.SZ")}
    assert client.session.universe_changed() == []


# The rest


def test_a_resume_asks_back_with_its_positions() -> None:
    session = Client().session
    (effect,) = session.receive('{"action":"resume","id":6,"session":"token","epoch":7,"seq":1790}')
    assert effect == Restore(6, "token", {"": Position(7, 1790)})
    (effect,) = session.receive('{"action":"resume","session":"token","streams":{"main":{"epoch":7,"seq":0}}}')
    assert effect == Restore(None, "token", {"main": Position(7, 0)})


def test_a_session_is_taken_up_before_anything_is_subscribed_to() -> None:
    client = Client()
    assert client.ask("resume")["parameter"] == "session"
    client.ask("subscribe", symbols=["600000.SH"])
    assert client.ask("resume", session="token", epoch=7, seq=1)["parameter"] == "session"
    (effect,) = client.session.receive('{"action":"resume","epoch":7,"seq":1}')
    assert effect == Restore(None, None, {"": Position(7, 1)})


def test_a_binary_message_is_refused() -> None:
    client = Client()
    (answer,) = client.take(client.session.receive(b'{"action":"ping"}'))
    assert answer["name"] == "not_text"


def test_errors_are_in_english_whatever_the_language_of_the_thread() -> None:
    from django.utils.translation import override

    with override("zh-hans"):
        answer = Client(symbols=1).ask("subscribe", symbols=["*"])
    assert answer["message"].isascii()


def test_who_comes_back_to_a_smaller_plan_has_what_it_still_allows() -> None:
    """As if the connection had lasted; what is lost is named."""
    book = Client()
    book.ask("subscribe", symbols=["600000.SH"], data_types=["quote", "orderbook"])
    book.ask("subscribe", subscription="book", symbols=["600519.SH"], data_types=["orderbook"])
    kept = saved(book.session.book, {}, {}, {}, frozenset(DataType))
    client = Client(data_types=("quote",))
    rejected = client.session.restore(kept)
    assert [(item.symbol, item.name) for item in rejected] == [(name, "data_type_not_allowed") for name in ("main", "book")]
    client.take([client.session.cover()])
    assert client.covered == {"main": selection("600000.SH")}
