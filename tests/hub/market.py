"""What the hub's tests put in and look at: batches as a publisher makes them, and a wire that can be stopped."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from argus.access.principal import SCOPE_READ, Limits, Principal
from marketdata import events, klines
from marketdata.batch import Batch, Events, Term, encode
from marketdata.builder import LiveBar
from marketdata.latest import LatestStore
from marketdata.statuses import Statuses
from marketdata.types import DataType, Period, Quote, TradingStatus
from streaming.connection import Connection
from streaming.filters import Filter
from streaming.frame import Frame
from streaming.hub import Hub
from streaming.selection import Frequency, Selection

EPOCH = 1_700_000_000_000


def quote(symbol: str, n: int, *, status: TradingStatus = TradingStatus.CONTINUOUS) -> Quote:
    """The n-th quote of a symbol; each differs from the one before."""
    return Quote(
        symbol=symbol,
        time=EPOCH + n * 3000,
        price=10 + n / 100,
        prev_close=10.0,
        volume=100 * n,
        amount=1000.0 * n,
        bid_price=(10.0,),
        bid_volume=(100 * n,),
        ask_price=(10.5,),
        ask_volume=(200,),
        status=status,
        source="test",
    )


def bar(symbol: str, minute: int, *, volume: int = 100, closed: bool = False, period: Period = Period.M1) -> LiveBar:
    """A bar of a symbol that ends with a minute."""
    return LiveBar(
        symbol=symbol,
        period=period,
        time=EPOCH + minute * 60_000,
        open=10.0,
        high=11.0,
        low=9.0,
        close=10.5,
        volume=volume,
        amount=10.2 * volume,
        closed=closed,
        provisional=True,
        source="test",
    )


def fragment(value: Quote, seq: int) -> bytes:
    """A quote as a publisher encodes it."""
    return msgspec.json.encode(value)[:-1] + b',"seq":%d}' % seq


def blob(
    quotes: Iterable[Quote],
    seq: int,
    *,
    feed: str = "main",
    epoch: int = 1,
    snapshot: bool = False,
    published: float | None = None,
    seqs: Mapping[str, int] | None = None,
    bars: Iterable[LiveBar] = (),
    term: Term | None = None,
    happened: Events | None = None,
    canary: int | None = EPOCH,
) -> bytes:
    """A message of a feed. ``seqs`` are the seqs of a snapshot's fragments where they differ from its own."""
    values = list(quotes)
    forming, closed = klines.numbered(klines.group(bars), b',"seq":%d}' % seq)
    return encode(
        Batch(
            feed=feed,
            epoch=epoch,
            seq=seq,
            published=int((time.time() if published is None else published) * 1000),
            source="test",
            canary=canary,
            clock=None,
            snapshot=snapshot,
            symbols=[value.symbol for value in values],
            fragments=[fragment(value, (seqs or {}).get(value.symbol, seq)) for value in values],
            bars=forming,
            term=term,
            events=closed | dict(happened or {}),
        )
    )


def changes(quotes: Iterable[Quote], seq: int, statuses: Statuses | None = None) -> Events:
    """The changes of status in quotes, as a publisher says them; without ``statuses`` each is the first of its symbol."""
    found = (statuses or Statuses()).take({value.symbol: msgspec.json.encode(value) for value in quotes})
    return events.numbered((events.Event(DataType.STATUS, *change) for change in found), b',"seq":%d}' % seq)


def read(frame: Frame) -> dict[str, Any]:
    """A message of whatever codec."""
    payload = frame.payload()
    if not frame.binary:
        return dict(msgspec.json.decode(payload))
    if payload[:1] == b"\x78":
        return dict(msgspec.json.decode(zlib.decompress(payload)))
    return dict(msgspec.msgpack.decode(payload))


class StoppableWire:
    """A wire at the edge: keeps what was written, and has room or not as the test says."""

    def __init__(self) -> None:
        self.on_room: Callable[[], None] | None = None
        self.messages: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None
        self.aborted = False
        self.budget: int | None = None
        """How many more frames there is room for; None: any number."""

    def room(self) -> bool:
        return self.budget is None or self.budget > 0

    def write(self, frame: Frame) -> None:
        if self.aborted:
            return
        if self.budget is not None:
            self.budget -= 1
        self.messages.append(read(frame))

    def pending(self) -> int:
        return 0 if self.budget is None else 1

    def close(self, code: int, reason: str = "") -> None:
        self.closed = (code, reason)

    def abort(self) -> None:
        self.aborted = True

    def stop(self) -> None:
        """The client reads no more."""
        self.budget = 0

    def allow(self, frames: int | None) -> None:
        """The client reads so many frames, or (None) as fast as they come."""
        self.budget = frames
        if self.room() and self.on_room is not None:
            self.on_room()

    @property
    def data(self) -> list[dict[str, Any]]:
        """All fragments, in the order of their arrival."""
        return [piece for message in self.messages if message["type"] == "data" for piece in message["data"]]

    def take(self) -> list[dict[str, Any]]:
        """The messages since the last call."""
        messages, self.messages = self.messages, []
        return messages


class Client:
    """A connection to a hub through a stoppable wire."""

    def __init__(self, hub: Hub, name: str = "one", *, principal: Principal | None = None) -> None:
        self.hub = hub
        self.wire = StoppableWire()
        self.connection = Connection(name, principal, self.wire, None)
        hub.attach(self.connection)

    def cover(
        self,
        symbols: Iterable[str] | None,
        *types: DataType,
        frequency: Frequency = Frequency.REALTIME,
        filter: Filter | None = None,
    ) -> None:
        """Replace what is received by one selection."""
        chosen = Selection(
            symbols=None if symbols is None else frozenset(symbols),
            data_types=frozenset(types or (DataType.QUOTE,)),
            frequency=frequency,
            filter=filter,
        )
        self.hub.cover(self.connection, {"main": chosen})


def principal(*, key_id: int = 1, priority: int = 1) -> Principal:
    """Somebody with a key."""
    limits = Limits(requests_per_minute=60, connections=10, symbols=6000, data_types=frozenset(DataType), priority=priority)
    return Principal(key_id=key_id, prefix="test", plan="test", scopes=frozenset({SCOPE_READ}), limits=limits)


def make_hub() -> Hub:
    """A hub with a store of its own."""
    return Hub(LatestStore())
