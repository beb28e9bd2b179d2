"""All that a serving process runs beside its requests, one set per event loop: started once, stopped within 2 s."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import Context
from itertools import cycle

import structlog
from asgiref.sync import sync_to_async
from django.db import Error as DatabaseError
from django.db import close_old_connections

from argus.access import limits
from argus.access.principal import Principal
from argus.access.watch import Watcher
from argus.config import config
from argus.errors import GOODBYE_RESTART, ArgusError
from marketdata import universe
from marketdata.journal import journal
from marketdata.latest import store
from marketdata.ledger import Position
from marketdata.terminals import health as terminals
from marketdata.terminals import keeper, probing
from marketdata.terminals.declare import DeclarationError
from streaming.admission import Admission
from streaming.codecs import Announcement
from streaming.heartbeat import Heartbeats
from streaming.hub import Hub
from streaming.past import Past
from streaming.presence import Presence
from streaming.protocol import Failure, Goodbye
from streaming.reader import Reader
from streaming.relief import Relief
from streaming.saved import Keeper
from streaming.snapshots import Snapshots
from streaming.wants import Wants

log = structlog.get_logger(__name__)

TICK = 0.05
"""Seconds between two looks of the hub at what time brings about."""
UNIVERSE_INTERVAL = 5.0
"""Seconds between two questions whether the instruments or the sectors have changed."""
RENEWALS = 20
"""Parts in which the leases of the connections are renewed."""
ROUND_INTERVAL = 1.0
"""Seconds between two rounds of what this process does about the pools."""
RECONNECT_AFTER_MS = 1500
"""What clients are told to wait for when this process stops."""
FAREWELL = 0.8
"""Seconds for the clients' closing handshakes."""
LAST_WORDS = 1.1
"""Seconds for the tasks to end after that."""
CATCH_UP = 5.0
"""Seconds that a process which has just started waits for what the feeds have published before."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a task that failed is started again: doubled each time until it has run for longer than that."""

Run = Callable[[], Awaitable[None]]


class Runtime:
    """One event loop's hub and the tasks around it."""

    def __init__(self) -> None:
        self.past = Past(journal())
        self.hub = Hub(store, self._missed, self._events_missed, self.past)
        self.snapshots = Snapshots(self.hub)
        self.wants = Wants(self.hub)
        self.sessions = Keeper()
        self.universe_read = asyncio.Event()
        self._healing: dict[str, asyncio.Task[None]] = {}
        self.admission = Admission(config.admit_per_second, time.monotonic()) if config.admit_per_second else None
        self.relief = Relief(self.hub)
        self.stopped = False
        self._begun = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start all tasks; each is started again if it fails."""
        runs: dict[str, Run] = {
            "reader": Reader(self.hub, self._joined).run,
            "wants": self.wants.run,
            "sessions": self.sessions.run,
            "tick": self._tick,
            "heartbeats": Heartbeats(self.hub).run,
            "keys": Watcher(self._key_changed).run,
            "leases": self._renew_leases,
            "presence": Presence(self.hub).run,
            "universe": self._refresh_universe,
            "pools": self._go_rounds,
        }
        # An empty context: started by a first request, they would carry its request id in their logs for ever.
        self._tasks = [
            asyncio.create_task(_keep(name, run), name=f"argus-{name}", context=Context()) for name, run in runs.items()
        ]
        _settle()

    async def stop(self) -> None:
        """Say goodbye to every client, close with 1012, end all tasks; within 2 s. Idempotent."""
        if self.stopped:
            return
        self.stopped = True
        goodbye = Announcement(Goodbye(reason="restart", reconnect_after_ms=RECONNECT_AFTER_MS))
        for connection in list(self.hub.connections.values()):
            connection.say(goodbye)
            connection.close(GOODBYE_RESTART, "restart")
        deadline = time.monotonic() + FAREWELL
        while self.hub.connections and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        for connection in list(self.hub.connections.values()):
            connection.wire.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait([*self._tasks, asyncio.create_task(self.snapshots.stop())], timeout=LAST_WORDS)
        await limits.quota().close()

    def _missed(self, feed: str, epoch: int, seq: int) -> None:
        self.snapshots.want(feed, epoch, seq)
        self.wants.lost()

    def _events_missed(self, feed: str, after: Position, until: Position) -> None:
        """Look for events that this process has not heard; a feed's next gap waits for the one before."""
        before = self._healing.get(feed)
        task = asyncio.create_task(self._heal(feed, after, until, before))
        self._healing[feed] = task
        task.add_done_callback(lambda done: self._healing.pop(feed, None) if self._healing.get(feed) is done else None)

    async def _heal(self, feed: str, after: Position, until: Position, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        self.hub.heal(feed, after, until, await self.past.read(feed, after, until))

    def _joined(self) -> None:
        self.snapshots.load_all()
        self.wants.lost()

    async def _tick(self) -> None:
        while True:
            due = time.monotonic() + TICK
            await asyncio.sleep(TICK)
            now = time.monotonic()
            self.relief.tick(now, due)
            self.hub.tick(now)

    def _key_changed(self, key_id: int, now: Principal | ArgusError) -> None:
        for connection in self.hub.of_key(key_id):
            if isinstance(now, ArgusError):
                connection.say(Failure(now))
                connection.close(now.problem)
            elif connection.on_principal is not None:
                connection.on_principal(now)

    async def _renew_leases(self) -> None:
        """Renew each within ``limits.RENEW`` seconds: all at once would hold up the fan-out."""
        for part in cycle(range(RENEWALS)):
            await asyncio.sleep(limits.RENEW / RENEWALS)
            await limits.quota().renew([id for id in self.hub.connections if hash(id) % RENEWALS == part])

    async def _refresh_universe(self) -> None:
        while True:
            try:
                changed = await universe.refresh()
            except DatabaseError as error:
                log.warning("universe_not_refreshed", error=type(error).__name__)
            else:
                self.universe_read.set()
                if changed:
                    for connection in list(self.hub.connections.values()):
                        if connection.on_universe is not None:
                            connection.on_universe()
            await asyncio.sleep(UNIVERSE_INTERVAL)

    async def _go_rounds(self) -> None:
        away = False
        if not self._begun:
            self._begun = True
            try:
                await sync_to_async(keeper.begin)()
            except DeclarationError as error:
                # Our own commands refuse to start; under another server the rows stay as they are.
                log.error("pools_not_declared", detail=str(error))
        try:
            while True:
                try:
                    await sync_to_async(_go_round)()
                    away = False
                except DatabaseError as error:
                    if not away:
                        log.warning("round_failed", error=type(error).__name__)
                    away = True
                await asyncio.sleep(ROUND_INTERVAL)
        finally:
            with suppress(DatabaseError):
                await sync_to_async(keeper.leave)()


def _go_round() -> None:
    """Follow the roster, report, judge the terminals for those who may not ask the database, and answer who probes one of them
    from another process."""
    try:
        keeper.go_round()
        terminals.refresh()
        if not config.redis_url:
            probing.answer_rows()
    finally:
        close_old_connections()


async def _keep(name: str, run: Run) -> None:
    pause = FIRST_PAUSE
    while True:
        began = time.monotonic()
        try:
            await run()
        except Exception:
            # The edge of the process for its tasks: whatever it was, the others go on and this one begins anew.
            log.exception("task_failed", task=name, again_in=pause)
        if time.monotonic() - began > LONGEST_PAUSE:
            pause = FIRST_PAUSE
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _settle() -> None:
    """Take what was loaded at the start out of the garbage collector's sight, once: its rounds cost half of the fan-out."""
    if gc.get_freeze_count() == 0:
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)


_runtimes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Runtime] = weakref.WeakKeyDictionary()


def current() -> Runtime | None:
    """The runtime of the running event loop; None where it has not been started or has been stopped."""
    try:
        runtime = _runtimes.get(asyncio.get_running_loop())
    except RuntimeError:
        return None
    return None if runtime is None or runtime.stopped else runtime


async def ensure_started() -> Runtime:
    """The running event loop's runtime, started if need be. Costs nothing when it is; once stopped it stays so."""
    loop = asyncio.get_running_loop()
    runtime = _runtimes.get(loop)
    if runtime is None:
        runtime = _runtimes[loop] = Runtime()
        runtime.start()
    return runtime


async def caught_up(since: Mapping[str, Position] | None = None) -> None:
    """Wait until the running event loop's runtime knows what there is and how the feeds stand, each as far as ``since`` at least,
    or until that has taken too long."""
    found = await ensure_started()
    with suppress(TimeoutError):
        async with asyncio.timeout(CATCH_UP):
            await found.universe_read.wait()
            while not found.snapshots.loaded.is_set() or any(found.hub.whole(feed) < at for feed, at in (since or {}).items()):
                await asyncio.sleep(TICK)


async def stop() -> None:
    """Stop the running event loop's runtime, if there is one."""
    runtime = _runtimes.get(asyncio.get_running_loop())
    if runtime is not None:
        await runtime.stop()
