"""The three tiers as one: where a block is found, what moves up, what operators see and may do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pytest
import redis
from prometheus_client import generate_latest

from marketdata.cache import tiers as tiers_module
from marketdata.cache import ttl
from marketdata.cache.archive import Archive
from marketdata.cache.block import Block
from marketdata.cache.memory import Memory
from marketdata.cache.shared import Shared
from marketdata.cache.tiers import WATCH_EVERY, Busy, Tier, Tiers
from marketdata.series import EMPTY
from marketdata.types import Period
from tests.cache.blocks import daily, day_key, month, month_key, same
from tests.conftest import RedisServer

MB = 1024 * 1024


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Tiers]]:
    """A process' tiers over one archive; ``redis_url`` makes them share L2."""
    made: list[Tiers] = []

    def one(redis_url: str = "", *, memory: int = 64 * MB) -> Tiers:
        tiers = Tiers(market="test", memory=Memory(memory), shared=Shared(redis_url), archive=Archive(str(tmp_path)))
        made.append(tiers)
        return tiers

    yield one
    for tiers in made:
        tiers.close()


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_what_is_not_there_comes_from_the_terminal_and_then_from_memory(make: Callable[..., Tiers]) -> None:
    tiers = make()
    assert tiers.get(day_key()) == (None, Tier.TERMINAL, "")
    tiers.put(day_key(), daily())
    found = tiers.get(day_key())
    assert found.tier is Tier.L1
    assert same(found.block, daily())


def test_another_process_finds_it_in_the_shared_tier_and_without_that_in_the_files(
    make: Callable[..., Tiers], redis_url: str
) -> None:
    make(redis_url).put(day_key(), daily())
    other = make(redis_url)
    assert [other.get(day_key()).tier for _ in range(2)] == [Tier.L2, Tier.L1]
    alone = make()
    assert [alone.get(day_key()).tier for _ in range(2)] == [Tier.L3, Tier.L1]


def test_what_is_read_from_the_files_goes_into_the_shared_tier_at_its_second_use_alone(
    make: Callable[..., Tiers], redis_url: str
) -> None:
    tiers = make(redis_url)
    tiers.put(day_key(), daily())
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        client.flushall()
        cold = make(redis_url)
        assert cold.get(day_key()).tier is Tier.L3
        cold.memory.remove(lambda key: True)
        assert cold.get(day_key()).tier is Tier.L3
        # It goes there behind the answer's back; the end waits for it.
        cold.close()
        assert cold.shared.counts.read().writes == 1
        assert client.keys("argus:bars:block:*") == [b"argus:bars:block:test:600000.SH:1d:all"]
        assert 600 < client.ttl("argus:bars:block:test:600000.SH:1d:all") <= 2400


def test_what_still_waits_for_the_shared_tier_does_not_come_back_after_a_clear(
    make: Callable[..., Tiers], redis_url: str
) -> None:
    tiers = make(redis_url)
    tiers.put(month_key(), month())
    tiers.clear(tiers={Tier.L1, Tier.L2})
    for _ in range(20):
        assert tiers.get(month_key()).tier is Tier.L3
        tiers.clear(tiers={Tier.L1, Tier.L2})
    assert tiers.shared.counts.read().writes > 1
    assert tiers.get(month_key()).tier is Tier.L3


def days_of(block: Block) -> list[date]:
    return [date.fromordinal(day) for day in sorted(block.days)]


def test_days_that_memory_lacks_are_looked_for_below_and_joined(make: Callable[..., Tiers], redis_url: str) -> None:
    days = {month_key(): days_of(month())}
    for url, below in ((redis_url, Tier.L2), ("", Tier.L3)):
        tiers, other = make(url), make(url)
        tiers.clear()
        tiers.put(month_key(), month(days=5))
        assert tiers.get(month_key()).tier is Tier.L1
        other.put(month_key(), month(seed=2))
        assert tiers.get_many([month_key()], {month_key(): days_of(month(days=5))})[month_key()].tier is Tier.L1
        found = tiers.get_many([month_key()], days)[month_key()]
        assert (found.tier, found.lacking(days[month_key()])) == (below, [])
        assert same(found.block, other.get(month_key()).block), "of two bars the one that was fetched later"
        assert tiers.get_many([month_key()], days)[month_key()].tier is Tier.L1


def test_what_the_shared_tier_has_in_part_the_files_have_as_a_whole(make: Callable[..., Tiers], redis_url: str) -> None:
    make(redis_url).put(month_key(), month(days=5))
    make().put(month_key(), month())
    found = make(redis_url).get_many([month_key()], {month_key(): days_of(month())})[month_key()]
    assert found.tier is Tier.L3
    assert same(found.block, month())


def test_the_way_down_is_one_round_trip_and_none_where_memory_has_all(
    make: Callable[..., Tiers], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiers, other = make(redis_url), make(redis_url)
    keys = [month_key(f"00000{number}.SZ") for number in range(4)]
    tiers.put_many(dict.fromkeys(keys[:2], month(days=5)))
    other.put_many(dict.fromkeys(keys, month()))
    monkeypatch.setattr(tiers, "_watch", lambda: None)
    calls: list[object] = []
    call = tiers.shared._call
    monkeypatch.setattr(tiers.shared, "_call", lambda work: calls.append(work) or call(work))
    reads: list[object] = []
    monkeypatch.setattr(tiers.archive, "read_many", lambda keys, **_: reads.append(keys) or {})
    days = dict.fromkeys(keys, days_of(month()))
    assert {item.tier for item in tiers.get_many(keys, days).values()} == {Tier.L2}
    assert (len(calls), reads) == (1, [])
    assert {item.tier for item in tiers.get_many(keys, days).values()} == {Tier.L1}
    assert (len(calls), reads) == (1, [])


def test_days_of_which_the_source_has_no_more_are_not_looked_for_below(
    make: Callable[..., Tiers], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiers = make()
    tiers.put(month_key(), month(days=5))
    *known, last = days_of(month(days=6))
    tiers.put_nothing({month_key(): f"{last.toordinal()} 1"}, seconds=60)
    monkeypatch.setattr(tiers.archive, "read_many", None)
    found = tiers.get_many([month_key()], {month_key(): [*known, last]})[month_key()]
    assert (found.tier, found.lacking([*known, last])) == (Tier.L1, [])


def test_memory_alone_does_not_answer_for_days_that_it_lacks(make: Callable[..., Tiers]) -> None:
    tiers = make()
    tiers.put(month_key(), month(days=5))
    *known, last = days_of(month(days=6))
    assert tiers.get_memory([month_key()], {month_key(): [*known, last]}) is None
    assert (tiers.stats().lookups, tiers.heat.uses(month_key())) == (0, 0)
    assert tiers.get_memory([month_key()], {month_key(): known}) is not None
    tiers.put_nothing({month_key(): str(last.toordinal())}, seconds=60)
    assert tiers.get_memory([month_key()], {month_key(): [*known, last]}) is not None


def test_who_looks_past_memory_sees_what_files_have_beyond_it(make: Callable[..., Tiers]) -> None:
    tiers, days = make(), {month_key(): days_of(month())}
    tiers.put(month_key(), month(days=5))
    make().put(month_key(), month())
    assert tiers.cover_many([month_key()])[month_key()].tier is Tier.L1
    covered = tiers.cover_many([month_key()], days)[month_key()]
    assert (covered.tier, covered.lacking(days[month_key()])) == (Tier.L3, [])
    assert same(tiers.peek_many([month_key()], days)[month_key()], month())
    assert same(tiers.get(month_key()).block, month(days=5)), "and moves nothing up"


def test_the_same_refusal_is_believed_the_longer_the_more_often_it_comes(
    make: Callable[..., Tiers], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiers, believed = make(), list[int]()
    monkeypatch.setattr(ttl, "nothing", lambda market, now, *, times: believed.append(times) or 60.0)
    for reason in ("738000", "738000", "738000", "738001", "738001"):
        tiers.put(month_key(), month(days=5))
        tiers.put_nothing({month_key(): reason})
    assert believed == [1, 2, 3, 1, 2]


def test_many_keys_are_answered_in_the_order_asked_each_with_its_tier(make: Callable[..., Tiers], redis_url: str) -> None:
    one, other = make(redis_url), make(redis_url)
    one.put(day_key("000001.SZ"), daily())
    make().put(day_key("000002.SZ"), daily())
    other.put(day_key("000003.SZ"), daily())
    keys = [day_key(f"00000{number}.SZ") for number in (4, 3, 2, 1)]
    found = other.get_many(keys)
    assert list(found) == keys
    assert [item.tier for item in found.values()] == [Tier.TERMINAL, Tier.L1, Tier.L3, Tier.L2]


def test_a_part_that_comes_later_is_joined_with_what_was_there(make: Callable[..., Tiers], redis_url: str) -> None:
    tiers = make(redis_url)
    tiers.put(month_key(), month(days=5))
    whole = tiers.put(month_key(), month(seed=2))
    for item in (tiers, make(redis_url), make()):
        assert same(item.get(month_key()).block, whole)
    assert whole.days == month().days


def test_without_files_it_goes_on_with_memory(make: Callable[..., Tiers], tmp_path: Path) -> None:
    (tmp_path / "bars").write_text("no folder")
    tiers = make()
    tiers.put(month_key(), month(days=5))
    rest = month(seed=2)
    tiers.put(month_key(), Block(rest.series.between(int(month(days=5).series.time[-1]) + 1, None), rest.days, 9))
    found = tiers.get(month_key())
    assert found.tier is Tier.L1
    assert found.block is not None
    assert len(found.block.series) == len(rest.series)
    assert tiers.stats().tiers["l3"].events.errors == 2


def test_without_redis_for_a_while_it_goes_on_with_files(make: Callable[..., Tiers], redis_server: RedisServer) -> None:
    tiers = make(redis_server.url)
    redis_server.stop()
    tiers.put(day_key(), daily())
    tiers.memory.remove(lambda key: True)
    assert tiers.get(day_key()).tier is Tier.L3
    tiers.put_forming({day_key(): (daily(1).series, 5)})
    assert day_key() in tiers.get_forming([day_key()])
    tiers.put_nothing({day_key("000001.SZ"): "none"})
    assert tiers.get(day_key("000001.SZ")).nothing == "none"
    assert not tiers.stats().tiers["l2"].complete


def test_a_damaged_file_is_fetched_again(make: Callable[..., Tiers], tmp_path: Path) -> None:
    make().put(day_key(), daily())
    [path] = tmp_path.rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:-100])
    tiers = make()
    assert tiers.get(day_key()).tier is Tier.TERMINAL
    tiers.put(day_key(), daily())
    assert make().get(day_key()).tier is Tier.L3
    assert tiers.stats().tiers["l3"].events.corrupt == 1


def test_memory_alone_never_waits_and_counts_only_what_it_answers(make: Callable[..., Tiers]) -> None:
    make().put(day_key(), daily())
    tiers = make()
    assert tiers.get_memory([day_key()]) is None
    assert tiers.stats().lookups == 0
    tiers.get(day_key())
    found = tiers.get_memory([day_key()])
    assert found is not None
    assert found[day_key()].tier is Tier.L1
    assert tiers.get_memory([day_key(), day_key("000001.SZ")]) is None
    assert tiers.stats().lookups == 2


def test_bars_of_the_open_day_end_by_themselves_and_reach_other_processes(make: Callable[..., Tiers], redis_url: str) -> None:
    one, other = make(redis_url), make(redis_url)
    assert one.get_forming([month_key()]) == {}
    one.put_forming({month_key(): (month(days=1).series, 0.3)})
    key = month_key()
    here, there, again = one.get_forming([key])[key], other.get_forming([key])[key], other.get_forming_memory([key])[key]
    assert (here.tier, there.tier, again.tier) == (Tier.L1, Tier.L2, Tier.L1)
    assert there.block is not None
    assert there.block.series.equals(month(days=1).series)
    time.sleep(0.35)
    assert one.get_forming([month_key()]) == {}
    assert other.get_forming([month_key()]) == {}


def test_that_there_is_nothing_is_remembered_until_there_is_something(make: Callable[..., Tiers], redis_url: str) -> None:
    one, other = make(redis_url), make(redis_url)
    one.put_nothing({day_key(): "unknown symbol"}, seconds=60)
    assert one.get(day_key()) == (None, Tier.TERMINAL, "unknown symbol")
    assert other.get(day_key()).nothing == "unknown symbol"
    other.put(day_key(), daily())
    assert other.get(day_key()).nothing == ""
    assert make(redis_url).get(day_key()).nothing == ""


def test_a_refusal_is_forgotten_when_another_process_has_brought_the_days(
    make: Callable[..., Tiers], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, *_, last = make(redis_url), make(redis_url), *days_of(month())
    passed = [0.0]
    monkeypatch.setattr(one._nothing, "_clock", lambda: passed[0])
    days = {month_key(): [last]}
    one.put(month_key(), month(days=5))
    one.put_nothing({month_key(): str(last.toordinal())}, seconds=3600)
    assert one.get_memory([month_key()], days) is not None
    passed[0] += ttl.NOTHING
    assert one.get_memory([month_key()], days) is None
    assert one.get_many([month_key()], days)[month_key()].lacking([last]) == []
    assert one.get_memory([month_key()], days) is not None, "the shared tier has said it again"
    other.put(month_key(), month())
    passed[0] += ttl.NOTHING
    found = one.get_many([month_key()], days)[month_key()]
    assert (found.tier, found.nothing, same(found.block, month())) == (Tier.L2, "", True)


def test_a_negative_answer_beside_bars_is_told_too(make: Callable[..., Tiers]) -> None:
    tiers = make()
    tiers.put(month_key(), month(days=5))
    tiers.put_nothing({month_key(): "no more"}, seconds=0.2)
    found = tiers.get(month_key())
    assert (found.tier, found.nothing) == (Tier.L1, "no more")
    time.sleep(0.25)
    assert tiers.get(month_key()).nothing == ""


def test_what_nobody_waits_for_goes_into_files_and_only_keeps_the_rest_true(make: Callable[..., Tiers], redis_url: str) -> None:
    tiers, other = make(redis_url), make(redis_url)
    tiers.put(month_key(), month(days=5))
    tiers.put_many({month_key(): month(seed=2), day_key(): daily()}, asked=False)
    assert len(tiers.memory) == 1
    assert tiers.get(month_key()).block.days == month().days
    assert (other.get(month_key()).tier, other.get(day_key()).tier) == (Tier.L2, Tier.L3)


def test_a_block_that_says_nothing_makes_no_file_and_hides_none(make: Callable[..., Tiers], tmp_path: Path) -> None:
    nothing = Block(EMPTY, frozenset(), 1)
    tiers = make()
    assert same(tiers.put(day_key(), nothing), nothing)
    assert (list(tmp_path.rglob("*.parquet")), tiers.get(day_key()).tier) == ([], Tier.L1)
    make().put(month_key(), month())
    assert same(tiers.put(month_key(), nothing), month())
    assert same(tiers.get(month_key()).block, month())


def test_clearing_is_by_tier_symbol_and_period_and_says_how_much(make: Callable[..., Tiers], redis_url: str) -> None:
    tiers = make(redis_url)
    for symbol in ("000001.SZ", "000002.SZ"):
        tiers.put(day_key(symbol), daily())
        tiers.put(month_key(symbol), month())
    assert tiers.clear([Tier.L1], "000001.SZ", Period.D1) == {Tier.L1: 1}
    assert tiers.get(day_key("000001.SZ")).tier is Tier.L2
    assert tiers.clear([Tier.L2, Tier.L1], None, Period.M1) == {Tier.L1: 2, Tier.L2: 2}
    assert tiers.get(month_key("000001.SZ")).tier is Tier.L3
    assert tiers.clear(symbol="000002.SZ") == {Tier.L1: 1, Tier.L2: 1, Tier.L3: 2}
    assert tiers.get(day_key("000002.SZ")).tier is Tier.TERMINAL
    assert tiers.clear() == {Tier.L1: 2, Tier.L2: 1, Tier.L3: 2}
    assert tiers.stats().tiers["l3"].entries == 0


def test_clearing_reaches_the_memory_of_other_processes(make: Callable[..., Tiers], redis_url: str) -> None:
    one, other = make(redis_url), make(redis_url)
    one.put(day_key(), daily())
    other.get(day_key())
    until(lambda: other._generation is not None)
    one.clear()
    time.sleep(WATCH_EVERY)
    until(lambda: other.get(day_key()).tier is Tier.TERMINAL)


def test_optimizing_checks_sweeps_and_warms(make: Callable[..., Tiers], tmp_path: Path) -> None:
    tiers = make()
    for number in range(6):
        tiers.put(day_key(f"00000{number}.SZ"), daily())
    for _ in range(3):
        tiers.get(day_key("000001.SZ"))
    tiers.get(day_key("000002.SZ"))
    tiers.put_forming({day_key(): (daily(1).series, 0.0)})
    [path] = tmp_path.rglob("000005.SZ.parquet")
    path.write_bytes(b"x" * 4096)
    tiers.memory.remove(lambda key: True)
    report = tiers.optimize(30)
    assert (report.finished, report.files, report.checked, report.corrupt, report.rewritten) == (True, 6, 6, 1, 0)
    assert (report.expired, report.warmed) == (1, 2)
    assert report.bytes_before - report.bytes_after == 4096
    assert tiers.get(day_key("000001.SZ")).tier is Tier.L1


def test_optimizing_goes_on_past_a_file_that_cannot_be_read(make: Callable[..., Tiers], monkeypatch: pytest.MonkeyPatch) -> None:
    tiers = make()
    for number in range(3):
        tiers.put(day_key(f"00000{number}.SZ"), daily())
    cat, bad = tiers.archive._fs.cat_file, tiers.archive.files("test")[1]

    def cat_file(path: str) -> bytes:
        if path == bad:
            raise PermissionError(13, "no", path)
        return bytes(cat(path))

    monkeypatch.setattr(tiers.archive._fs, "cat_file", cat_file)
    report = tiers.optimize(30)
    assert (report.finished, report.checked, report.corrupt) == (True, 3, 0)
    assert tiers.stats().tiers["l3"].events.errors == 1


def test_optimizing_stops_when_its_time_is_up_and_the_next_one_goes_on(make: Callable[..., Tiers]) -> None:
    tiers = make()
    for number in range(40):
        tiers.put(day_key(f"0000{number:02d}.SZ"), daily(20))
    assert not tiers.optimize(0.0).finished
    checked, rounds = 0, 0
    while True:
        report = tiers.optimize(0.01)
        checked += report.checked
        rounds += 1
        if report.finished:
            break
        assert rounds < 1000
    assert checked == 40


def test_one_optimization_at_a_time(make: Callable[..., Tiers]) -> None:
    tiers = make()
    with tiers._optimizing, pytest.raises(Busy):
        tiers.optimize(1)
    assert tiers.optimize(1).finished


def test_stats_and_metrics_tell_the_same(make: Callable[..., Tiers]) -> None:
    tiers_module.forget()
    tiers = tiers_module.tiers()
    key = day_key()._replace(market=tiers.market)
    tiers.get(key)
    tiers.put(key, daily())
    for _ in range(2):
        tiers.get(key)
    tiers.get_many([key], {key: [date(2030, 1, 1)]})
    stats = tiers.stats()
    assert (stats.hit_rate, stats.lookups) == (0.75, 4)
    assert stats.hottest[0].symbol == "600000.SH"
    assert (stats.hottest[0].uses, stats.tiers["l1"].entries, stats.tiers["l3"].entries) == (4, 1, 1)
    assert stats.tiers["l1"].bytes > daily().series.nbytes
    assert not stats.tiers["l2"].on
    text = generate_latest().decode()
    assert 'argus_cache_events_total{event="hits",tier="l1"} 3.0' in text
    assert 'argus_cache_events_total{event="misses",tier="l3"} 1.0' in text
    assert f"argus_cache_memory_bytes {float(stats.tiers['l1'].bytes)}" in text
    tiers_module.forget()
    assert "argus_cache_events_total{" not in generate_latest().decode()


def test_many_threads_over_all_tiers_never_get_another_block(make: Callable[..., Tiers], redis_url: str) -> None:
    tiers = make(redis_url, memory=2 * MB)
    blocks = {day_key(f"0000{number:02d}.SZ"): daily(100 + number, seed=number) for number in range(30)}

    def work(offset: int) -> None:
        for step in range(60):
            key = list(blocks)[(step * (offset * 2 + 1)) % len(blocks)]
            found = tiers.get(key)
            if found.block is None:
                tiers.put(key, blocks[key])
            else:
                assert found.block.series.equals(blocks[key].series)
            if step % 25 == 24:
                tiers.clear(symbol=key.symbol)

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(work, number) for number in range(6)]:
            done.result()
    assert tiers.memory.nbytes <= 2 * MB
    assert all(value.events.errors == value.events.corrupt == 0 for value in tiers.stats().tiers.values())
