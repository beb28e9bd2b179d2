"""The recorder of a feed: every message that was published goes into a part of its day, in a thread of its own.

Policy: the feed is never held up. Up to ``QUEUE`` messages wait for the disk; what comes beyond them is not recorded, counted
in ``argus_recorder_dropped_total`` and logged. A part is finished when it holds ``PART_ROWS`` rows or is ``PART_SECONDS`` old,
so a process that is killed loses no more than that.
"""

from __future__ import annotations

import queue
import threading
import time
from datetime import date, timedelta
from typing import Final

import pyarrow as pa
import structlog

from marketdata.calendar import day_of
from marketdata.recordings import metrics
from marketdata.recordings.archive import DamagedRecording, RecordingArchive
from marketdata.recordings.columns import Message, table

log = structlog.get_logger(__name__)

QUEUE: Final = 2_000
PART_ROWS: Final = 200_000
LAID_OUT: Final = 5_000
"""Rows that wait at most before they become columns."""
PART_SECONDS: Final = 60.0
CLOSING: Final = 10.0
"""Seconds that the last part may take at the end of the process."""
BEAT: Final = 1.0


class Recorder:
    """One feed's recorder. ``days``: how many days of recordings are kept."""

    def __init__(self, archive: RecordingArchive, *, feed: str, days: int) -> None:
        self._archive = archive
        self._feed = feed
        self._days = days
        self._queue: queue.Queue[Message | None] = queue.Queue(QUEUE)
        self._held: list[Message] = []
        self._tables: list[pa.Table] = []
        self._waiting = 0
        self._rows = 0
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
            metrics.DROPPED.labels(self._feed).inc(len(message.fragments))
            log.error("recording_dropped", feed=self._feed, seq=message.seq, quotes=len(message.fragments))

    def close(self) -> None:
        """Finish what was taken."""
        self._queue.put(None)
        self._thread.join(CLOSING)

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
            self._hold(message)

    def _hold(self, message: Message) -> None:
        # The market's clock may be set back; a recording's never goes back.
        self._at = max(self._at, message.at)
        day = day_of(self._at)
        if self._rows and (day != self._day or message.epoch != self._epoch):
            self._finish()
        if day != self._day:
            self._turn_over(day)
        if not self._rows:
            self._since, self._epoch = time.monotonic(), message.epoch
        self._held.append(message._replace(at=self._at))
        self._rows += len(message.fragments)
        self._waiting += len(message.fragments)
        if self._waiting >= LAID_OUT:
            self._lay_out()
        if self._rows >= PART_ROWS or time.monotonic() - self._since > PART_SECONDS:
            self._finish()

    def _lay_out(self) -> None:
        """Make columns of what waits, so that little is left to do at the end."""
        held, self._held, self._waiting = self._held, [], 0
        self._tables.append(table(held))

    def _finish(self) -> None:
        """Write what is held. A disk that is full or away costs this part, not the feed."""
        rows, self._rows = self._rows, 0
        if not rows or self._day is None:
            return
        try:
            self._lay_out()
            whole = pa.concat_tables(self._tables).unify_dictionaries().combine_chunks()
            part = self._archive.write(self._day, self._epoch, whole)
        except Exception as error:
            # The edge of this thread: whatever the file system's library raises, the recording goes on with the next part.
            metrics.DROPPED.labels(self._feed).inc(rows)
            log.exception("recording_failed", feed=self._feed, quotes=rows, detail=str(error))
        else:
            metrics.RECORDED.labels(self._feed).inc(rows)
            log.info("recording_part", feed=self._feed, day=self._day.isoformat(), part=part.name, quotes=rows, bytes=part.size)
        finally:
            self._tables.clear()

    def _turn_over(self, day: date) -> None:
        """Another day has begun: days that are too old are deleted, the parts of each that is over become one file."""
        self._day = day
        try:
            if forgotten := self._archive.forget_before(day - timedelta(days=self._days)):
                log.info("recordings_deleted", feed=self._feed, days=forgotten)
            # Not the last one alone: a process that was killed has left its days as they were.
            over = [other for other in self._archive.days() if other < day]
        except OSError as error:
            log.error("recordings_not_listed", feed=self._feed, detail=str(error))
            return
        for other in over:
            try:
                self._archive.join(other)
            except (OSError, DamagedRecording) as error:
                log.error("recording_not_joined", feed=self._feed, day=other.isoformat(), detail=str(error))
