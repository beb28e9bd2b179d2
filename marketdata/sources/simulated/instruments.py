"""The simulated exchanges' lists: boards with their codes and rules, instruments and sectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from marketdata.calendar import Phase, phases_of
from marketdata.sources.simulated.chance import mix

MOST = 5500


class Board(NamedTuple):
    """A board's rules, the same for all its instruments.

    ``codes`` are first codes and how many follow on each. ``limit`` is the daily price limit in percent, ``smallest`` the
    smallest order in shares and ``step`` what it grows by (SSE and SZSE trading rules 2023, 3.3; BSE trading rules 2021,
    3.3). ``after_hours``: it has the fixed-price session after the close.
    """

    market: str
    codes: tuple[tuple[int, int], ...]
    limit: int
    smallest: int
    step: int
    after_hours: bool
    sectors: tuple[str, ...]


SSE = ("沪深A股", "上证A股")
SZSE = ("沪深A股", "深证A股")

BOARDS = (
    Board("SH", ((600000, 745), (601000, 225), (603000, 612), (605000, 110)), 10, 100, 100, False, SSE),
    Board("SH", ((688001, 608),), 20, 200, 1, True, (*SSE, "科创板")),
    Board("SZ", ((1, 412), (1201, 118), (2001, 920), (3001, 42)), 10, 100, 100, False, SZSE),
    Board("SZ", ((300001, 935), (301001, 463)), 20, 100, 100, True, (*SZSE, "创业板")),
    Board("BJ", ((920000, 310),), 30, 100, 1, False, ("京市A股",)),
)
"""As many on each board as were listed there in July 2026, scaled to ``MOST``."""

INDUSTRIES = ("银行", "电子", "医药生物", "食品饮料", "电力设备", "计算机", "汽车", "有色金属", "机械设备", "交通运输")

CSI_300 = "沪深300"


class Listing(NamedTuple):
    """One instrument. ``activity`` is the chance of an event in a 3 s snapshot; ``key`` names it to ``chance``."""

    symbol: str
    name: str
    board: Board
    industry: str
    activity: float
    key: int
    phases: tuple[Phase, ...]


def _codes(board: Board) -> list[int]:
    return [first + offset for first, count in board.codes for offset in range(count)]


@lru_cache(maxsize=4)
def listings(count: int = MOST) -> tuple[Listing, ...]:
    """The first ``count`` instruments, each board in its real proportion; a larger market holds every smaller one."""
    places = [
        ((position + 0.5) / len(codes), board, code)
        for board in BOARDS
        for codes in [_codes(board)]
        for position, code in enumerate(codes)
    ]
    places.sort(key=lambda place: place[0])
    return tuple(_listing(index, board, code) for index, (_, board, code) in enumerate(places[:count]))


def _listing(index: int, board: Board, code: int) -> Listing:
    return Listing(
        symbol=f"{code:06d}.{board.market}",
        name=f"模拟{index + 1:04d}",
        board=board,
        industry=INDUSTRIES[index % len(INDUSTRIES)],
        activity=_activity(index),
        key=mix(code, ord(board.market[1])),
        phases=phases_of(board.market, after_hours=board.after_hours),
    )


def _activity(index: int) -> float:
    """Heavy-tailed: 0.3 % of the instruments have an event in nearly each snapshot, half of them in 1 of 20 or fewer.

    The steps of the golden ratio spread every market size evenly over the distribution; the first one is the most active.
    """
    rank = (0.002 + index * 0.6180339887498949) % 1
    return min(0.98, 0.03 * math.pow(rank, -0.6))


def sectors(market: Sequence[Listing]) -> dict[str, tuple[str, ...]]:
    """Sector -> its constituents, in the order of symbols; sectors without any are left out."""
    found: dict[str, list[str]] = {}
    for listing in market:
        for sector in (*listing.board.sectors, listing.industry):
            found.setdefault(sector, []).append(listing.symbol)
    large = sorted((item for item in market if item.board.market != "BJ"), key=lambda item: -item.activity)[:300]
    if large:
        found[CSI_300] = [listing.symbol for listing in large]
    return {sector: tuple(sorted(symbols)) for sector, symbols in found.items()}
