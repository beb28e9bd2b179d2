"""What a subscriber has chosen: the value that sessions make and the hub serves."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from marketdata.types import DataType
from streaming.filters import Filter


class Frequency(StrEnum):
    """How often a subscriber wants the newest: every change, or merged to the newest at each tick."""

    REALTIME = "realtime"
    S1 = "1s"
    S5 = "5s"
    M1 = "1m"

    @property
    def seconds(self) -> float:
        """The length of the merge, 0 for none."""
        return {"realtime": 0.0, "1s": 1.0, "5s": 5.0, "1m": 60.0}[self.value]


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """One named subscription. ``symbols`` is None for every symbol there is, now and later."""

    symbols: frozenset[str] | None
    data_types: frozenset[DataType]
    frequency: Frequency = Frequency.REALTIME
    filter: Filter | None = None
    ack: bool = False
    """Whether the client acknowledges what it is sent."""
