"""L2 over a real Redis: what comes back is what was put or a miss, whatever happens to the server or the values."""

from __future__ import annotations

import pickle
import time

import pytest
import redis

from marketdata.cache.codec import Damaged, decode, encode, pack_days, unpack_days
from marketdata.cache.shared import PAUSE, Shared
from tests.cache.blocks import daily, day_key, month, month_key, same
from tests.conftest import RedisServer


def minute(_key: object) -> float:
    return 60.0


@pytest.fixture
def shared(redis_url: str) -> Shared:
    return Shared(redis_url)


def test_what_was_put_comes_back_in_one_round_trip(shared: Shared, redis_url: str) -> None:
    blocks = {month_key(f"60{number:04d}.SH"): month(seed=number) for number in range(5)}
    shared.put_many(blocks, minute)
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        before = client.info("commandstats")["cmdstat_mget"]["calls"] if "cmdstat_mget" in client.info("commandstats") else 0
        found, reasons = shared.get_many([*blocks, day_key()], {})
        assert client.info("commandstats")["cmdstat_mget"]["calls"] - before == 2
        assert client.pttl("argus:bars:block:test:600001.SH:1m:2026-01") <= 60_000
    assert found.keys() == blocks.keys()
    assert all(same(found[key], block) for key, block in blocks.items())
    assert reasons == {}
    assert (shared.counts.read().hits, shared.counts.read().misses, shared.counts.read().writes) == (5, 1, 5)


def test_what_is_there_is_kept_and_a_refusal_too_where_only_the_absent_is_put(shared: Shared) -> None:
    shared.put_many({month_key(): month()}, minute)
    shared.put_nothing({month_key(): ("738000", 60.0)})
    shared.put_many({month_key(): month(days=5), day_key(): daily()}, minute, where="absent")
    found, reasons = shared.get_many([month_key(), day_key()], {})
    assert same(found[month_key()], month())
    assert same(found[day_key()], daily())
    assert reasons == {month_key(): "738000"}


def test_a_hundred_bars_of_the_open_day_cost_one_round_trip(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [day_key(f"60{number:04d}.SH") for number in range(100)]
    shared.get_forming(keys[:1])
    sent: list[int] = []
    send = redis.connection.AbstractConnection.send_packed_command

    def counted(connection: redis.Connection, *command: object, **options: object) -> None:
        sent.append(1)
        send(connection, *command, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(redis.connection.AbstractConnection, "send_packed_command", counted)
    shared.put_forming({key: (daily(1), 60.0) for key in keys})
    assert len(shared.get_forming(keys)) == 100
    shared.put_nothing(dict.fromkeys(keys, ("none", 60.0)))
    assert len(shared.get_many(keys, {})[1]) == 100
    assert len(sent) == 4


def test_a_use_sets_the_time_to_live_anew(shared: Shared, redis_url: str) -> None:
    shared.put_many({day_key(): daily()}, minute)
    shared.get_many([day_key()], {day_key(): 3600.0})
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        assert client.ttl("argus:bars:block:test:600000.SH:1d:all") > 3000


@pytest.mark.parametrize(
    "damage",
    [
        lambda good: good[:-1],
        lambda good: good[:6],
        lambda good: b"",
        lambda good: good[:200] + bytes([good[200] ^ 1]) + good[201:],
        lambda good: b"ARG0" + good[4:],
        lambda good: pickle.dumps({"foreign": 1}),
        lambda good: b"\x00" * len(good),
    ],
)
def test_a_damaged_or_foreign_value_is_a_miss_and_is_deleted(shared: Shared, redis_url: str, damage: object) -> None:
    name = "argus:bars:block:test:600000.SH:1d:all"
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        client.set(name, damage(encode(daily())))  # type: ignore[operator]
        assert shared.get_many([day_key()], {}) == ({}, {})
        assert not client.exists(name)
    assert shared.counts.read().corrupt == 1


def test_a_key_of_another_type_is_a_miss_and_no_reason_to_pause(shared: Shared, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        client.lpush("argus:bars:forming:test:600000.SH:1d:all", "x")
    assert shared.get_forming([day_key()]) == {}
    shared.put_many({day_key(): daily()}, minute)
    assert day_key() in shared.get_many([day_key()], {})[0]


def test_no_byte_of_a_value_can_change_unnoticed() -> None:
    good = encode(daily(5))
    for position in range(len(good)):
        with pytest.raises(Damaged):
            decode(good[:position] + bytes([good[position] ^ 0x10]) + good[position + 1 :])


def test_days_survive_as_runs() -> None:
    days = frozenset(daily().days)
    assert unpack_days(pack_days(days)) == days
    assert unpack_days("") == frozenset()
    for text in ("5", "a+b", "5+0", "5+99999999", "5+-1"):
        with pytest.raises(ValueError):
            unpack_days(text)


def test_a_killed_redis_is_a_miss_costs_one_call_and_comes_back(redis_server: RedisServer) -> None:
    now = [0.0]
    shared = Shared(redis_server.url, clock=lambda: now[0])
    shared.put_many({day_key(): daily()}, minute)
    redis_server.stop()
    began = time.monotonic()
    for _ in range(200):
        assert shared.get_many([day_key()], {}) == ({}, {})
        shared.put_many({day_key(): daily()}, minute)
        shared.put_nothing({day_key(): ("none", 5)})
        assert shared.get_forming([day_key()]) == {}
        assert shared.remove("test", None, None) == 0
    assert time.monotonic() - began < 10
    assert shared.counts.read().errors == 1
    assert not shared.usage("test").complete
    assert shared.lock("key", 1) is not None
    redis_server.start()
    assert shared.get_many([day_key()], {}) == ({}, {})
    now[0] += PAUSE + 0.1
    shared.put_many({day_key(): daily()}, minute)
    assert same(shared.get_many([day_key()], {})[0][day_key()], daily())


def test_a_redis_that_does_not_answer_costs_one_timeout(redis_server: RedisServer) -> None:
    shared = Shared(redis_server.url)
    with redis_server.client() as client:
        assert shared.generation() == 0
        client.execute_command("CLIENT", "PAUSE", 4000)
    began = time.monotonic()
    for _ in range(50):
        assert shared.get_many([day_key()], {}) == ({}, {})
    assert time.monotonic() - began < 3.5
    assert shared.counts.read().errors == 1


def test_forming_bars_end_by_themselves(shared: Shared) -> None:
    shared.put_forming({day_key(): (daily(1), 0.2), month_key(): (daily(2), 60.0)})
    found = shared.get_forming([day_key("000001.SZ"), day_key(), month_key()])
    assert list(found) == [day_key(), month_key()]
    block, left = found[day_key()]
    assert same(block, daily(1))
    assert 0 < left <= 0.2
    assert same(found[month_key()][0], daily(2))
    time.sleep(0.25)
    assert shared.get_forming([day_key()]) == {}


def test_a_reason_is_forgotten_when_bars_come(shared: Shared) -> None:
    shared.put_nothing({day_key(): ("not listed yet", 60)})
    assert shared.get_many([day_key()], {}) == ({}, {day_key(): "not listed yet"})
    shared.put_many({day_key(): daily()}, minute)
    assert shared.get_many([day_key()], {})[1] == {}


def test_it_is_cleared_by_symbol_and_period_and_nothing_else_is_touched(shared: Shared, redis_url: str) -> None:
    keys = [month_key(), month_key("000001.SZ"), day_key(), day_key("000001.SZ")]
    shared.put_many({key: daily(3) for key in keys}, minute)
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        client.set("argus:feed:main", "x")
        usage = shared.usage("test")
        assert (usage.entries, usage.complete) == (4, True)
        assert usage.bytes == 4 * len(encode(daily(3)))
        assert shared.usage("another").entries == 0
        assert shared.remove("another", None, None) == 0
        assert shared.remove("test", "000001.SZ", ("1d",)) == 1
        assert shared.remove("test", None, ("1m",)) == 2
        assert shared.remove("test", None, None) == 1
        assert client.keys("*") == [b"argus:feed:main"]


def test_without_redis_it_is_off() -> None:
    shared = Shared("")
    shared.put_many({day_key(): daily()}, minute)
    assert not shared.on
    assert shared.get_many([day_key()], {}) == ({}, {})
    assert shared.counts.read().misses == 0
    assert shared.usage("test").entries == 0
