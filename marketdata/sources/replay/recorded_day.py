"""A day that Argus has recorded itself, as a recording: a folder of quotes, ``recordings/<market>/<YYYY-MM-DD>``, or of trades,
``recordings/<market>/trades/<YYYY-MM-DD>``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import msgspec

from marketdata.recordings.archive import FOLDER, DamagedRecording, RecordingArchive
from marketdata.recordings.columns import QUOTES, TRADES, values
from marketdata.recordings.reader import symbols_of
from marketdata.sources.replay.recording import SOURCE, RecordingError, Row, Span

SIMULATED = "simulated"
"""The source of what must say so wherever it is shown."""


class RecordedDay:
    """The parts of one day. What comes of it says ``replay``, unless it was simulated."""

    def __init__(self, folder: Path) -> None:
        folder = folder.resolve()
        self.trades = folder.parent.name == TRADES.folder
        market = folder.parent.parent if self.trades else folder.parent
        root = market.parent
        try:
            self._day = date.fromisoformat(folder.name)
        except ValueError:
            raise RecordingError(f"the folder's name is no day; what can be replayed: {FOLDER}/MARKET/YYYY-MM-DD") from None
        if root.name != FOLDER:
            raise RecordingError(f"the folder does not lie in an archive's {FOLDER}/MARKET")
        self._archive = RecordingArchive(str(root.parent), market.name, TRADES if self.trades else QUOTES)
        if not self._archive.parts(self._day):
            raise RecordingError("the folder holds no part that was finished")

    def scan(self) -> Span:
        """What the parts' own notes and their symbols say."""
        try:
            parts = self._archive.parts(self._day)
            symbols = sorted(symbols_of(self._archive, self._day))
        except (DamagedRecording, OSError) as error:
            raise RecordingError(str(error)) from error
        rows = sum(part.rows for part in parts)
        return Span(tuple(symbols), min(part.first for part in parts), max(part.last for part in parts), rows)

    def rows(self) -> Iterator[Row]:
        """Every quote, or every trade, at the market's time at which it was published."""
        latest = 0
        try:
            for part, until in self._archive.sequence(self._day):
                for batch in self._archive.read(self._day, part, until=until):
                    for at, value in values(batch, self._archive.layout):
                        # Two publishers' terms may overlap; a recording's time never goes back.
                        latest = max(latest, at)
                        yield latest, value if value.source == SIMULATED else msgspec.structs.replace(value, source=SOURCE)
        except DamagedRecording as error:
            raise RecordingError(str(error)) from error
