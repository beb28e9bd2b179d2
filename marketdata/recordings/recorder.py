"""The recorder of a feed: every message that was published goes into a part of its day, in a thread of its own.

Policy: the feed is never held up. Up to ``QUEUE`` messages wait for the disk; what comes beyond them is not recorded, counted
in ``argus_recorder_dropped_total`` and logged. A part is finished when it holds ``PART_ROWS`` rows or is ``PART_SECONDS`` old,
so a process that is killed loses no more than that. What cannot be written, or laid out as columns, is counted and logged the
same way, and the recording goes on. Quotes and trades make parts of their own, finished at the same time.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from datetime import date, timedelta
from typing import Any, Final

import pyarrow as pa
import structlog

from marketdata.calendar import day_of
from marketdata.recordings import metrics
from marketdata.recordings.archive import RecordingArchive
from marketdata.recordings.columns import TRADES, Message, table
from marketdata.types import DataType

log = structlog.get_logger(__name__)

QUEUE: Final = 2_000
PART_ROWS: Final = 200_000
LAID_OUT: Final = 5_000
"""Rows that wait at most before they become columns."""
PART_SECONDS: Final = 60.0
CLOSING: Final = 10.0
"""Seconds that the last part may take at the end of the process, and as many that a full queue may before it."""
BEAT: Final = 1.0


class _Held:
    """The rows of a data type that are no part yet. ``waiting``: how many of them are no columns yet."""

    def __init__(self, archive: RecordingArchive) -> None:
        self.archive = archive
        self.messages: list[Message] = []
        self.tables: list[pa.Table] = []
        self.rows = 0
        self.waiting = 0


class Recorder:
    """One feed's recorder. ``days``: how many days of recordings are kept."""

    def __init__(self, archive: RecordingArchive, *, feed: str, days: int) -> None:
        self._held = {one.layout.data_type: _Held(one) for one in (archive, archive.of(TRADES))}
        self._feed = feed
        self._days = days
        self._queue: queue.Queue[Message | None] = queue.Queue(QUEUE)
        self._epoch = 0
        self._day: date | None = None
        self._at = 0
        self._since = 0.0
        self._thread = threading.Thread(target=self._run, name=f"record-{feed}", daemon=True)

    def start(self) -> None:
        """Begin to take messages."""
        self._thread.start()

    def take(self, message: Message) -> None:
        """A message has been published; never waits."""
        try:
            self._queue.put_nowait(message)
        except queue.Full:
            log.error("recording_dropped", seq=message.seq, **self._lost(message.data_type, len(message.fragments)))

    def close(self) -> None:
        """Finish what was taken, or give up after twice ``CLOSING``."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=CLOSING)
            self._thread.join(CLOSING)
        if self._thread.is_alive():
            log.error("recording_not_finished", feed=self._feed, messages=self._queue.qsize())

    @property
    def _rows(self) -> int:
        return sum(held.rows for held in self._held.values())

    def _run(self) -> None:
        while True:
            try:
                message = self._queue.get(timeout=BEAT)
            except queue.Empty:
                if self._rows and time.monotonic() - self._since > PART_SECONDS:
                    self._finish()
                continue
            if message is None:
                self._finish()
                return
            try:
                self._hold(message)
            except Exception as error:
                # The edge of this thread: nothing that passes may end it.
                log.exception("recording_dropped", detail=str(error), **self._lost(message.data_type, len(message.fragments)))

    def _hold(self, message: Message) -> None:
        # The market's clock may be set back; a recording's never goes back.
        at = max(self._at, message.at)
        day = day_of(at)
        self._at = at
        if self._rows and (day != self._day or message.epoch != self._epoch):
            self._finish()
        if day != self._day:
            self._turn_over(day)
        if not self._rows:
            self._since, self._epoch = time.monotonic(), message.epoch
        held = self._held[message.data_type]
        held.messages.append(message._replace(at=self._at))
        held.rows += len(message.fragments)
        held.waiting += len(message.fragments)
        if held.waiting >= LAID_OUT:
            self._lay_out(held)
        if self._rows >= PART_ROWS or time.monotonic() - self._since > PART_SECONDS:
            self._finish()

    def _lay_out(self, held: _Held) -> None:
        """Make columns of what waits, so that little is left to do at the end."""
        messages, rows, held.messages, held.waiting = held.messages, held.waiting, [], 0
        try:
            held.tables.append(table(messages, held.archive.layout))
        except Exception as error:
            # A number that no column holds, or whatever else a source came to say: it costs what waited with it.
            held.rows -= rows
            log.exception("recording_failed", detail=str(error), **self._lost(held.archive.layout.data_type, rows))

    def _finish(self) -> None:
        """Write what is held."""
        for held in self._held.values():
            if held.rows:
                self._lay_out(held)
            rows, held.rows = held.rows, 0
            if rows and self._day is not None:
                self._write(held, self._day, rows)

    def _write(self, held: _Held, day: date, rows: int) -> None:
        """Write one part. A disk that is full or away costs this part, not the feed."""
        data_type = held.archive.layout.data_type
        try:
            whole = pa.concat_tables(held.tables).unify_dictionaries().combine_chunks()
            part = held.archive.write(day, self._epoch, whole)
        except Exception as error:
            # Whatever the file system's library raises, the recording goes on with the next part.
            log.exception("recording_failed", detail=str(error), **self._lost(data_type, rows))
        else:
            metrics.RECORDED[data_type].labels(self._feed).inc(rows)
            told = {"data_type": data_type, "day": day.isoformat(), "part": part.name, "rows": rows, "bytes": part.size}
            log.info("recording_part", feed=self._feed, **told)
        finally:
            held.tables.clear()

    def _lost(self, data_type: DataType, rows: int) -> dict[str, Any]:
        """Count what is not recorded; what the log is to say of it."""
        metrics.DROPPED.labels(self._feed).inc(rows)
        return {"feed": self._feed, "data_type": data_type, "rows": rows}

    def _turn_over(self, day: date) -> None:
        """Another day has begun: days that are too old are deleted, the parts of each that is over become one file."""
        self._day = day
        for held in self._held.values():
            self._tidy(held.archive, day)

    def _tidy(self, archive: RecordingArchive, day: date) -> None:
        try:
            if forgotten := archive.forget_before(day - timedelta(days=self._days)):
                log.info("recordings_deleted", feed=self._feed, data_type=archive.layout.data_type, days=forgotten)
            # Not the last one alone: a process that was killed has left its days as they were.
            over = [other for other in archive.days() if other < day]
        except Exception as error:
            # Here and below: whatever the file system's library raises, today is recorded.
            log.exception("recordings_not_listed", feed=self._feed, detail=str(error))
            return
        for other in over:
            try:
                archive.join(other)
            except Exception as error:
                log.exception("recording_not_joined", feed=self._feed, day=other.isoformat(), detail=str(error))
