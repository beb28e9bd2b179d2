"""A recorded session as an emulated terminal shows it: every row a raw tick, due at a moment of the wall clock.

Independent of the readers under test. Reads the vendors' zipped CSV files of Shanghai and Shenzhen level-1 snapshots in place,
and those of Level-2 trades (``level2``).
"""

from __future__ import annotations

import datetime
import time
import zipfile
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.emulator.level2 import executions, is_level2
from tests.emulator.moments import CHINA, milliseconds

LEVELS: Final = 5
"""Levels of the book in a tick, as a terminal of level 1 has them."""
STATUS: Final = {
    **{"START": 11, "OCALL": 12, "TRADE": 13, "SUSP": 17, "CCALL": 18, "CLOSE": 15, "ENDTR": 15},
    **{"1": 12, "2": 11, "3": 13, "4": 14, "5": 18, "6": 15},
}
"""What the recordings call the phases -> ``openInt``."""


@dataclass(frozen=True)
class Layout:
    """A vendor's columns. The first three of a row are the symbol and the time, in this order or another."""

    market: str
    time: tuple[str, ...]
    status: str
    bids: tuple[str, str]
    asks: tuple[str, str]
    first_level: int
    trades: str = ""


LAYOUTS: Final = (
    Layout(
        *("SH", ("DateTime",), "InstrumentStatus", ("BidPrice", "BidOrderQty"), ("OfferPrice", "OfferOrderQty"), 0, "NumTrades")
    ),
    Layout("SZ", ("MDDate", "MDTime"), "TradingPhaseCode", ("BuyPrice", "BuyOrderQty"), ("SellPrice", "SellOrderQty"), 1),
)


class Row(NamedTuple):
    """One snapshot of one code; ``time`` in ms. Its cells are read when they are wanted."""

    time: int
    code: str
    file: _File
    line: str

    def tick(self) -> dict[str, Any]:
        """As the terminal sends it."""
        return self.file.tick(self)


class _File:
    """One recorded file."""

    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".csv"))
            header, *self.lines = archive.read(name).decode("utf-8-sig").replace('"', "").splitlines()
        columns = header.split(",")
        self.at = {column: place for place, column in enumerate(columns)}
        self.layout = next(layout for layout in LAYOUTS if layout.status in self.at)

    def rows(self) -> Iterator[Row]:
        """In the file's order."""
        code_at, *time_at = (self.at[name] for name in ("SecurityID", *self.layout.time))
        for line in self.lines:
            cells = line.split(",", 3)
            digits = cells[code_at].partition(".")[0]
            text = "T".join(cells[place] for place in time_at)
            yield Row(milliseconds(text), f"{digits.zfill(6)}.{self.layout.market}", self, line)

    def tick(self, row: Row) -> dict[str, Any]:
        """Volumes in lots of 100 shares, whole ones, and the day's in shares beside it."""
        cells, at, layout = row.line.split(","), self.at, self.layout
        shares = int(cells[at["TotalVolumeTrade"]])
        levels = range(layout.first_level, layout.first_level + LEVELS)

        def side(names: tuple[str, str]) -> tuple[list[float], list[int]]:
            prices, volumes = ([cells[at[f"{name}{level}"]] for level in levels] for name in names)
            return [float(price) for price in prices], [int(volume) // 100 for volume in volumes]

        (bid_price, bid_volume), (ask_price, ask_volume) = side(layout.bids), side(layout.asks)
        last, opened, high, low, close = (
            float(cells[at[name]]) for name in ("LastPx", "OpenPx", "HighPx", "LowPx", "PreClosePx")
        )
        return {
            "time": row.time,
            "lastPrice": last,
            "open": opened,
            "high": high,
            "low": low,
            "lastClose": close,
            "amount": float(cells[at["TotalValueTrade"]]),
            "volume": round(shares / 100),
            "pvolume": shares,
            "stockStatus": 3,
            "openInt": STATUS.get(cells[at[layout.status]], 0),
            "transactionNum": int(cells[at[layout.trades]]) if layout.trades else 0,
            "lastSettlementPrice": close,
            "settlementPrice": 0.0,
            "pe": 0.0,
            "askPrice": ask_price,
            "bidPrice": bid_price,
            "askVol": ask_volume,
            "bidVol": bid_volume,
        }


class Session:
    """Recordings of one day together, by time; rows of a code, and rows of the same time, in their file's order. ``trades`` are
    those of the files of Level 2 among them."""

    def __init__(self, paths: Sequence[Path]) -> None:
        latest: dict[str, int] = {}
        rows: list[Row] = []
        level2 = [path for path in paths if is_level2(path)]
        for path in paths:
            for row in () if path in level2 else _File(path).rows():
                # A row whose time goes back stays behind the one before it.
                latest[row.code] = max(row.time, latest.get(row.code, 0))
                rows.append(row if row.time == latest[row.code] else row._replace(time=latest[row.code]))
        self.rows = sorted(rows, key=lambda row: row.time)
        self.trades = sorted((row for path in level2 for row in executions(path)), key=lambda row: row.time)
        self.codes = sorted(latest.keys() | {row.code for row in self.trades})
        self._times = [row.time for row in self.rows]
        self._trade_times = [row.time for row in self.trades]
        first = min([*self._times[:1], *self._trade_times[:1]])
        self.midnight = first - (first + 8 * 3_600_000) % 86_400_000

    @property
    def day(self) -> int:
        """YYYYMMDD."""
        return int(datetime.datetime.fromtimestamp(self.midnight / 1000, CHINA).strftime("%Y%m%d"))

    def position(self, moment: int) -> int:
        """How many rows there are up to a moment of the session (ms)."""
        return bisect_right(self._times, moment)

    def trade_position(self, moment: int) -> int:
        """The same of the trades."""
        return bisect_right(self._trade_times, moment)

    def state(self, position: int) -> dict[str, Row]:
        """The newest row of each code among the first ``position`` ones."""
        return {row.code: row for row in self.rows[:position]}


@dataclass(frozen=True)
class Pace:
    """At the wall clock's ``anchor`` (seconds since 1970) the session stands at ``start`` (ms); from then on it runs
    ``speed`` times as fast as it was."""

    anchor: float
    start: int
    speed: float

    def moment(self, wall: float) -> int:
        """Where the session stands."""
        return self.start + int((wall - self.anchor) * 1000 * self.speed)

    def due(self, moment: int) -> float:
        """When the session comes to a moment, in seconds since 1970."""
        return self.anchor + (moment - self.start) / 1000 / self.speed


def of_day(session: Session, text: str) -> int:
    """The moment of the session's day (ms) that HH:MM:SS names."""
    moment = datetime.time.fromisoformat(text)
    return session.midnight + ((moment.hour * 60 + moment.minute) * 60 + moment.second) * 1000


class Replay:
    """What of a session has been shown. Whoever starts late, or again, begins with the present state."""

    def __init__(self, session: Session, pace: Pace) -> None:
        self.session = session
        self.pace = pace
        moment = pace.moment(time.time())
        self._next, self._next_trade = session.position(moment), session.trade_position(moment)
        self.beginning = {code: row.tick() for code, row in session.state(self._next).items()}

    @property
    def wait(self) -> float | None:
        """Seconds until the next row is due; None after the last."""
        rows, trades = (
            self.session.rows[self._next : self._next + 1],
            self.session.trades[self._next_trade : self._next_trade + 1],
        )
        times = [*(row.time for row in rows), *(execution.time for execution in trades)]
        return max(0.0, self.pace.due(min(times)) - time.time()) if times else None

    def due_trades(self) -> dict[str, list[dict[str, Any]]]:
        """The trades that have become due, by code."""
        until = self.session.trade_position(self.pace.moment(time.time()))
        found: dict[str, list[dict[str, Any]]] = {}
        for execution in self.session.trades[self._next_trade : until]:
            found.setdefault(execution.code, []).append(execution.row)
        self._next_trade = max(self._next_trade, until)
        return found

    def due(self) -> Iterator[Mapping[str, dict[str, Any]]]:
        """The rows that have become due, each once and in order: as pushes, in which a code stands once at most."""
        until = self.session.position(self.pace.moment(time.time()))
        ticks: dict[str, dict[str, Any]] = {}
        for row in self.session.rows[self._next : until]:
            if row.code in ticks:
                yield ticks
                ticks = {}
            ticks[row.code] = row.tick()
        self._next = max(self._next, until)
        if ticks:
            yield ticks
