"""L1: never above its bound, gives back what was put, and keeps what is used through a scan of what is not."""

from __future__ import annotations

import threading

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from marketdata.cache.block import Block
from marketdata.cache.memory import Memory, size_of
from marketdata.series import COLUMNS
from tests.cache.blocks import daily, day_key, month, month_key

KEYS = [day_key(f"60{number:04d}.SH") for number in range(12)]
SIZES = [daily(count) for count in (1, 10, 60, 200)]
LIMIT = 6 * size_of(SIZES[-1])


class Model(RuleBasedStateMachine):
    """Beside a plain dict of what was last put."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory(LIMIT)
        self.put: dict[object, Block] = {}

    @rule(key=st.sampled_from(KEYS), block=st.sampled_from(SIZES))
    def keep(self, key: object, block: Block) -> None:
        self.memory.put(key, block)  # type: ignore[arg-type]
        self.put[key] = block
        assert self.memory.peek(key) is not None  # type: ignore[arg-type]

    @rule(key=st.sampled_from(KEYS))
    def find(self, key: object) -> None:
        found = self.memory.get(key)  # type: ignore[arg-type]
        assert found is None or found is self.put[key]

    @rule(symbol=st.sampled_from(KEYS))
    def drop(self, symbol: object) -> None:
        self.memory.remove(lambda key: key == symbol)
        assert self.memory.peek(symbol) is None  # type: ignore[arg-type]
        self.put.pop(symbol, None)

    @invariant()
    def bounded_and_counted(self) -> None:
        held = [block for key in KEYS if (block := self.memory.peek(key)) is not None]
        assert self.memory.nbytes == sum(map(size_of, held)) <= LIMIT
        assert len(self.memory) == len(held)
        counted = self.memory.counts.read()
        assert counted.writes - counted.evictions >= len(held)


Model.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestModel = Model.TestCase


def test_hot_blocks_survive_a_scan_of_thousands() -> None:
    block = daily(20)
    memory = Memory(100 * size_of(block))
    hot = [day_key(f"00{number:04d}.SZ") for number in range(50)]
    for _ in range(2):
        for key in hot:
            if memory.get(key) is None:
                memory.put(key, block)
    for number in range(5000):
        cold = day_key(f"60{number:04d}.SH")
        assert memory.get(cold) is None
        memory.put(cold, block)
    assert all(memory.get(key) is block for key in hot)
    assert memory.nbytes <= memory.limit


def test_what_was_hot_once_gives_way_to_what_is_hot_now() -> None:
    block = daily(20)
    memory = Memory(20 * size_of(block))
    for generation in range(3):
        keys = [day_key(f"{generation}{number:05d}.SZ") for number in range(15)]
        for key in keys * 3:
            if memory.get(key) is None:
                memory.put(key, block)
    assert sum(memory.get(key) is block for key in keys) == len(keys)


def test_a_block_of_more_than_a_fifth_is_refused_and_counted() -> None:
    memory = Memory(3_000_000)
    memory.put(month_key(), month())
    assert memory.get(month_key()) is not None
    memory.put(day_key(), Block(month().series, frozenset(range(1, 90_000)), 0))
    assert memory.get(day_key()) is None
    assert memory.counts.read().refused == 1


def test_a_view_does_not_keep_what_it_was_cut_from() -> None:
    large = month()
    memory = Memory(10_000_000)
    memory.put(day_key(), Block(large.series.last(1), frozenset(), 0))
    held = memory.get(day_key())
    assert held is not None
    assert all(getattr(held.series, name).base is None for name in COLUMNS)
    assert held.series.equals(large.series.last(1))


def test_a_peek_counts_nothing() -> None:
    memory = Memory(1_000_000)
    memory.put(KEYS[0], SIZES[0])
    assert memory.peek_many(KEYS[:2]) == {KEYS[0]: SIZES[0]}
    assert memory.counts.read().hits == memory.counts.read().misses == 0


def test_threads_leave_it_consistent() -> None:
    memory = Memory(8 * size_of(SIZES[-1]))

    def work(offset: int) -> None:
        for step in range(3000):
            key = KEYS[(step * (offset + 1)) % len(KEYS)]
            if memory.get(key) is None:
                memory.put(key, SIZES[step % len(SIZES)])
            if step % 97 == 0:
                memory.remove(lambda held, key=key: held == key)  # type: ignore[misc]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = [block for key in KEYS if (block := memory.peek(key)) is not None]
    assert memory.nbytes == sum(map(size_of, held)) <= memory.limit
    counted = memory.counts.read()
    assert counted.hits + counted.misses == 6 * 3000
