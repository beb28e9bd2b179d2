"""What a process remembers of keys, and for how long."""

from __future__ import annotations

from argus.access.cache import KeyCache
from argus.errors import KEY_REVOKED
from tests.access.factory import make_principal


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_key_is_trusted_for_a_second_while_nobody_watches() -> None:
    clock = Clock()
    cache = KeyCache(clock=clock)
    cache.put("digest", make_principal(), 1, cache.generation)
    clock.now += 0.999
    assert cache.find("digest") == make_principal()
    clock.now += 0.001
    assert cache.find("digest") is None


def test_a_key_is_trusted_for_a_minute_while_the_watcher_vouches_for_it() -> None:
    clock = Clock()
    cache = KeyCache(clock=clock)
    cache.put("digest", make_principal(), 1, cache.generation)
    for _ in range(59):
        clock.now += 1
        cache.vouch()
        assert cache.find("digest") is not None
    clock.now += 1
    cache.vouch()
    assert cache.find("digest") is None


def test_the_word_of_a_watcher_that_fell_silent_holds_three_seconds() -> None:
    clock = Clock()
    cache = KeyCache(clock=clock)
    cache.put("digest", make_principal(), 1, cache.generation)
    cache.vouch()
    clock.now += 2.9
    assert cache.find("digest") is not None
    clock.now += 0.1
    assert cache.find("digest") is None
    assert cache.find_old("digest") is not None


def test_an_old_entry_serves_for_ten_minutes_without_a_database() -> None:
    clock = Clock()
    cache = KeyCache(clock=clock)
    cache.put("digest", make_principal(), 1, cache.generation)
    clock.now += 599
    assert cache.find_old("digest") is not None
    clock.now += 1
    assert cache.find_old("digest") is None


def test_a_dropped_key_is_forgotten() -> None:
    cache = KeyCache()
    cache.put("digest", make_principal(), 1, cache.generation)
    cache.drop(1)
    assert cache.find("digest") is None
    assert cache.find_old("digest") is None
    cache.drop(1)


def test_what_was_read_before_a_drop_is_not_stored_after_it() -> None:
    cache = KeyCache()
    generation = cache.generation
    cache.drop(1)
    cache.put("digest", make_principal(), 1, generation)
    assert cache.find("digest") is None


def test_tables_stay_bounded_and_a_flood_of_unknown_keys_displaces_no_good_one() -> None:
    cache = KeyCache(size=10)
    cache.put("good", make_principal(), 1, cache.generation)
    for number in range(1000):
        cache.put_unknown(str(number))
    assert cache.sizes() == (1, 10)
    assert cache.find("good") is not None
    for number in range(2, 1000):
        cache.put(str(number), KEY_REVOKED, number, cache.generation)
    assert cache.sizes() == (10, 10)
    cache.drop(1)  # displaced long ago
    assert cache.sizes() == (10, 10)


def test_an_unknown_key_is_remembered_briefly() -> None:
    clock = Clock()
    cache = KeyCache(clock=clock)
    cache.put_unknown("digest")
    assert cache.is_unknown("digest")
    assert not cache.is_unknown("other")
    clock.now += 10
    assert not cache.is_unknown("digest")


def test_an_expired_key_is_told_once() -> None:
    cache = KeyCache()
    cache.put("a", make_principal(1), 1, cache.generation)
    cache.tracked[2] = 5000
    assert cache.take_expired(4999) == []
    assert cache.take_expired(5000) == [2]
    assert cache.take_expired(5001) == []
