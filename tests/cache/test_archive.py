"""L3: files that two processes may write, that damage cannot make lie, and that are read about as fast as pyarrow reads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from marketdata.cache.archive import KEPT_CORRUPT, STRAY, Archive
from marketdata.cache.block import Block, BlockKey
from marketdata.series import EMPTY, join
from marketdata.types import Period
from tests.cache.blocks import daily, day_key, month, month_key, same, whole, year

YEAR = year(2025)
KEYS = {part: month_key(part=part) for part in YEAR}


@pytest.fixture(params=["path", "file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    addresses = {"path": str(tmp_path / "a"), "file": (tmp_path / "a").as_uri(), "memory": f"memory://{uuid4().hex}"}
    yield addresses[request.param]
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    archive = Archive(str(tmp_path))
    yield archive
    archive.close()


def put_year(archive: Archive) -> None:
    archive.write_many({KEYS[part]: block for part, block in YEAR.items()})


def test_what_was_written_is_read_alone_or_together(url: str) -> None:
    archive = Archive(url)
    put_year(archive)
    archive.write_many({day_key(): daily()})
    again = Archive(url)
    assert same(again.read_many([KEYS["2025-07"]])[KEYS["2025-07"]], YEAR["2025-07"])
    found = again.read_many([*KEYS.values(), day_key(), month_key(part="2024-01"), month_key("000001.SZ")])
    assert found.keys() == {*KEYS.values(), day_key()}
    assert all(same(found[KEYS[part]], block) for part, block in YEAR.items())
    assert same(found[day_key()], daily())
    assert join(found[key].series for key in KEYS.values()).equals(whole(YEAR))
    counted = again.counts.read()
    assert (counted.hits, counted.misses, counted.corrupt, counted.errors) == (14, 2, 0, 0)
    files = again.files("test")
    assert [path.rpartition("bars/")[2] for path in files] == ["test/1d/600000.SH.parquet", "test/1m/600000.SH/2025.parquet"]
    assert again.usage("test").entries == 2
    assert again.usage("other").entries == 0


def test_a_month_is_one_row_group_and_every_page_has_a_checksum(archive: Archive) -> None:
    put_year(archive)
    [path] = archive.files("test")
    with pq.ParquetFile(path) as file:
        assert file.metadata.num_row_groups == 12
        assert [file.metadata.row_group(index).num_rows for index in range(12)] == [len(block.series) for block in YEAR.values()]
    # Another reader needs nothing of ours.
    assert pq.read_table(path).num_rows == len(whole(YEAR))


def test_a_second_write_is_merged_and_the_new_bar_counts(archive: Archive) -> None:
    first, second = month(days=10), month(seed=2)
    archive.write_many({month_key(): second})
    merged = archive.write_many({month_key(): first})[month_key()]
    assert merged.days == second.days
    assert merged.series.equals(second.with_more(first).series)
    assert same(archive.read_many([month_key()])[month_key()], merged)


def test_days_without_bars_are_known_all_the_same(archive: Archive) -> None:
    suspended = Block(EMPTY, month(part="2025-03").days, 5)
    archive.write_many({KEYS["2025-02"]: YEAR["2025-02"], KEYS["2025-03"]: suspended, KEYS["2025-04"]: YEAR["2025-04"]})
    found = archive.read_many(KEYS.values())
    assert same(found[KEYS["2025-03"]], suspended)
    assert same(found[KEYS["2025-04"]], YEAR["2025-04"])
    assert same(archive.read_many([KEYS["2025-03"]])[KEYS["2025-03"]], suspended)


@pytest.mark.parametrize(
    "key",
    [
        BlockKey("test", "../../x.SH", Period.D1, "all"),
        BlockKey("test", "600000/x.SH", Period.D1, "all"),
        BlockKey("..", "600000.SH", Period.D1, "all"),
        BlockKey("a/b", "600000.SH", Period.D1, "all"),
        BlockKey("test", "C:600000.SH", Period.D1, "all"),
        BlockKey("test", "600000.SH\n", Period.D1, "all"),
        BlockKey("test", "", Period.D1, "all"),
        BlockKey("test", "600000.SH", Period.M1, "../../x"),
        BlockKey("test", "600000.SH", Period.M1, "2026-13"),
        BlockKey("test", "600000.SH", Period.M1, "all"),
        BlockKey("test", "600000.SH", Period.D1, "2026-01"),
        BlockKey("test", "600000.SH", Period.M5, "2026-01"),
    ],
)
def test_no_key_leads_out_of_its_folder(archive: Archive, tmp_path: Path, key: BlockKey) -> None:
    with pytest.raises(ValueError):
        archive.read_many([key])
    with pytest.raises(ValueError):
        archive.write_many({key: daily()})
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_names_that_windows_keeps_for_itself_are_written_otherwise(archive: Archive) -> None:
    key = day_key("AUX.BINANCE")
    archive.write_many({key: daily()})
    assert archive.files("test")[0].endswith("/_AUX.BINANCE.parquet")
    assert same(archive.read_many([key])[key], daily())
    assert archive.remove("test", "AUX.BINANCE", (Period.D1,)) == 1


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped_page(data: bytes) -> bytes:
    return data[:5000] + bytes([data[5000] ^ 0x40]) + data[5001:]


def foreign_columns(_data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": [1, 2]}), sink)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    "damage",
    [truncated, flipped_page, foreign_columns, lambda data: b"", lambda data: b"not parquet" * 100, lambda data: data[:-1]],
)
def test_a_damaged_file_is_moved_aside_counted_and_written_anew(url: str, damage: object) -> None:
    archive = Archive(url)
    put_year(archive)
    [path] = archive.files("test")
    filesystem, root = fsspec.core.url_to_fs(url)
    good = filesystem.cat_file(path)
    bad = damage(good)  # type: ignore[operator]
    filesystem.pipe_file(path, bad)
    assert archive.read_many(KEYS.values()) == {}
    assert archive.counts.read().corrupt == 1
    assert archive.files("test") == []
    [aside] = filesystem.find(f"{root.rstrip('/')}/corrupt")
    assert filesystem.cat_file(aside) == bad
    put_year(archive)
    assert same(archive.read_many([KEYS["2025-01"]])[KEYS["2025-01"]], YEAR["2025-01"])
    # Writing over a damaged file does not keep it either.
    filesystem.pipe_file(path, bad)
    archive.write_many({KEYS["2025-05"]: YEAR["2025-05"]})
    assert archive.read_many(KEYS.values()).keys() == {KEYS["2025-05"]}
    assert archive.counts.read().corrupt == 2


def test_what_files_cover_is_told_by_their_ends_alone(archive: Archive, tmp_path: Path) -> None:
    archive.write_many({month_key(): month(), day_key(): daily()})
    covered = archive.cover_many([month_key(), day_key(), day_key("000001.SZ")])
    whole = archive.read_many([month_key(), day_key()])
    assert {key: (block.days, block.fetched_at, len(block.series)) for key, block in covered.items()} == {
        key: (block.days, block.fetched_at, 0) for key, block in whole.items()
    }
    [path] = tmp_path.rglob("1d/*.parquet")
    good = path.read_bytes()
    path.write_bytes(bytes(60) + good[60:])
    assert day_key() in archive.cover_many([day_key()]), "the bars were not looked at"
    path.write_bytes(good[:-60] + bytes(60))
    assert archive.cover_many([day_key()]) == {}
    assert (path.exists(), archive.counts.read().corrupt, archive.counts.read().hits) == (False, 1, 2)


def test_no_flipped_byte_makes_a_file_lie(archive: Archive) -> None:
    block = daily(30)
    archive.write_many({day_key(): block})
    path = Path(archive.files("test")[0])
    good = path.read_bytes()
    for position in range(len(good)):
        for bit in (0x01, 0x80):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(good[:position] + bytes([good[position] ^ bit]) + good[position + 1 :])
            found = archive.read_many([day_key()])
            assert not found or same(found[day_key()], block), (position, bit)


def test_threads_that_write_one_file_lose_nothing(archive: Archive) -> None:
    threads = [threading.Thread(target=archive.write_many, args=({KEYS[part]: block},)) for part, block in YEAR.items()]
    for thread in threads:
        thread.start()
    seen = 0
    while any(thread.is_alive() for thread in threads):
        found = archive.read_many(KEYS.values())
        assert all(same(found[key], YEAR[key.part]) for key in found)
        assert len(found) >= seen
        seen = len(found)
    assert archive.read_many(KEYS.values()).keys() == set(KEYS.values())
    assert archive.counts.read().corrupt == 0


WRITER = """
import sys
from marketdata.cache.archive import Archive
from tests.cache.blocks import year, month_key
archive = Archive(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for part, block in list(year(2025).items())[int(sys.argv[2])::2]:
    archive.write_many({month_key(part=part): block})
"""


def test_processes_that_write_one_file_lose_nothing(archive: Archive, tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(half)],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for half in (0, 1)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.communicate("go\n", timeout=60)
        assert writer.returncode == 0
    found = archive.read_many(KEYS.values())
    assert all(same(found[KEYS[part]], block) for part, block in YEAR.items())
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_file_that_cannot_be_written_is_counted_and_left_out(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "bars").write_text("a file where a folder should be")
    assert archive.write_many({day_key(): daily()}) == {}
    assert archive.counts.read().errors == 1
    assert archive.read_many([day_key()]) == {}


def test_a_half_written_file_is_never_seen_and_swept_when_its_writer_is_dead(archive: Archive, tmp_path: Path) -> None:
    put_year(archive)
    folder = Path(archive.files("test")[0]).parent
    young, old = folder / ".2025.parquet.1.tmp", folder / ".2025.parquet.2.tmp"
    aside = tmp_path / "corrupt"
    aside.mkdir()
    long_ago = aside / f"x.parquet.{int((time.time() - KEPT_CORRUPT - 60) * 1000)}"
    lately = aside / f"x.parquet.{int(time.time() * 1000)}"
    for path in (young, old, long_ago, lately):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - STRAY - 60,) * 2)
    assert archive.sweep() == 2
    assert young.exists()
    assert lately.exists()
    assert len(archive.files("test")) == 1


def test_what_another_has_swept_or_nobody_may_delete_is_passed_over(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_year(archive)
    folder = Path(archive.files("test")[0]).parent
    gone, kept, old = (folder / f".2025.parquet.{number}.tmp" for number in range(3))
    for path in (gone, kept, old):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - STRAY - 60,) * 2)
    delete = archive._fs.rm_file

    def rm_file(path: str) -> None:
        if path.endswith(gone.name):
            gone.unlink()
        if path.endswith(kept.name):
            raise PermissionError(13, "no", path)
        delete(path)

    monkeypatch.setattr(archive._fs, "rm_file", rm_file)
    assert archive.sweep() == 1
    assert archive.counts.read().errors == 1
    monkeypatch.setattr(archive._fs, "rm_file", lambda path: rm_file(str(kept)))
    assert archive.remove("test", None, (Period.M1,)) == 0


def test_many_small_row_groups_are_read_and_made_one_per_month(archive: Archive) -> None:
    put_year(archive)
    [path] = archive.files("test")
    before = Path(path).read_bytes()
    with pq.ParquetFile(path) as file:
        kept, table = file.metadata.metadata, file.read()
    with pq.ParquetWriter(path, table.schema.remove_metadata(), store_schema=False) as writer:
        writer.write_table(table, row_group_size=500)
        writer.add_key_value_metadata({name: kept[name] for name in (b"argus", b"argus.crc32")})
    assert same(archive.read_many([KEYS["2025-07"]])[KEYS["2025-07"]], YEAR["2025-07"])
    done = archive.check(path)
    assert done.rewritten
    assert done.after < done.before
    assert Path(path).read_bytes() == before
    assert not archive.check(path).rewritten


def test_clearing_is_by_symbol_and_period(archive: Archive) -> None:
    put_year(archive)
    archive.write_many({day_key(): daily(), day_key("000001.SZ"): daily(), month_key(part="2026-01"): month()})
    assert archive.remove("test", "600000.SH", (Period.M1,)) == 2
    assert archive.remove("other", None, (Period.M1, Period.D1)) == 0
    assert archive.remove("test", None, (Period.M1, Period.D1)) == 2
    assert archive.files("test") == []
    with pytest.raises(ValueError):
        archive.remove("test", "../x", (Period.D1,))


def test_a_symbol_year_is_read_within_three_times_of_pyarrow_alone(archive: Archive) -> None:
    put_year(archive)
    [path] = archive.files("test")
    assert len(whole(YEAR)) > 58_000

    def best(work: object) -> float:
        times = []
        for _ in range(15):
            began = time.perf_counter()
            work()  # type: ignore[operator]
            times.append(time.perf_counter() - began)
        return min(times)

    alone = best(lambda: pq.read_table(path))
    ours = best(lambda: archive.read_many(KEYS.values()))
    assert ours < 3 * alone, f"{ours * 1000:.1f} ms against {alone * 1000:.1f} ms"
