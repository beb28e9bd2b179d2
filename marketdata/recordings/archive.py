"""Where recordings lie and how they are kept: a folder per day, parts in it, a checksum beside each part.

``recordings/<market>/<YYYY-MM-DD>/<first at>-<epoch>.parquet`` and, written after it, the same name with ``.json``: rows,
first and last ``at``, size and SHA-256. A part without its checksum was not finished and is not read; one that differs from
it is damaged: it is named in an error, never played.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from datetime import date
from typing import Any, Final

import fsspec
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from marketdata.recordings.columns import SCHEMA

FOLDER: Final = "recordings"
JOINED: Final = "-joined.parquet"


class Part(msgspec.Struct, frozen=True, order=True):
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
    def joined(self) -> bool:
        """Whether it was made of others."""
        return self.name.endswith(JOINED)

    def within(self, other: Part) -> bool:
        """Whether another part holds this one's rows (parts that were joined are deleted, unless the process ended first)."""
        return self.epoch == other.epoch and other.first <= self.first and self.last <= other.last


class DamagedRecording(Exception):
    """A part is not what was written."""


class RecordingArchive:
    """The recordings of one market under a path or an fsspec URL."""

    def __init__(self, url: str, market: str) -> None:
        self._files, root = fsspec.core.url_to_fs(url)
        self.root = f"{root.rstrip('/')}/{FOLDER}/{market}"

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
        """The finished parts of a day in order of their first rows."""
        found = sorted(self._note(path) for path in self._list(self._folder(day)) if path.endswith(".json"))
        whole = [part for part in found if part.joined]
        return tuple(part for part in found if part.joined or not any(part.within(other) for other in whole))

    def write(self, day: date, epoch: int, rows: pa.Table, *, joined: bool = False) -> Part:
        """Store a part of a day: the data first, then its checksum. Raises ``OSError``."""
        sink = io.BytesIO()
        pq.write_table(rows, sink, compression="zstd", write_page_checksum=True)
        data = sink.getvalue()
        at = rows.column("at")
        first, last = at[0].as_py(), at[-1].as_py()
        part = Part(
            first,
            last,
            rows.num_rows,
            len(data),
            hashlib.sha256(data).hexdigest(),
            f"{first}-{epoch}{JOINED if joined else '.parquet'}",
        )
        folder = self._folder(day)
        self._files.makedirs(folder, exist_ok=True)
        self._put(f"{folder}/{part.name}", data)
        self._put(f"{folder}/{part.name.removesuffix('.parquet')}.json", msgspec.json.encode(part))
        return part

    def read(self, day: date, part: Part) -> Iterator[pa.RecordBatch]:
        """A part's rows, a row group at a time. Raises ``DamagedRecording``."""
        path = f"{self._folder(day)}/{part.name}"
        try:
            data = self._files.cat_file(path)
        except OSError as error:
            raise DamagedRecording(f"{path} cannot be read: {error}") from error
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise DamagedRecording(f"{path} is damaged: its SHA-256 is not the one that was written beside it")
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        if not file.schema_arrow.equals(SCHEMA, check_metadata=False):
            raise DamagedRecording(f"{path} has other columns than a recording")
        yield from file.iter_batches(batch_size=16_384)

    def symbols(self, day: date) -> frozenset[str]:
        """Every symbol of which a quote was recorded on a day."""
        found: set[str] = set()
        for part in self.parts(day):
            with self._files.open(f"{self._folder(day)}/{part.name}", "rb") as file:
                column = pq.read_table(file, columns=["symbol"]).column("symbol")
            found.update(column.unique().to_pylist())
        return frozenset(found)

    def join(self, day: date) -> None:
        """Make a day's many parts of each term of office one file each, once the day is over."""
        by_epoch: dict[int, list[Part]] = {}
        for part in self.parts(day):
            by_epoch.setdefault(part.epoch, []).append(part)
        for epoch, parts in by_epoch.items():
            if len(parts) > 1:
                rows = pa.concat_tables(pa.Table.from_batches(list(self.read(day, part)), SCHEMA) for part in parts)
                self.write(day, epoch, rows.unify_dictionaries().combine_chunks(), joined=True)
                for part in parts:
                    if not part.joined:
                        self._remove_part(day, part)

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

    def _list(self, folder: str) -> list[str]:
        try:
            self._files.invalidate_cache(folder)
            return list(self._files.ls(folder, detail=False))
        except FileNotFoundError:
            return []

    def _note(self, path: str) -> Part:
        try:
            return msgspec.json.decode(self._files.cat_file(path), type=Part)
        except (OSError, msgspec.MsgspecError) as error:
            raise DamagedRecording(f"{path} cannot be read: {error}") from error

    def _put(self, path: str, data: bytes) -> None:
        temporary: Any = f"{path}.partial"
        self._files.pipe_file(temporary, data)
        self._files.mv(temporary, path)
