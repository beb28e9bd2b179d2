"""What web processes want of bars and trades, and what a feed hears of it: in this process' cache and in Redis alike."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from django.core.cache import cache
from django.test import override_settings

from marketdata import demand
from marketdata.demand import Announcer, Demand
from marketdata.types import DataType

M1, D1, TRADE = DataType.KLINE_1M, DataType.KLINE_1D, DataType.TRADE


@pytest.fixture(params=["memory", "redis"], autouse=True)
def _shared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(demand, "LOOK", 0.0)
    if request.param == "memory":
        yield
        return
    url = request.getfixturevalue("redis_url")
    with override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url}}):
        yield


def names(*symbols: str) -> frozenset[str]:
    return frozenset(symbols)


def test_a_feed_hears_what_all_processes_want_together() -> None:
    feed, one, two = Demand(), Announcer(), Announcer()
    assert feed.look() == {}
    one.announce({M1: names("A", "B"), TRADE: names("A")})
    two.announce({M1: names("B", "C"), D1: None})
    assert feed.look() == {M1: names("A", "B", "C"), D1: None, TRADE: names("A")}
    assert feed.wanted == {M1: names("A", "B", "C"), D1: None, TRADE: names("A")}
    one.announce({D1: names("A")})
    assert feed.look() == {D1: names("A")}, "one has no bars of the day yet, whatever two has"
    assert feed.wanted == {M1: names("B", "C"), D1: None}


def test_what_a_process_wanted_before_is_not_kept() -> None:
    one = Announcer()
    for number in range(3):
        one.announce({M1: names(str(number))})
    lists = [cache.get(f"demand:{one.process}:{revision}") is not None for revision in range(1, 4)]
    assert lists == [False, False, True]
    one.announce({M1: names("2")})
    assert Demand().look() == {M1: names("2")}


def test_only_what_a_process_has_not_had_is_news() -> None:
    feed, one = Demand(), Announcer()
    one.announce({M1: names("A")})
    feed.look()
    assert feed.look() == {}
    one.announce({M1: names("A", "B")})
    assert feed.look() == {M1: names("B")}
    one.announce({M1: names("B")})
    assert feed.look() == {}
    one.announce({M1: None})
    assert feed.look() == {M1: None}
    one.announce({M1: names("A")})
    assert feed.look() == {}


def test_a_process_that_starts_late_is_answered_although_another_wants_the_same() -> None:
    feed, one, late = Demand(), Announcer(), Announcer()
    one.announce({M1: names("A")})
    feed.look()
    late.announce({M1: names("A")})
    assert feed.look() == {M1: names("A")}


def test_who_has_missed_messages_wants_all_of_it_anew() -> None:
    feed, one = Demand(), Announcer()
    one.announce({M1: names("A")}, 1)
    feed.look()
    one.announce({M1: names("A")}, 2)
    assert feed.look() == {M1: names("A")}
    assert feed.look() == {}


def test_wanting_nothing_ends_the_demand_and_gives_the_slot_back() -> None:
    feed, one = Demand(), Announcer()
    one.announce({M1: names("A")})
    feed.look()
    one.announce({})
    feed.look()
    assert feed.wanted == {}
    one.announce({M1: names("A")})
    assert feed.look() == {M1: names("A")}


def test_a_process_that_ends_without_a_word_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demand, "TTL", 1)
    feed, one, two = Demand(), Announcer(), Announcer()
    one.announce({M1: names("A")})
    feed.look()
    assert feed.wanted
    cache.delete("demand:0")
    feed.look()
    assert feed.wanted == {}
    two.announce({M1: names("B")})
    one.announce({M1: names("A")})
    feed.look()
    assert feed.wanted == {M1: names("A", "B")}, "who has lost its slot takes another"


def test_more_processes_than_slots_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demand, "SLOTS", 2)
    one, two, three = Announcer(), Announcer(), Announcer()
    assert one.announce({M1: names("A")})
    assert two.announce({M1: names("B")})
    assert not three.announce({M1: names("C")})
    one.announce({})
    assert three.announce({M1: names("C")})


def test_while_the_cache_is_away_the_last_known_demand_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    feed, one = Demand(), Announcer()
    one.announce({M1: names("A")})
    feed.look()

    def away(*_: object, **__: object) -> None:
        raise redis.ConnectionError("away")

    for name in ("get", "set", "add", "get_many"):
        monkeypatch.setattr(type(cache._connections[cache._alias]), name, away)
    assert feed.look() == {}
    assert feed.wanted == {M1: names("A")}
    assert not one.announce({M1: names("B")})
    monkeypatch.undo()


def test_what_is_not_an_announcement_is_passed_over() -> None:
    feed, one = Demand(), Announcer()
    one.announce({M1: names("A")})
    cache.set("demand:1", b"\xff", 60)
    assert feed.look() == {}
    cache.delete("demand:1")
    assert feed.look() == {M1: names("A")}
