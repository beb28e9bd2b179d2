"""Recorded Level-2 trades as an emulated terminal sends them: every row raw, cancels among them.

Independent of the reader under test. Reads the vendors' zipped CSV files of trades in place.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.emulator.moments import milliseconds

FLAGS: Final = {"1": 1, "2": 2, "B": 1, "S": 2}
"""The recordings' words for the side -> ``tradeFlag``."""
CANCEL: Final = 3


class Execution(NamedTuple):
    """One row; ``time`` in ms."""

    time: int
    code: str
    row: dict[str, Any]


def is_level2(path: Path) -> bool:
    """Whether a file holds trades."""
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as member:
        return b"TradeBSFlag" in member.readline()


def executions(path: Path) -> Iterator[Execution]:
    """In the file's order."""
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as member:
        for cells in csv.DictReader(io.TextIOWrapper(member, "utf-8-sig")):
            yield _execution(cells)


def _execution(cells: dict[str, str]) -> Execution:
    both = "Market" in cells
    code = f"{cells['SecurityID']}.{cells['Market']}" if both else cells["SecurityID"]
    time = milliseconds(cells["TradeTime"] if both else f"{cells['MDDate']}T{cells['MDTime']}")
    price, volume = float(cells["TradePrice"]), int(cells["TradeQty"])
    row = {
        "time": time,
        "price": price,
        "volume": volume,
        "amount": price * volume,
        "tradeIndex": int(cells["ApplSeqNum" if both else "TradeIndex"]),
        "buyNo": int(cells["BidApplSeqNum" if both else "TradeBuyNo"]),
        "sellNo": int(cells["OfferApplSeqNum" if both else "TradeSellNo"]),
        "tradeType": 0,
        "tradeFlag": CANCEL if cells.get("ExecType") == "4" else FLAGS.get(cells["TradeBSFlag"], 0),
    }
    return Execution(time, code, row)
