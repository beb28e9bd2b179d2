"""L1: the blocks that this process has used lately, bounded by bytes, in two segments so that a scan cannot empty it.

A segmented LRU (Karedla, Love, Wherry: "Caching strategies to improve disk system performance", IEEE Computer 1994): a new
block enters the probation segment, and one that is used again there moves to the protected segment, which may hold four
fifths of the bytes. What the protected segment has no room for goes back to probation, and only probation is evicted from.
So thousands of symbols that are read once each pass through one fifth of the memory and leave the rest as it was. The keys
of what was evicted lately are remembered (Johnson, Shasha: "2Q", VLDB 1994): a block that comes again so soon is protected at
once, or a round of symbols larger than probation would never get in.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, NamedTuple

import numpy as np

from marketdata.cache.block import Block, BlockKey
from marketdata.cache.metrics import Counts
from marketdata.series import COLUMNS, Series

PROTECTED: Final = 0.8
"""The protected segment's share of the bytes."""

_OVERHEAD: Final = 2000
"""Bytes of a block's Python objects: ten arrays, the key, the entry in the segment; measured with tracemalloc."""
_ORDINAL: Final = 32
"""Bytes of one int in a set of days."""


class _Entry(NamedTuple):
    block: Block
    size: int


Segment = OrderedDict[BlockKey, _Entry]


class Memory:
    """Safe to use from several threads; no call does I/O. ``limit``: bytes that are never exceeded."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.counts = Counts()
        self._lock = threading.Lock()
        self._probation: Segment = OrderedDict()
        self._protected: Segment = OrderedDict()
        self._evicted: OrderedDict[BlockKey, None] = OrderedDict()
        self._bytes = 0
        self._protected_bytes = 0

    def __len__(self) -> int:
        return len(self._probation) + len(self._protected)

    @property
    def nbytes(self) -> int:
        """Bytes that the blocks take."""
        return self._bytes

    def peek(self, key: BlockKey) -> Block | None:
        """The block, without counting it as used or missed."""
        return self.peek_many((key,)).get(key)

    def peek_many(self, keys: Iterable[BlockKey]) -> dict[BlockKey, Block]:
        """Those of the blocks that are here, without counting them as used or missed."""
        with self._lock:
            return {key: entry.block for key in keys if (entry := self._protected.get(key) or self._probation.get(key))}

    def get(self, key: BlockKey) -> Block | None:
        """The block, which counts as used."""
        return self.get_many((key,)).get(key)

    def get_many(self, keys: Collection[BlockKey]) -> dict[BlockKey, Block]:
        """Those of the blocks that are here, which count as used."""
        with self._lock:
            found = {key: entry.block for key in keys if (entry := self._use(key))}
        self.counts.add(hits=len(found), misses=len(keys) - len(found))
        return found

    def put(self, key: BlockKey, block: Block) -> None:
        """Keep a block, in the place of the one before. One that is larger than probation's fifth is not kept at all."""
        series = own(block.series)
        block = block if series is block.series else Block(series, block.days, block.fetched_at)
        size = size_of(block)
        with self._lock:
            used = key in self._protected or key in self._evicted
            self._evicted.pop(key, None)
            self._drop(key)
            if size > self.limit * (1 - PROTECTED):
                self.counts.add(refused=1)
                return
            self._bytes += size
            if used:
                self._protect(key, _Entry(block, size))
            else:
                self._probation[key] = _Entry(block, size)
            self._evict()
        self.counts.add(writes=1)

    def remove(self, chosen: Callable[[BlockKey], bool]) -> int:
        """Drop the blocks whose keys are chosen; how many there were."""
        with self._lock:
            keys = [key for segment in (self._probation, self._protected) for key in segment if chosen(key)]
            for key in keys:
                self._drop(key)
        return len(keys)

    def _use(self, key: BlockKey) -> _Entry | None:
        entry = self._protected.get(key)
        if entry is not None:
            self._protected.move_to_end(key)
            return entry
        entry = self._probation.pop(key, None)
        if entry is not None:
            self._protect(key, entry)
        return entry

    def _protect(self, key: BlockKey, entry: _Entry) -> None:
        self._protected[key] = entry
        self._protected_bytes += entry.size
        while self._protected_bytes > self.limit * PROTECTED:
            oldest, moved = self._protected.popitem(last=False)
            self._protected_bytes -= moved.size
            self._probation[oldest] = moved

    def _evict(self) -> None:
        evicted = 0
        while self._bytes > self.limit:
            key, entry = self._probation.popitem(last=False)
            self._bytes -= entry.size
            self._evicted[key] = None
            evicted += 1
        while len(self._evicted) > len(self):
            self._evicted.popitem(last=False)
        self.counts.add(evictions=evicted)

    def _drop(self, key: BlockKey) -> None:
        if entry := self._probation.pop(key, None):
            self._bytes -= entry.size
        elif entry := self._protected.pop(key, None):
            self._bytes -= entry.size
            self._protected_bytes -= entry.size


def size_of(block: Block) -> int:
    """Bytes that a block takes in memory, its days and objects included."""
    return block.series.nbytes + sys.getsizeof(block.days) + _ORDINAL * len(block.days) + _OVERHEAD


def own(series: Series) -> Series:
    """Bars that hold no more memory than their own: a view would keep all of what it was cut from."""
    columns: list[np.ndarray[Any, Any]] = [getattr(series, name) for name in COLUMNS]
    if not any(isinstance(column.base, np.ndarray) and column.base.size > column.size for column in columns):
        return series
    return Series(*(np.array(column) for column in columns))
