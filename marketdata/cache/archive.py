"""L3: the bars of all closed days as Parquet files, under a path or any address that fsspec knows.

    bars/<market>/1d/<symbol>.parquet               all daily bars
    bars/<market>/1m/<symbol>/<year>.parquet        one row group per month, so that a month is read alone
    corrupt/                                        files that were damaged, moved aside
    locks/                                          what keeps two processes from writing one file at a time

Which days a file covers, and when they were fetched, stands in its key-value metadata under ``argus``, with a checksum;
every page has a checksum of its own (Parquet's CRC-32). LZ4, prices as dictionaries (a month of a stock has few different
ones), times as differences: of the codecs tried on a symbol-year this one is read fastest, 785 KB of 58,000 rows.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import fsspec
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import structlog
from filelock import FileLock
from filelock import Timeout as LockTimeout
from fsspec.implementations.local import LocalFileSystem

from marketdata.cache.block import ALL, Block, BlockKey
from marketdata.cache.codec import Damaged, pack_days, unpack_days
from marketdata.cache.metrics import Counts
from marketdata.cache.shared import Usage
from marketdata.series import EMPTY, SCHEMA, Series, from_table
from marketdata.types import Period

log = structlog.get_logger(__name__)

VERSION: Final = 1
OBJECT_STORES: Final = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "memory"})
"""Protocols where a put is seen whole or not at all; elsewhere a file gets its name when it is complete."""
STRAY: Final = 3600.0
"""Seconds after which a temporary file has no writer any more."""
KEPT_CORRUPT: Final = 30 * 86_400.0
"""Seconds that a damaged file is kept to be looked at."""
LOCK_TIMEOUT: Final = 10.0
USAGE_EVERY: Final = 60.0
_STRIPES: Final = 64
_UNREADABLE: Final = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError)
"""What reading a damaged file raises."""
_READERS: Final = 8

_PRICES: Final = ["open", "high", "low", "close"]
_WRITE: Final[dict[str, Any]] = {
    "compression": "lz4",
    "use_dictionary": _PRICES,
    "column_encoding": {"time": "DELTA_BINARY_PACKED"},
    "write_statistics": False,
    "write_page_checksum": True,
    "store_schema": False,
}

_MARKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SYMBOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,47}\.[A-Z]{1,15}")
_PART = re.compile(r"(\d{4})-(?:0[1-9]|1[0-2])")
_RESERVED = re.compile(r"(?:CON|PRN|AUX|NUL|COM[0-9]|LPT[0-9])\.", re.IGNORECASE)


class _Part(msgspec.Struct, frozen=True):
    part: str
    rows: int
    fetched_at: int
    days: str


class _About(msgspec.Struct, frozen=True):
    version: int
    parts: list[_Part]


class Checked(NamedTuple):
    """What became of one file that was checked: ``before`` and ``after`` are its bytes."""

    path: str
    before: int
    after: int
    rewritten: bool
    corrupt: bool


class Archive:
    """Safe to use from several threads, and, where files can be locked, from several processes."""

    def __init__(self, url: str) -> None:
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root = root.rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)
        protocols = {self._fs.protocol} if isinstance(self._fs.protocol, str) else set(self._fs.protocol)
        self._put_is_atomic = not protocols.isdisjoint(OBJECT_STORES)
        self.counts = Counts()
        self._locks = [threading.Lock() for _ in range(_STRIPES)]
        self._files = [FileLock(f"{self._root}/locks/{stripe:02d}.lock") for stripe in range(_STRIPES)] if self._local else []
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="archive")
        self._usage: dict[str, tuple[float, Usage]] = {}

    def close(self) -> None:
        """End the readers' threads."""
        self._readers.shutdown()

    def cover_many(self, keys: Iterable[BlockKey]) -> dict[BlockKey, Block]:
        """What the blocks cover that are there, each without its bars: of a file only its end is read. Nothing is counted."""
        found: dict[BlockKey, Block] = {}
        for blocks in self._each(lambda item: self._covered(*item), self._by_file(keys).items()):
            found |= blocks
        return found

    def read_many(self, keys: Iterable[BlockKey], *, counted: bool = True) -> dict[BlockKey, Block]:
        """The blocks that are there; keys of one file cost one read. Raises ``ValueError`` for a key that is no key."""
        wanted = self._by_file(keys)
        found: dict[BlockKey, Block] = {}
        for blocks in self._each(lambda item: self._read(*item), wanted.items()):
            found |= blocks
        if counted:
            self.counts.add(hits=len(found), misses=sum(map(len, wanted.values())) - len(found))
        return found

    def write_many(self, blocks: Mapping[BlockKey, Block]) -> dict[BlockKey, Block]:
        """Add blocks to what is there and give back what is there now; where both have a bar, the new one counts.

        What cannot be written (no room, no right, no connection) is counted, logged and left out. Raises ``ValueError`` for a
        key that is no key.
        """
        files: dict[str, dict[BlockKey, Block]] = defaultdict(dict)
        for key, block in blocks.items():
            files[self._path(key)][key] = block
        merged: dict[BlockKey, Block] = {}
        for held in self._each(lambda item: self._write(*item), files.items()):
            merged |= held
        return merged

    def remove(self, market: str, symbol: str | None, periods: Iterable[str]) -> int:
        """Delete the files of a market, or of one symbol; how many there were. One that cannot be deleted is counted, logged and
        left."""
        removed = 0
        name = None if symbol is None else _safe(_checked(_SYMBOL, symbol))
        for path in self._list(market):
            holder, period = _holder_of(path, self._folder(market))
            if period in periods and name in (None, holder):
                removed += self._delete(path)
        self._usage.clear()
        return removed

    def usage(self, market: str) -> Usage:
        """Files and bytes of a market, as they were at most a minute ago."""
        at, usage = self._usage.get(market, (float("-inf"), Usage(0, 0, complete=True)))
        if time.monotonic() - at < USAGE_EVERY:
            return usage
        try:
            files = self._list(market)
        except OSError as error:
            self._failed("list", self._folder(market), error)
            return Usage(0, 0, complete=False)
        usage = Usage(len(files), sum(files.values()), complete=True)
        self._usage[market] = (time.monotonic(), usage)
        return usage

    def files(self, market: str) -> list[str]:
        """The paths of a market's files, in order."""
        return sorted(self._list(market))

    def check(self, path: str) -> Checked:
        """Read a whole file with its checksums; damaged it is moved aside, in many small row groups it is written anew. What
        cannot be read or written is counted, logged and left as it is."""
        size = 0
        try:
            with self._locked(path):
                data = self._fs.cat_file(path)
                size = len(data)
                try:
                    blocks, tidy = _parse(data, None)
                except Damaged as error:
                    self._move_aside(path, error)
                    return Checked(path, size, 0, rewritten=False, corrupt=True)
                if not tidy:
                    anew = _file(blocks)
                    self._replace(path, anew)
                    return Checked(path, size, len(anew), rewritten=True, corrupt=False)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._failed("check", path, error)
        return Checked(path, size, size, rewritten=False, corrupt=False)

    def sweep(self) -> int:
        """Delete what dead writers left behind and damaged files of long ago; how many there were."""
        now, removed = time.time(), 0
        for path, about in self._find("bars").items():
            made = about.get("mtime")
            if path.endswith(".tmp") and isinstance(made, int | float) and now - made > STRAY:
                removed += self._delete(path)
        for path in self._find("corrupt"):
            stamp = path.rpartition(".")[2]
            if stamp.isdigit() and now - int(stamp) / 1000 > KEPT_CORRUPT:
                removed += self._delete(path)
        return removed

    # Files

    def _folder(self, market: str) -> str:
        return f"{self._root}/bars/{_checked(_MARKET, market)}"

    def _path(self, key: BlockKey) -> str:
        folder, symbol = self._folder(key.market), _safe(_checked(_SYMBOL, key.symbol))
        if key.period is Period.D1 and key.part == ALL:
            return f"{folder}/1d/{symbol}.parquet"
        month = _PART.fullmatch(key.part)
        if key.period is not Period.M1 or month is None:
            raise ValueError(f"{key.part!r} is not a part of {key.period}")
        return f"{folder}/1m/{symbol}/{month[1]}.parquet"

    def _by_file(self, keys: Iterable[BlockKey]) -> dict[str, list[BlockKey]]:
        wanted: dict[str, list[BlockKey]] = defaultdict(list)
        for key in keys:
            wanted[self._path(key)].append(key)
        return wanted

    def _find(self, folder: str) -> dict[str, dict[str, Any]]:
        self._fs.invalidate_cache()
        try:
            return dict(self._fs.find(f"{self._root}/{folder}", detail=True))
        except FileNotFoundError:
            return {}

    def _list(self, market: str) -> dict[str, int]:
        found = self._find(f"bars/{_checked(_MARKET, market)}")
        return {path: about["size"] for path, about in found.items() if path.endswith(".parquet")}

    def _read(self, path: str, keys: list[BlockKey]) -> dict[BlockKey, Block]:
        wanted = {key.part for key in keys}
        return self._looked_into(path, keys, lambda: _parse(self._fs.cat_file(path), wanted)[0])

    def _covered(self, path: str, keys: list[BlockKey]) -> dict[BlockKey, Block]:
        def ends() -> dict[str, Block]:
            with self._fs.open(path, "rb") as file:
                return _parse_end(file)

        return self._looked_into(path, keys, ends)

    def _looked_into(self, path: str, keys: list[BlockKey], look: Callable[[], dict[str, Block]]) -> dict[BlockKey, Block]:
        try:
            try:
                blocks = look()
            except Damaged:
                # Read again under the lock: another process may have put a good file there meanwhile.
                self.check(path)
                return {}
        except FileNotFoundError:
            return {}
        except OSError as error:
            self._failed("read", path, error)
            return {}
        return {key: blocks[key.part] for key in keys if key.part in blocks}

    def _write(self, path: str, new: dict[BlockKey, Block]) -> dict[BlockKey, Block]:
        try:
            with self._locked(path):
                try:
                    blocks, _tidy = _parse(self._fs.cat_file(path), None)
                except FileNotFoundError:
                    blocks = {}
                except Damaged as error:
                    self._move_aside(path, error)
                    blocks = {}
                for key, block in new.items():
                    blocks[key.part] = blocks[key.part].with_more(block) if key.part in blocks else block
                self._replace(path, _file(blocks))
        except OSError as error:
            self._failed("write", path, error)
            return {}
        self.counts.add(writes=len(new))
        return {key: blocks[key.part] for key in new}

    def _replace(self, path: str, data: bytes) -> None:
        """The file as a whole: whoever reads sees the old one or the new one."""
        if self._put_is_atomic:
            self._fs.pipe_file(path, data)
            return
        folder, _, name = path.rpartition("/")
        self._fs.makedirs(folder, exist_ok=True)
        unfinished = f"{folder}/.{name}.{secrets.token_hex(6)}.tmp"
        try:
            self._fs.pipe_file(unfinished, data)
            self._rename(unfinished, path)
        except BaseException:
            if self._fs.exists(unfinished):
                self._fs.rm_file(unfinished)
            raise

    def _rename(self, source: str, target: str) -> None:
        if not self._local:
            self._fs.mv(source, target)
            return
        for attempt in itertools.count():
            try:
                Path(source).replace(target)
                return
            except PermissionError:
                # Windows: somebody reads the old file, for as long as that takes.
                if os.name != "nt" or attempt == 20:
                    raise
                time.sleep(0.05)

    def _delete(self, path: str) -> bool:
        """Whether there is one file less: it may have gone already, or cannot be deleted, which is counted and logged."""
        try:
            with self._locked(path):
                self._fs.rm_file(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            self._failed("delete", path, error)
            return False
        return True

    def _move_aside(self, path: str, error: Damaged) -> None:
        name = path.removeprefix(f"{self._root}/bars/").replace("/", "~")
        aside = f"{self._root}/corrupt/{name}.{time.time_ns() // 1_000_000}"
        self.counts.add(corrupt=1)
        log.error("archive_file_damaged", path=path, moved_to=aside, reason=str(error)[:300])
        self._fs.makedirs(f"{self._root}/corrupt", exist_ok=True)
        self._rename(path, aside)

    @contextmanager
    def _locked(self, path: str) -> Iterator[None]:
        stripe = zlib.crc32(path.removeprefix(self._root).encode()) % _STRIPES
        with self._locks[stripe]:
            if not self._local:
                yield
                return
            Path(f"{self._root}/locks").mkdir(parents=True, exist_ok=True)
            lock = self._files[stripe]
            try:
                lock.acquire(timeout=LOCK_TIMEOUT)
            except LockTimeout:
                # A lock guards against losing another's month, which would be fetched again; waiting for ever would be worse.
                log.warning("archive_lock_timeout", path=path)
                yield
                return
            try:
                yield
            finally:
                lock.release()

    def _failed(self, doing: str, path: str, error: OSError) -> None:
        self.counts.add(errors=1)
        log.error("archive_failed", doing=doing, path=path, error=type(error).__name__, detail=str(error)[:300])

    def _each(self, work: Callable[[Any], dict[BlockKey, Block]], items: Iterable[Any]) -> Iterable[dict[BlockKey, Block]]:
        listed = list(items)
        return map(work, listed) if len(listed) == 1 else self._readers.map(work, listed)


def _file(blocks: Mapping[str, Block]) -> bytes:
    """The blocks of one file, by part, as Parquet: one row group for each that has bars."""
    parts = [_Part(part, len(block.series), block.fetched_at, pack_days(block.days)) for part, block in sorted(blocks.items())]
    about = msgspec.json.encode(_About(VERSION, parts))
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, SCHEMA, **_WRITE) as writer:
        for part in parts:
            if part.rows:
                writer.write_table(blocks[part.part].series.table(), row_group_size=part.rows)
        writer.add_key_value_metadata({"argus": about.decode(), "argus.crc32": f"{zlib.crc32(about):08x}"})
    return bytes(sink.getvalue())


def _parse(data: bytes, wanted: set[str] | None) -> tuple[dict[str, Block], bool]:
    """The blocks of a file, all or those of some parts, and whether each part is one row group. Raises ``Damaged``."""
    try:
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            about, groups = _about_of(file.metadata)
            sizes = [part.rows for part in about.parts if part.rows]
            tidy = groups == sizes
            read = [part for part in about.parts if not tidy or wanted is None or part.part in wanted]
            position = {part.part: index for index, part in enumerate(part for part in about.parts if part.rows)}
            chosen = [position[part.part] for part in read if part.rows] if tidy else list(range(len(groups)))
            series = from_table(file.read_row_groups(chosen))
    except _UNREADABLE as error:
        raise Damaged(str(error) or type(error).__name__) from error
    if not bool(np.all(np.diff(series.time) > 0)):
        raise Damaged("the times are not in order")
    begins = itertools.accumulate((part.rows for part in read), initial=0)
    blocks = {part.part: _block(part, series, begin) for part, begin in zip(read, begins, strict=False)}
    return {part: block for part, block in blocks.items() if wanted is None or part in wanted}, tidy


def _parse_end(file: Any) -> dict[str, Block]:
    """What the parts of a file cover, each without its bars, by the end of the file alone. Raises ``Damaged``."""
    try:
        about, _groups = _about_of(pq.read_metadata(file))
        return {part.part: Block(EMPTY, unpack_days(part.days), part.fetched_at) for part in about.parts}
    except _UNREADABLE as error:
        raise Damaged(str(error) or type(error).__name__) from error


def _about_of(metadata: pq.FileMetaData) -> tuple[_About, list[int]]:
    """What a file says of itself, and the rows of its row groups, which must agree. Raises ``Damaged``."""
    held = metadata.metadata or {}
    if f"{zlib.crc32(held[b'argus']):08x}".encode() != held[b"argus.crc32"]:
        raise Damaged("the checksum of what it covers differs")
    about = msgspec.json.decode(held[b"argus"], type=_About)
    if about.version != VERSION:
        raise Damaged(f"written in version {about.version}")
    groups = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    if sum(groups) != sum(part.rows for part in about.parts):
        raise Damaged(f"{sum(groups)} rows instead of {sum(part.rows for part in about.parts)}")
    return about, groups


def _block(part: _Part, series: Series, begin: int) -> Block:
    whole = part.rows == len(series)
    return Block(series if whole else series.pick(slice(begin, begin + part.rows)), unpack_days(part.days), part.fetched_at)


def _checked(pattern: re.Pattern[str], text: str) -> str:
    """A name that leads nowhere but into its own folder. Raises ``ValueError``."""
    if not pattern.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is not a name that a file may have")
    return text


def _safe(symbol: str) -> str:
    """The symbol as a name on every system: Windows keeps AUX.* and the like for itself. No symbol begins with ``_``."""
    return f"_{symbol}" if _RESERVED.match(symbol) else symbol


def _holder_of(path: str, folder: str) -> tuple[str, str]:
    """The symbol, as its name is written, and the period of a file."""
    period, _, rest = path.removeprefix(f"{folder}/").partition("/")
    return (rest.partition("/")[0] if period == Period.M1 else rest.removesuffix(".parquet")), period
