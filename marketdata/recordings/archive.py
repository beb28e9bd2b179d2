"""Where recordings lie and how they are kept: a folder per day, parts in it, a checksum beside each part.

``recordings/<market>/<YYYY-MM-DD>/<first at>-<epoch>.parquet`` and, written after it, the same name with ``.json``: rows,
first and last ``at``, size and SHA-256. A part without its checksum was not finished and is not read; one that differs from
it is damaged: it is named in an error, never played. Those are quotes; trades lie in the same way in
``recordings/<market>/trades/``, where there are any. A part that begins at the same ``at`` as the one before, as the market's
clock stands, has a number after its epoch.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from datetime import date
from itertools import count
from operator import attrgetter
from typing import Any, Final

import fsspec
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from marketdata.recordings.columns import QUOTES, Layout

FOLDER: Final = "recordings"
JOINED: Final = "-joined.parquet"
NEVER: Final = (1 << 62) - 1


class Part(msgspec.Struct, frozen=True):
    """A finished part of a day. ``first`` and ``last`` are the ``at`` of its first and last row (ms)."""

    first: int
    last: int
    rows: int
    size: int
    sha256: str
    name: str

    @property
    def epoch(self) -> int:
        """The publisher's term of office."""
        return int(self.name.removesuffix(".parquet").split("-")[1])

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands among the parts of its epoch."""
        number = self.name.removesuffix(".parquet").split("-")[-1]
        return self.first, int(number) if self.name.count("-") > 1 and not self.joined else 0

    @property
    def joined(self) -> bool:
        """Whether it was made of others."""
        return self.name.endswith(JOINED)

    def within(self, other: Part) -> bool:
        """Whether another part holds this one's rows (parts that were joined are deleted, unless the process ended first)."""
        return self.epoch == other.epoch and other.first <= self.first and self.last <= other.last


class DamagedRecording(Exception):
    """A part is not what was written."""


class PartGone(DamagedRecording):
    """A part that was listed is there no more: its day has been joined since, or deleted."""


class RecordingArchive:
    """The recordings of one market's quotes, or of another data type, under a path or an fsspec URL."""

    def __init__(self, url: str, market: str, layout: Layout = QUOTES) -> None:
        self._url, self._market = url, market
        self._files, root = fsspec.core.url_to_fs(url)
        self.layout = layout
        self.root = f"{root.rstrip('/')}/{FOLDER}/{market}/{layout.folder}".rstrip("/")

    def of(self, layout: Layout) -> RecordingArchive:
        """What was recorded of the market in another layout."""
        return RecordingArchive(self._url, self._market, layout)

    def days(self) -> tuple[date, ...]:
        """The days of which there is something, in order."""
        found = []
        for path in self._list(self.root):
            try:
                found.append(date.fromisoformat(path.rsplit("/", 1)[-1]))
            except ValueError:
                continue
        return tuple(sorted(found))

    def parts(self, day: date) -> tuple[Part, ...]:
        """The finished parts of a day in order of their first rows. Raises ``DamagedRecording``."""
        listed = self._notes(day)
        while True:
            try:
                found = list(map(self._note, listed))
                break
            except PartGone:
                again = self._notes(day)
                if again == listed:
                    raise
                listed = again
        whole = [part for part in found if part.joined]
        found.sort(key=attrgetter("place"))
        return tuple(part for part in found if part.joined or not any(part.within(other) for other in whole))

    def sequence(self, day: date) -> tuple[tuple[Part, int], ...]:
        """The parts of a day as they are played: term after term, each with the last ``at`` (ms) that counts of it.

        What a publisher says after another has taken over is dropped live, too; so is what was recorded of a day that a
        simulated market then went through once more. A term begins with its quotes.
        """
        parts = sorted(self.parts(day), key=attrgetter("epoch", "place"))
        first: dict[int, int] = {}
        for part in (*parts, *(() if self.layout is QUOTES else self.of(QUOTES).parts(day))):
            first[part.epoch] = min(part.first, first.get(part.epoch, NEVER))
        untils = {epoch: min((at for other, at in first.items() if other > epoch), default=NEVER) for epoch in first}
        return tuple((part, untils[part.epoch]) for part in parts if part.first <= untils[part.epoch])

    def write(self, day: date, epoch: int, rows: pa.Table, *, joined: bool = False) -> Part:
        """Store a part of a day: the data first, then its checksum. Raises ``OSError``."""
        return self._write(day, epoch, rows.column("at")[0].as_py(), [rows], joined=joined)

    def _write(self, day: date, epoch: int, first: int, groups: Iterable[pa.Table], *, joined: bool) -> Part:
        folder = self._folder(day)
        self._files.makedirs(folder, exist_ok=True)
        name = f"{first}-{epoch}{JOINED}" if joined else self._free(folder, f"{first}-{epoch}")
        rows, last = 0, first
        temporary = f"{folder}/{name}.partial"
        with self._files.open(temporary, "wb") as file:
            sink = _Hashed(file)
            with pq.ParquetWriter(sink, self.layout.schema, compression="zstd", write_page_checksum=True) as writer:
                for group in groups:
                    writer.write_table(group)
                    rows, last = rows + group.num_rows, group.column("at")[-1].as_py()
        self._files.mv(temporary, f"{folder}/{name}")
        part = Part(first, last, rows, sink.size, sink.sha256.hexdigest(), name)
        note = f"{folder}/{name.removesuffix('.parquet')}.json"
        self._files.pipe_file(f"{note}.partial", msgspec.json.encode(part))
        self._files.mv(f"{note}.partial", note)
        return part

    def _free(self, folder: str, stem: str) -> str:
        """The name of a part that no finished one has."""
        names = (f"{stem}-{number}" if number else stem for number in count())
        return next(f"{name}.parquet" for name in names if not self._files.exists(f"{folder}/{name}.json"))

    def read(self, day: date, part: Part, since: int = 0, until: int = NEVER) -> Iterator[pa.RecordBatch]:
        """A part's rows with ``at`` from ``since`` to ``until`` (ms), both included, some thousands at a time.

        Raises ``DamagedRecording``, or ``PartGone``, before the first row.
        """
        with self._opened(day, part) as file:
            groups = [number for number in range(file.num_row_groups) if _meets(file, number, since, until)]
            for batch in file.iter_batches(batch_size=16_384, row_groups=groups):
                first, end = np.searchsorted(batch.column("at").to_numpy(), (since, until + 1))
                yield batch.slice(int(first), int(end - first))

    def newest(self, day: date, part: Part, until: int) -> pa.Table:
        """The last row of each symbol of a part with ``at`` before ``until`` (ms), in order. Raises ``DamagedRecording``."""
        found: list[pa.Table] = []
        seen: set[str] = set()
        with self._opened(day, part) as file:
            for number in reversed(range(file.num_row_groups)):
                # Of most groups the names tell that everything in them was said anew later.
                if _meets(file, number, 0, until - 1) and not seen.issuperset(_names(file, number)):
                    rows = file.read_row_group(number)
                    rows = rows.slice(0, int(np.searchsorted(rows.column("at").to_numpy(), until)))
                    names = rows.column("symbol").to_pylist()
                    last = {name: row for row, name in enumerate(names) if name not in seen}
                    found.append(rows.take(sorted(last.values())))
                    seen.update(last)
        return pa.concat_tables([self.layout.schema.empty_table(), *reversed(found)])

    @contextlib.contextmanager
    def _opened(self, day: date, part: Part, *, whole: bool = True) -> Iterator[pq.ParquetFile]:
        """A part's file, compared with its checksum; without ``whole`` only what is read of it is, page by page."""
        path = f"{self._folder(day)}/{part.name}"
        try:
            with self._files.open(path, "rb") as data:
                if whole and hashlib.file_digest(data, hashlib.sha256).hexdigest() != part.sha256:
                    raise DamagedRecording(f"{path} is damaged: its SHA-256 is not the one that was written beside it")
                data.seek(0)
                file = pq.ParquetFile(data, page_checksum_verification=True)
                if not file.schema_arrow.equals(self.layout.schema, check_metadata=False):
                    raise DamagedRecording(f"{path} has other columns than a recording")
                yield file
        except FileNotFoundError as error:
            raise PartGone(f"{path} is there no more") from error
        except (OSError, pa.ArrowException) as error:
            raise DamagedRecording(f"{path} cannot be read: {error}") from error

    def symbols(self, day: date, part: Part) -> frozenset[str]:
        """Every symbol of which a part has a row. Raises ``DamagedRecording``; reads little more than the names."""
        found: set[str] = set()
        with self._opened(day, part, whole=False) as file:
            for batch in file.iter_batches(columns=["symbol"]):
                found.update(batch.column("symbol").unique().to_pylist())
        return frozenset(found)

    def join(self, day: date) -> None:
        """Make a day's many parts of each term of office one file each, once the day is over."""
        by_epoch: dict[int, list[Part]] = {}
        for part in self.parts(day):
            by_epoch.setdefault(part.epoch, []).append(part)
        for epoch, parts in by_epoch.items():
            if len(parts) > 1:
                self._write(day, epoch, parts[0].first, self._groups(day, parts), joined=True)
                for part in parts:
                    if not part.joined:
                        self._remove_part(day, part)

    def _groups(self, day: date, parts: Iterable[Part]) -> Iterator[pa.Table]:
        """The rows of parts, one row group of a part in memory at a time."""
        for part in parts:
            with self._opened(day, part) as file:
                for number in range(file.num_row_groups):
                    yield file.read_row_group(number)

    def forget_before(self, day: date) -> int:
        """Delete the days before one; how many they were."""
        old = [other for other in self.days() if other < day]
        for other in old:
            self._files.rm(self._folder(other), recursive=True)
        return len(old)

    def _remove_part(self, day: date, part: Part) -> None:
        path = f"{self._folder(day)}/{part.name}"
        # The checksum first: a part without one is not read.
        self._files.rm_file(f"{path.removesuffix('.parquet')}.json")
        self._files.rm_file(path)

    def _folder(self, day: date) -> str:
        return f"{self.root}/{day.isoformat()}"

    def _notes(self, day: date) -> list[str]:
        return [path for path in self._list(self._folder(day)) if path.endswith(".json")]

    def _list(self, folder: str) -> list[str]:
        try:
            self._files.invalidate_cache(folder)
            return list(self._files.ls(folder, detail=False))
        except FileNotFoundError:
            return []

    def _note(self, path: str) -> Part:
        try:
            return msgspec.json.decode(self._files.cat_file(path), type=Part)
        except FileNotFoundError as error:
            raise PartGone(f"{path} is there no more") from error
        except (OSError, msgspec.MsgspecError) as error:
            raise DamagedRecording(f"{path} cannot be read: {error}") from error


class _Hashed:
    """A file that is written to, with the size and the SHA-256 of what was."""

    def __init__(self, file: Any) -> None:
        self.size = 0
        self.sha256 = hashlib.sha256()
        self.closed = False
        self._file = file

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.size += len(data)
        self._file.write(data)
        return len(data)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self.closed = True


def _meets(file: pq.ParquetFile, group: int, since: int, until: int) -> bool:
    """Whether a row group may have rows with ``at`` from ``since`` to ``until``."""
    statistics = file.metadata.row_group(group).column(0).statistics
    return bool(statistics.min <= until and statistics.max >= since)


def _names(file: pq.ParquetFile, group: int) -> set[str]:
    return set(file.read_row_group(group, columns=["symbol"]).column("symbol").unique().to_pylist())
