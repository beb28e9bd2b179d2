"""Threads that ask beside the caller's own: bounded, and where none is free the caller does it himself, so nothing ever queues.

They are daemons: a process may end while one waits for a terminal that hangs.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from queue import SimpleQueue
from typing import Final, TypeVar

import structlog
from django.db import connections

log = structlog.get_logger(__name__)
T = TypeVar("T")

MOST: Final = 64


class Hands:
    """At most ``most`` threads, made when they are first needed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._made = 0
        self._free = 0
        self._work: SimpleQueue[tuple[contextvars.Context, Callable[[], None]]] = SimpleQueue()

    def take(self, work: Callable[[], None]) -> bool:
        """Begin it at once, in the caller's context; False where all are busy. What it raises is logged and goes nowhere."""
        with self._lock:
            if self._free:
                self._free -= 1
            elif self._made == self._most or not self._make():
                return False
        self._work.put((contextvars.copy_context(), work))
        return True

    def _make(self) -> bool:
        """One thread more; False where the system gives none."""
        try:
            threading.Thread(target=self._run, name=f"ask-{self._made + 1}", daemon=True).start()
        except RuntimeError as error:
            log.warning("no_thread", made=self._made, detail=str(error))
            return False
        self._made += 1
        return True

    def _run(self) -> None:
        while True:
            context, work = self._work.get()
            try:
                context.run(work)
            except BaseException:
                # The edge of this thread: it is needed for the next one.
                log.exception("asking_failed")
            del context, work
            connections.close_all()
            with self._lock:
                self._free += 1


spare = Hands(MOST)
"""This process'."""


def side_by_side(works: Sequence[Callable[[], T]]) -> list[T]:
    """What each of them returns, in order; the first in the caller's thread, and so are those for which no other is free. All
    of them have ended when it returns or raises what the first one that failed raised: each keeps its own deadline."""
    results: list[Future[T]] = [Future() for _ in works]
    left = [
        partial(_settle, result, work)
        for number, (result, work) in enumerate(zip(results, works, strict=True))
        if number == 0 or not spare.take(partial(_settle, result, work))
    ]
    for settle in left:
        settle()
    wait(results)
    return [result.result() for result in results]


def _settle(result: Future[T], work: Callable[[], T]) -> None:
    try:
        result.set_result(work())
    except BaseException as error:  # noqa: BLE001 - it is raised again where the result is asked for
        result.set_exception(error)
