"""Replays to single clients: a recorded day from a moment on, played into a hub of the client's own.

The frames are those of the live stream, made by the same hub from the same bytes, with the epoch and the seq under which they
were published. The clock starts with the first subscription; a client that falls behind is waited for, so a replay loses
nothing. Pauses of more than two hours (a night, a weekend) are skipped. When the recording is over the client is told so and
the connection is closed with 1000.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from itertools import islice
from typing import Final, NamedTuple

import msgspec
import structlog
from prometheus_client import Gauge

from argus.config import config
from argus.errors import INTERNAL, INVALID_ARGUMENT, NO_RECORDING, REPLAY_LIMIT, ArgusError
from marketdata import events, klines, periods, universe
from marketdata.batch import Bars, Batch, Events, encode
from marketdata.builder import BarBuilder
from marketdata.calendar import SHANGHAI, day_of, midnight
from marketdata.events import Event
from marketdata.history.query import read_time
from marketdata.latest import LatestStore
from marketdata.publish import feed_names
from marketdata.recordings.archive import DamagedRecording, RecordingArchive
from marketdata.recordings.columns import TRADES, Message
from marketdata.recordings.reader import before, play, play_all, symbols_of
from marketdata.reference.days import calendar_of
from marketdata.statuses import Statuses
from marketdata.types import KLINES, DataType, Period, Quote
from streaming.connection import Connection
from streaming.heartbeat import Heartbeats
from streaming.hub import Hub
from streaming.protocol import Finished

log = structlog.get_logger(__name__)
RUNNING = Gauge("argus_replays", "Replays to single clients that run in this process")
_decode = msgspec.json.Decoder(Quote).decode

FASTEST: Final = 1000.0
CHUNK: Final = 64
"""Messages that are read from the disk at a time, in a thread."""
WantedBars = Mapping[Period, frozenset[str] | None]
SKIPPED_PAUSE: Final = 2 * 3600 * 1000
"""Milliseconds; lunch has 1.5 h."""
TICK: Final = 0.05
"""Seconds between two looks of the hub at what time brings about."""
NORMAL_CLOSURE: Final = 1000


class Asked(NamedTuple):
    """What a client asks for: the market's time to begin at (ms), and how many times faster than recorded (0: unpaced)."""

    start: int
    speed: float


def asked(query: Mapping[str, Sequence[str]]) -> Asked | None:
    """What a URL's query asks for; None where it asks for no replay. Raises ``ArgusError``."""
    if "replay" not in query:
        if "speed" in query:
            raise ArgusError(INVALID_ARGUMENT, "speed belongs to a replay: ?replay=2022-06-01T09:15&speed=20", parameter="speed")
        return None
    start = read_time(query["replay"][0], "replay", is_end=False)
    try:
        day_of(start)
    except (ValueError, OverflowError):
        raise ArgusError(INVALID_ARGUMENT, "replay lies before the year 1.", parameter="replay") from None
    shown = query.get("speed", ["1"])[0]
    try:
        speed = float(shown)
    except ValueError:
        speed = -1.0
    if not 0 <= speed <= FASTEST:
        detail = f"speed={shown[:40]!r} is not 0 to {FASTEST:g}; 1 is as recorded, 0 as fast as you read."
        raise ArgusError(INVALID_ARGUMENT, detail, parameter="speed")
    return Asked(start, speed)


class Replay:
    """One client's replay. Made by ``begin``; ``close`` ends it."""

    def __init__(self, connection: Connection, what: Asked, archive: RecordingArchive) -> None:
        self.hub = Hub(LatestStore())
        self.universe = universe.Universe(symbols=())
        self._connection = connection
        self._asked = what
        self._archive = archive
        self._feed = feed_names()[0]
        self._builder = BarBuilder(calendar_of)
        self._statuses = Statuses()
        self._told: klines.Wanted = {}
        self._origin = 0.0
        """The monotonic time at which the replay's clock began."""
        self._closed = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Take the client in and play to it."""
        self.hub.attach(self._connection)
        runs = {"play": self._run(), "tick": self._tick(), "heartbeats": Heartbeats(self.hub).run()}
        self._tasks = [asyncio.create_task(run, name=f"replay-{name}") for name, run in runs.items()]

    def close(self) -> None:
        """End it. Idempotent."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        self.hub.detach(self._connection)
        _running.discard(self)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self.hub.tick(time.monotonic())

    async def _run(self) -> None:
        try:
            await self._play()
        except Exception as error:
            # The edge of this task, beyond which nobody would notice.
            log.exception("replay_failed", connection=self._connection.id, detail=str(error))
            self._connection.close(INTERNAL)

    async def _play(self) -> None:
        connection = self._connection
        while not connection.views:
            await asyncio.sleep(TICK)
        state = await asyncio.to_thread(before, self._archive, self._asked.start)
        if state is not None:
            self._statuses.take(_bodies(state))
            self._receive(state._replace(at=self._asked.start), {}, {})
        recorded = play_all(self._archive, self._asked.start)
        self._origin, shift, last = time.monotonic(), self._asked.start, self._asked.start
        while chunk := await asyncio.to_thread(_some, recorded):
            for message, trades in chunk:
                if message.at - last > SKIPPED_PAUSE:
                    shift += message.at - last
                last = message.at
                if self._asked.speed:
                    due = self._origin + (message.at - shift) / 1000 / self._asked.speed
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                while connection.behind_since is not None:
                    await asyncio.sleep(TICK)
                bars, closed = await self._bars(message)
                self._receive(message, bars, self._status(message) | trades | closed)
                # Unpaced messages come without a pause: the transports and the other clients must get their turn.
                await asyncio.sleep(0)
        connection.say(Finished(time=last))
        connection.close(NORMAL_CLOSURE, "replay finished")

    def _status(self, message: Message) -> Events:
        changes = self._statuses.take(_bodies(message))
        return events.numbered((Event(DataType.STATUS, *change) for change in changes), _tail(message))

    async def _bars(self, message: Message) -> tuple[Bars, Events]:
        """What the message does to the bars that the client covers; those that it covers anew begin with what forms."""
        covered = {what: names for what, names in self.hub.wanted().items() if what in KLINES}
        wanted, had = klines.by_period(covered), self._told
        began = covered != had
        if began:
            self._builder, self._told = BarBuilder(calendar_of), covered
            if wanted:
                symbols, looked = frozenset(self.universe.symbols), time.monotonic()
                self._builder = await asyncio.to_thread(_begun, self._archive, wanted, symbols, message, lambda: self._closed)
                # The clock has stood meanwhile.
                self._origin += time.monotonic() - looked
        if not wanted:
            return {}, {}
        self._builder.take(_quotes(message, _names(wanted)))
        self._builder.advance(message.at)
        bars = self._builder.drain(wanted)
        if began:
            bars += self._builder.current(klines.by_period(klines.beyond(covered, had)))
        return klines.numbered(klines.group(bars), _tail(message))

    def _receive(self, message: Message, bars: Bars, happened: Events) -> None:
        now = time.time_ns() // 1_000_000
        self.hub.receive(
            encode(
                Batch(
                    feed=self._feed,
                    epoch=message.epoch,
                    seq=message.seq,
                    published=now,
                    source=config.source,
                    canary=now,
                    clock=message.at,
                    snapshot=False,
                    symbols=message.symbols,
                    fragments=message.fragments,
                    bars=bars,
                    events=happened,
                )
            )
        )


def _some(recorded: Iterator[tuple[Message, Events]]) -> list[tuple[Message, Events]]:
    return list(islice(recorded, CHUNK))


def _tail(message: Message) -> bytes:
    return b',"seq":%d}' % message.seq


def _bodies(message: Message) -> dict[str, bytes]:
    return dict(zip(message.symbols, message.fragments, strict=True))


def _names(wanted: WantedBars) -> frozenset[str] | None:
    """The symbols of which some bar is wanted; None for all."""
    parts = wanted.values()
    return None if None in parts else frozenset[str]().union(*(names for names in parts if names is not None))


def _quotes(message: Message, names: frozenset[str] | None) -> Iterator[Quote]:
    for symbol, fragment in zip(message.symbols, message.fragments, strict=True):
        if names is None or symbol in names:
            yield _decode(fragment)


def _begun(
    archive: RecordingArchive, wanted: WantedBars, symbols: frozenset[str], until: Message, given_up: Callable[[], bool]
) -> BarBuilder:
    """A builder that has seen what was recorded since the wanted bars began, up to a message without it, or until given up."""
    builder, names = BarBuilder(calendar_of), _names(wanted)
    start = min(_begin(symbol, period, until.at) for period in wanted for symbol in (symbols if names is None else names))
    if (state := before(archive, start)) is not None:
        builder.take(_quotes(state, names))
    for message in play(archive, start, names):
        if given_up() or (message.at, message.epoch, message.seq) >= (until.at, until.epoch, until.seq):
            break
        builder.take(map(_decode, message.fragments))
        builder.advance(message.at)
        builder.drain({})
    return builder


def _begin(symbol: str, period: Period, at: int) -> int:
    """The beginning of the bar before the one that forms at a time (ms), as that may not have closed yet; of a day's bar it is
    the time itself, as every quote has all of its day."""
    if period is Period.D1:
        return at
    start = midnight(day_of(at))
    try:
        ends = periods.bar_ends(periods.hours_of(symbol), period)
    except periods.UnknownHours:
        return at
    position = bisect_left(ends, at - start)
    return start + (ends[position - 2] if position > 1 else 0)


_running: set[Replay] = set()
RUNNING.set_function(lambda: len(_running))


async def begin(connection: Connection, what: Asked) -> Replay:
    """Open the recording of a moment for a client. Raises NO_RECORDING or REPLAY_LIMIT."""
    if len(_running) >= config.replays:
        raise ArgusError(REPLAY_LIMIT, f"{len(_running)} replays are running here, of {config.replays}; try again later.")
    archive = RecordingArchive(config.archive, config.market)
    replay = Replay(connection, what, archive)
    _running.add(replay)
    with ExitStack() as undo:
        undo.callback(_running.discard, replay)
        try:
            symbols = await asyncio.to_thread(_look, archive, what.start)
        except (DamagedRecording, OSError) as error:
            log.error("recording_unreadable", detail=str(error))
            raise ArgusError(NO_RECORDING, f"The recording cannot be read: {error}.", parameter="replay") from error
        undo.pop_all()
    current = universe.current()
    sectors = {name: members for name, members in current.sectors.items() if not symbols.isdisjoint(members)}
    replay.universe = universe.Universe(
        symbols=tuple(sorted(symbols)),
        sectors={name: tuple(symbol for symbol in members if symbol in symbols) for name, members in sectors.items()},
        names={symbol: name for symbol, name in current.names.items() if symbol in symbols},
    )
    return replay


def _look(archive: RecordingArchive, start: int) -> frozenset[str]:
    """The symbols of a moment's day. Raises NO_RECORDING, which says what there is instead."""
    day, archives = day_of(start), (archive, archive.of(TRADES))
    if not any(part.last >= start for one in archives for part in one.parts(day)):
        found = {other for one in archives for other in one.days()}
        days = ", ".join(map(str, sorted(found)[-5:]))
        there = f"there is something of {days}" if days else "nothing has been recorded yet (ARGUS_RECORD)"
        moment = f"{datetime.fromtimestamp(start / 1000, SHANGHAI):%Y-%m-%dT%H:%M:%S}"
        raise ArgusError(NO_RECORDING, f"Nothing was recorded at {moment} or later that day; {there}.", parameter="replay")
    return frozenset[str]().union(*(symbols_of(one, day) for one in archives))
