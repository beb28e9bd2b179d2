"""The same bars in every format, for readers that are not ours; and which format a client gets."""

from __future__ import annotations

import csv as reader
import io
import json as parser
import tracemalloc
from collections.abc import Iterator
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from argus.errors import INVALID_ARGUMENT, NOT_ACCEPTABLE, ArgusError
from marketdata.api.formats import arrow, csv, json, parquet
from marketdata.api.formats.columns import ROWS
from marketdata.api.formats.json import Position
from marketdata.api.formats.negotiate import MEDIA, Format, choose
from marketdata.series import COLUMNS, Series
from tests.api.bars import daily

SYMBOLS = ("600000.SH", "000001.SZ", "600519.SH")
PARTS = [("600000.SH", daily(5)), ("600519.SH", daily(40, base=1400.0))]


def rows(fields: tuple[str, ...] = COLUMNS) -> list[dict[str, object]]:
    found = []
    for symbol, series in PARTS:
        for number in range(len(series)):
            row: dict[str, object] = {"symbol": symbol}
            for name in fields:
                value = getattr(series, name)[number].item()
                row[name] = None if value != value else value
            found.append(row)
    return found


def test_json_has_whole_volumes_shortest_prices_and_null_for_what_is_not_known() -> None:
    body = b"".join(json.write(PARTS, SYMBOLS, COLUMNS, limit=100, begin=Position(0, None), about=lambda end: b'{"x":1}'))
    assert parser.loads(body) == {"data": rows(), "x": 1}
    assert b'"volume":100,"amount":10000.0,"prev_close":null' in body
    assert b'"close":10.01,' in body


def test_arrow_is_a_stream_of_batches_with_zoned_times_and_one_dictionary() -> None:
    body = b"".join(arrow.write(PARTS, SYMBOLS, COLUMNS, b'{"period":"1d"}'))
    with pa.ipc.open_stream(body) as stream:
        assert stream.schema.field("time").type == pa.timestamp("ms", "Asia/Shanghai")
        assert stream.schema.field("symbol").type == pa.dictionary(pa.int32(), pa.string())
        assert parser.loads(stream.schema.metadata[b"argus"]) == {"period": "1d"}
        batches = list(stream)
    assert [batch.num_rows for batch in batches] == [5, 40]
    same(pa.Table.from_batches(batches))


def test_parquet_is_a_file_with_the_same_columns() -> None:
    body = b"".join(parquet.write(PARTS, SYMBOLS, COLUMNS, b'{"period":"1d"}'))
    table = pq.read_table(io.BytesIO(body))
    assert table.schema.field("symbol").type == pa.dictionary(pa.int32(), pa.string())
    assert parser.loads(table.schema.metadata[b"argus"]) == {"period": "1d"}
    same(table)


def same(table: pa.Table) -> None:
    found = table.set_column(1, "time", table.column("time").cast(pa.int64())).to_pylist()
    assert found == rows()


def test_csv_has_a_header_the_time_twice_and_crlf() -> None:
    body = b"".join(csv.write(PARTS, SYMBOLS, COLUMNS)).decode()
    assert body.count("\r\n") == body.count("\n") == 46
    found = list(reader.DictReader(io.StringIO(body, newline="")))
    assert list(found[0])[:3] == ["symbol", "time", "datetime"]
    assert found[0]["datetime"] == "2026-01-05T15:00:00+08:00"
    for line, row in zip(found, rows(), strict=True):
        assert datetime.fromisoformat(line["datetime"]).timestamp() * 1000 == int(line["time"]) == row["time"]
        for name in ("open", "high", "low", "close", "amount", "volume"):
            assert (float(line[name]) if line[name] else None) == row[name], name
        assert line["suspended"] == "false"


def test_only_the_fields_asked_for_are_written() -> None:
    fields = ("time", "close")
    body = b"".join(json.write(PARTS, SYMBOLS, fields, limit=100, begin=Position(0, None), about=lambda end: b"{}"))
    assert parser.loads(body.replace(b"],}", b"]}"))["data"] == rows(fields)
    assert pq.read_table(io.BytesIO(b"".join(parquet.write(PARTS, SYMBOLS, fields, b"")))).column_names == ["symbol", *fields]
    assert b"".join(csv.write(PARTS, SYMBOLS, fields)).startswith(b"symbol,time,datetime,close\r\n600000.SH,")


@pytest.mark.parametrize("form", ["arrow", "parquet", "csv", "json"])
def test_an_answer_without_a_bar_is_a_proper_one(form: str) -> None:
    if form == "arrow":
        assert pa.ipc.open_stream(b"".join(arrow.write([], SYMBOLS, COLUMNS, b""))).read_all().num_rows == 0
    elif form == "parquet":
        assert pq.read_table(io.BytesIO(b"".join(parquet.write([], SYMBOLS, COLUMNS, b"")))).num_rows == 0
    elif form == "csv":
        assert b"".join(csv.write([], SYMBOLS, ("time",))) == b"symbol,time,datetime\r\n"
    else:
        body = b"".join(json.write([], SYMBOLS, COLUMNS, limit=5, begin=Position(0, None), about=lambda end: b'{"x":1}'))
        assert parser.loads(body) == {"data": [], "x": 1}


@pytest.mark.parametrize("form", ["arrow", "parquet", "csv"])
def test_a_table_is_never_in_memory_as_a_whole(form: str) -> None:
    """40 MB of columns; what is held at a time is a chunk or a row group."""
    series = daily(2000)
    symbols = tuple(f"{number:06d}.SH" for number in range(600000, 600250))

    def parts() -> Iterator[tuple[str, Series]]:
        for symbol in symbols:
            yield symbol, series.pick(np.arange(2000))

    write = {
        "arrow": lambda: arrow.write(parts(), symbols, COLUMNS, b""),
        "parquet": lambda: parquet.write(parts(), symbols, COLUMNS, b""),
        "csv": lambda: csv.write(parts(), symbols, COLUMNS),
    }[form]
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    written = most = 0
    for chunk in write():
        written += len(chunk)
        most = max(most, pa.total_allocated_bytes() - before)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert written > 1_000_000
    assert most + peak < 25_000_000


def test_a_long_series_comes_in_several_batches() -> None:
    long = daily(ROWS + 1)
    with pa.ipc.open_stream(b"".join(arrow.write([("600000.SH", long)], SYMBOLS, ("time",), b""))) as stream:
        assert [batch.num_rows for batch in stream] == [ROWS, 1]


@pytest.mark.parametrize(
    ("asked", "accept", "form"),
    [
        (None, None, Format.JSON),
        (None, "", Format.JSON),
        (None, "*/*", Format.JSON),
        (None, "text/*", Format.CSV),
        (None, "text/csv;q=0.5, application/vnd.apache.arrow.stream", Format.ARROW),
        (None, "application/*;q=0.2, application/json;q=0.1", Format.ARROW),
        (None, "text/html, application/xhtml+xml, */*;q=0.8", Format.JSON),
        (None, "application/json;q=0, */*", Format.CSV),
        ("parquet", "application/json", Format.PARQUET),
        ("CSV", "text/html", Format.CSV),
    ],
)
def test_the_parameter_wins_else_the_client_s_best_liked(asked: str | None, accept: str | None, form: Format) -> None:
    assert choose(asked, accept) is form


def test_what_there_is_not_is_refused_with_what_there_is() -> None:
    with pytest.raises(ArgusError) as refused:
        choose(None, "text/html, application/json;q=0")
    assert refused.value.problem is NOT_ACCEPTABLE
    assert refused.value.params["available"] == list(MEDIA.values())
    with pytest.raises(ArgusError) as refused:
        choose("excel", None)
    assert (refused.value.problem, refused.value.params["parameter"]) == (INVALID_ARGUMENT, "format")


@given(st.none() | st.text(), st.none() | st.text())
def test_whatever_is_asked_a_format_is_chosen_or_refused(asked: str | None, accept: str | None) -> None:
    try:
        assert choose(asked, accept) in Format
    except ArgusError as error:
        assert error.params["parameter"] == "format"
