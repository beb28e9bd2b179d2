"""How many requests a terminal serves at a time, and who is next: request slots with priority classes.

* A free slot goes to the first LIVE request that waits, then to the first BULK request.
* From two slots on, BULK never holds all of them, but one less at most. After ``resize`` to fewer it may hold more for a while,
  and gets none until it holds less.
* And from two slots on, the last free one is kept for LIVE: BULK takes none that would leave no other free.
* So that BULK is not starved for ever: where none of BULK was served for ``patience`` seconds while one waited, the first of
  them counts as LIVE, in the order of arrival and for the last free slot, if BULK does not hold all the others. That is one
  per ``patience`` seconds at most, however many wait: a backlog that has grown old may not crowd out LIVE.
* Each class has a queue with a bound of its own, so that a backlog of BULK leaves LIVE its queue. Beyond it: ``SlotsFull``.
* Fewer slots interrupt nobody: until enough are given back, none is handed out.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from enum import IntEnum

WAITERS = 1000
"""Requests of a class that may wait for one terminal."""
PATIENCE = 10.0
"""Seconds that BULK stands back for LIVE."""


class Priority(IntEnum):
    """Who goes first: the smaller one."""

    LIVE = 0
    """Somebody waits for the answer."""
    BULK = 1
    """Backfills and refreshes."""


class SlotsFull(Exception):
    """So many requests of a class wait for a terminal already that another one makes no sense."""


class Waiter:
    """A request in the queue. ``served``: when it got its slot, by the queue's clock; None while it waits."""

    __slots__ = ("arrived", "number", "priority", "served", "woken")

    def __init__(self, priority: Priority, number: int, arrived: float) -> None:
        self.priority = priority
        self.number = number
        self.arrived = arrived
        self.served: float | None = None
        self.woken = threading.Event()


class Queue:
    """The policy, without threads or a clock: ``now`` is in seconds."""

    def __init__(self, size: int, *, waiters: int = WAITERS, patience: float = PATIENCE) -> None:
        self.size = size
        self._held = dict.fromkeys(Priority, 0)
        self._bound = waiters
        self._patience = patience
        self._lines: dict[Priority, deque[Waiter]] = {priority: deque() for priority in Priority}
        self._numbers = 0
        self._bulk_served = float("-inf")

    @property
    def in_flight(self) -> int:
        """How many slots are taken."""
        return sum(self._held.values())

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._lines.values()))

    def first(self, priority: Priority) -> Waiter | None:
        """The first of a class that waits."""
        line = self._lines[priority]
        return line[0] if line else None

    def join(self, priority: Priority, now: float) -> Waiter:
        """A new request at the end of its class. ``SlotsFull`` where there is no room."""
        line = self._lines[priority]
        if len(line) >= self._bound:
            raise SlotsFull(f"{len(line)} requests wait for a slot already")
        self._numbers += 1
        waiter = Waiter(priority, self._numbers, now)
        line.append(waiter)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """A request that waits does so no more."""
        self._lines[waiter.priority].remove(waiter)

    def release(self, priority: Priority) -> None:
        """A request of that class gives its slot back. Raises ``RuntimeError`` where none of the class holds one."""
        if self._held[priority] == 0:
            raise RuntimeError(f"a {priority.name} slot was released that nobody had acquired")
        self._held[priority] -= 1

    def due(self, waiter: Waiter) -> float:
        """When the first BULK request, if nothing happens before, begins to count as LIVE."""
        return max(waiter.arrived, self._bulk_served) + self._patience

    def serve(self, now: float) -> list[Waiter]:
        """Hand out what is free; those who got a slot, in order."""
        served = []
        while (waiter := self._next(now)) is not None:
            self._lines[waiter.priority].popleft()
            self._held[waiter.priority] += 1
            waiter.served = now
            if waiter.priority is Priority.BULK:
                self._bulk_served = now
            served.append(waiter)
        return served

    def _next(self, now: float) -> Waiter | None:
        free = self.size - self.in_flight
        if free <= 0:
            return None
        live, bulk = self.first(Priority.LIVE), self.first(Priority.BULK)
        if bulk is None or (self.size > 1 and self._held[Priority.BULK] >= self.size - 1):
            return live
        if now >= self.due(bulk):
            return bulk if live is None or bulk.number < live.number else live
        if live is None and (free > 1 or self.size == 1):
            return bulk
        return live


class Slots:
    """One terminal's slots, for any number of threads. Every slot acquired is released once, by whichever thread, as of the
    class that acquired it."""

    def __init__(
        self,
        size: int,
        *,
        waiters: int = WAITERS,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``size``: slots, 0 or more; ``waiters``: bound of each class's queue; ``patience``: see above, in seconds."""
        self._lock = threading.Lock()
        self._queue = Queue(_checked(size), waiters=waiters, patience=patience)
        self._clock = clock
        self._first_bulk: Waiter | None = None

    @property
    def size(self) -> int:
        """How many there are."""
        with self._lock:
            return self._queue.size

    @property
    def in_flight(self) -> int:
        """How many are taken; more than there are for a while after ``resize`` to fewer."""
        with self._lock:
            return self._queue.in_flight

    @property
    def waiting(self) -> int:
        """How many requests wait for one."""
        with self._lock:
            return self._queue.waiting

    def acquire(self, priority: Priority, timeout: float) -> float | None:
        """Wait for a slot, at most ``timeout`` seconds (0: take one now or not at all): the seconds waited, None without one.

        Raises ``SlotsFull`` where too many wait already.
        """
        with self._lock:
            now = self._clock()
            deadline = now + timeout
            waiter = self._queue.join(priority, now)
            self._hand_out(now)
        while True:
            with self._lock:
                now = self._clock()
                if waiter.served is None and waiter is self._first_bulk and now >= self._queue.due(waiter):
                    self._hand_out(now)
                if waiter.served is not None:
                    return waiter.served - waiter.arrived
                if now >= deadline:
                    self._queue.leave(waiter)
                    self._hand_out(now)
                    return None
                wake_at = deadline
                if waiter is self._first_bulk and self._queue.due(waiter) > now:
                    wake_at = min(deadline, self._queue.due(waiter))
                waiter.woken.clear()
            waiter.woken.wait(wake_at - now)

    def release(self, priority: Priority) -> None:
        """Give back a slot that the class holds; it goes to whoever is next. Raises ``RuntimeError`` where it holds none."""
        with self._lock:
            self._queue.release(priority)
            self._hand_out(self._clock())

    def resize(self, size: int) -> None:
        """Have so many slots from now on, 0 or more; those taken stay taken."""
        with self._lock:
            self._queue.size = _checked(size)
            self._hand_out(self._clock())

    def _hand_out(self, now: float) -> None:
        for waiter in self._queue.serve(now):
            waiter.woken.set()
        first = self._queue.first(Priority.BULK)
        if first is not self._first_bulk:
            self._first_bulk = first
            if first is not None:
                first.woken.set()  # it has to look after the moment from which on it counts as LIVE


def _checked(size: int) -> int:
    if size < 0:
        raise ValueError(f"there can be no {size} slots")
    return size
