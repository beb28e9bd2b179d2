"""History over REST: parameters, formats, pages, caching, refusals; the plain route and Django's view answer alike."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from asgiref.sync import sync_to_async
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from argus.access.principal import Limits, Principal
from argus.errors import ArgusError
from marketdata.api import history
from marketdata.cache.tiers import Tier
from marketdata.calendar import midnight
from marketdata.history.query import HistoryQuery
from marketdata.history.service import Prepared
from marketdata.types import DataType
from tests.api.bars import daily, prepared
from tests.api.conftest import Keys

PATH = "/api/v1/market_data/history"
HELD = {"600000.SH": daily(300), "000001.SZ": daily(40, base=7.0)}
YEAR = f"{PATH}?symbols=600000.SH,000001.SZ&start=2026-01-01&end=2026-10-30"

Get = Callable[..., Any]


@pytest.fixture(autouse=True)
def _bars(monkeypatch: pytest.MonkeyPatch, filled: object) -> Iterator[dict[str, Any]]:
    """What is prepared: ``HELD``, with what a test changes of it."""
    changes: dict[str, Any] = {}

    def answer(query: HistoryQuery, **_: Any) -> Prepared:
        if error := changes.get("raises"):
            raise error
        return prepared(query, HELD, **changes)

    monkeypatch.setattr(history, "prepare", answer)
    monkeypatch.setattr(history, "prepare_now", answer)
    monkeypatch.setattr(history.market_time, "now", lambda: midnight(date(2026, 11, 20)))
    yield changes


@pytest.fixture(params=["route", "view"])
def get(request: pytest.FixtureRequest, client: httpx.AsyncClient, keys: Keys) -> Get:
    """Asks the plain ASGI route, or Django's view; with ``method`` and ``json`` other than GET."""

    async def from_route(path: str, method: str = "GET", json: object = None, **headers: str) -> httpx.Response:
        # httpx would ask for compressed answers.
        headers = {"Accept-Encoding": "identity", "X-API-Key": keys.reader, **headers}
        request = client.build_request(method, path, json=json, headers=headers)
        return await client.send(request)

    async def from_view(path: str, method: str = "GET", json: object = None, **headers: str) -> httpx.Response:
        django = Client(headers={"X-API-Key": keys.reader, **headers})

        def ask() -> httpx.Response:
            if method == "POST":
                answer = django.post(path, json, content_type="application/json")
            else:
                answer = django.generic(method, path)
            content = b"".join(answer.streaming_content) if answer.streaming else answer.content
            return httpx.Response(answer.status_code, headers=list(answer.items()), content=content)

        return await sync_to_async(ask)()

    return from_route if request.param == "route" else from_view


async def test_bars_come_in_the_order_asked_with_all_that_there_is_to_say(get: Get) -> None:
    answer = await get(f"{PATH}?symbols=sz000001,600000.XSHG&start=2026-01-05&end=20260106&period=1d")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    rows = [(row["symbol"], row["time"], row["close"], row["volume"]) for row in body.pop("data")]
    first, second = (midnight(date(2026, 1, day)) + 15 * 3_600_000 for day in (5, 6))
    assert rows == [
        ("000001.SZ", first, 7.0, 100),
        ("000001.SZ", second, 7.01, 101),
        ("600000.SH", first, 10.0, 100),
        ("600000.SH", second, 10.01, 101),
    ]
    assert body.pop("request_id") == answer.headers.get("x-request-id", "") or body
    assert body["as_of"].endswith("+08:00")
    assert (body["period"], body["stamp"], body["adjust"], body["adjustment"]) == ("1d", "end", "none", None)
    assert (body["source"], body["stale"], body["tiers"], body["missing"]) == ("simulated", False, {"l1": 2}, {})
    assert (body["rejected"], body["cursor"]) == ([], None)


async def test_the_old_name_answers_and_takes_the_terminal_s_names(get: Get) -> None:
    data = (await get(f"{PATH}?symbols=600000.SH&start=2026-01-05&count=3&fields=close")).json()["data"]
    assert len(data) == 3
    named = "stock_list=600000.SH&period=1d&start_time=20260105&end_time=&dividend_type=none&count=3&field_list=close"
    for alias in ("/hist_kline", "/api/hist_kline"):
        assert (await get(f"{alias}?symbols=600000.SH&start=2026-01-05&count=3&fields=close")).json()["data"] == data
        assert (await get(f"{alias}?{named}")).json()["data"] == data
    assert (await get(f"{PATH}?{named}")).json()["name"] == "invalid_argument"
    everything = "stock_list=600000.SH&start_time=20260105&end_time=20260107&count=-1"
    assert len((await get(f"/hist_kline?{everything}")).json()["data"]) == 3


async def test_many_symbols_may_stand_in_a_body(get: Get) -> None:
    answer = await get(PATH, "POST", {"symbols": ["600000.SH", "000001.SZ"], "count": 2, "fields": "close", "end": None})
    assert [row["close"] for row in answer.json()["data"]] == [12.98, 12.99, 7.38, 7.39]
    for body in ([], {"symbols": {"a": 1}}, {"symbols": True}):
        refused = await get(PATH, "POST", body)
        assert refused.status_code == 400
        assert refused.json()["name"] in ("bad_json", "invalid_argument")


@pytest.mark.parametrize(
    ("asked", "accept", "media"),
    [
        ("", "text/csv", "text/csv; charset=utf-8; header=present"),
        ("&format=csv", "application/json", "text/csv; charset=utf-8; header=present"),
        ("", "application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.stream"),
        ("&format=parquet", "*/*", "application/vnd.apache.parquet"),
    ],
)
async def test_every_format_has_the_whole_answer(get: Get, asked: str, accept: str, media: str) -> None:
    answer = await get(YEAR + asked, Accept=accept)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media
    if "csv" in media:
        assert answer.text.count("\r\n") == 1 + 299 + 40
        assert answer.headers["content-disposition"] == 'attachment; filename="2-symbols-1d.csv"'
    else:
        content = answer.content
        table = pq.read_table(io.BytesIO(content)) if "parquet" in media else pa.ipc.open_stream(content).read_all()
        assert table.num_rows == 299 + 40
        assert b'"source":"simulated"' in table.schema.metadata[b"argus"]


async def test_pages_of_json_go_on_to_the_end(get: Get) -> None:
    whole = (await get(f"{YEAR}&limit=1000")).json()["data"]
    rows, text, pages = [], "", 0
    while text is not None:
        page = (await get(f"{YEAR}&limit=50{text and '&cursor=' + text}")).json()
        assert len(page["data"]) <= 50
        rows += page["data"]
        text = page["cursor"]
        pages += 1
    assert rows == whole
    assert len(rows) == 339
    assert pages >= 7


async def test_a_client_that_has_it_is_told_so(get: Get) -> None:
    for form in ("json", "csv", "arrow", "parquet"):
        first = await get(f"{YEAR}&format={form}")
        tag = first.headers["etag"]
        assert tag.startswith("W/") == (form == "json")
        again = await get(f"{YEAR}&format={form}", **{"If-None-Match": f'"other", {tag}'})
        assert (again.status_code, again.content) == (304, b"")
        assert (again.headers["etag"], again.headers["cache-control"]) == (tag, first.headers["cache-control"])
        assert int(again.headers["ratelimit-remaining"]) < int(first.headers["ratelimit-remaining"])
        assert (await get(f"{YEAR}&format={form}", **{"If-None-Match": '"other"'})).status_code == 200
        if form != "json":
            assert (await get(f"{YEAR}&format={form}")).content == first.content


async def test_the_tag_changes_with_the_bars_the_format_and_the_page(get: Get, _bars: dict[str, Any]) -> None:
    asked = [YEAR, f"{YEAR}&format=csv", f"{YEAR}&format=arrow", f"{YEAR}&limit=7", f"{YEAR}&fields=close"]
    tags = [(await get(path)).headers["etag"] for path in asked]
    _bars["etag"] = "other bars"
    tags += [(await get(path)).headers["etag"] for path in asked]
    assert len(set(tags)) == len(tags)


@pytest.mark.parametrize(
    ("query", "changes", "final"),
    [
        ("symbols=600000.SH&start=2026-01-05&end=2026-01-09", {}, True),
        ("symbols=600000.SH&start=2026-01-05&end=2026-01-09", {"closed": False}, False),
        ("symbols=600000.SH&start=2026-01-05&end=2026-01-09", {"stale": True}, False),
        ("symbols=600000.SH&start=2026-01-05", {}, False),
        ("symbols=600000.SH&count=5&end=2026-01-09", {}, False),
        ("symbols=sector:沪深300&start=2026-01-05&end=2026-01-09", {}, False),
        ("symbols=600000.SH,xx&start=2026-01-05&end=2026-01-09", {}, False),
        ("symbols=600000.SH&start=2026-01-05&end=2026-01-09&adjust=front", {}, False),
        ("symbols=600000.SH&start=2026-01-05&end=2026-01-09&adjust=front&as_of=2026-01-09", {}, True),
        ("symbols=600000.SH&start=2026-01-05&end=2026-01-09&adjust=back", {}, True),
    ],
)
async def test_only_what_can_never_change_is_kept_for_ever(
    get: Get, _bars: dict[str, Any], query: str, changes: dict[str, Any], final: bool
) -> None:
    _bars |= changes
    answer = await get(f"{PATH}?{query}")
    assert answer.status_code == 200, answer.text
    assert ("immutable" in answer.headers["cache-control"]) == final
    assert "private" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    ("tiers", "told"),
    [
        ({Tier.L1: 3}, 'argus; hit; detail="l1=3"'),
        ({Tier.L3: 1, Tier.L1: 2}, 'argus; hit; detail="l1=2, l3=1"'),
        ({Tier.TERMINAL: 1}, 'argus; fwd=miss; detail="terminal=1"'),
        ({Tier.TERMINAL: 1, Tier.L2: 2}, 'argus; fwd=partial; detail="l2=2, terminal=1"'),
    ],
)
async def test_every_answer_says_which_tier_it_came_from(
    get: Get, _bars: dict[str, Any], tiers: dict[Tier, int], told: str
) -> None:
    _bars["tiers"] = Counter(tiers)
    for form in ("json", "csv"):
        answer = await get(f"{YEAR}&format={form}")
        assert answer.headers["cache-status"] == told


async def test_what_is_missing_is_counted_where_a_format_cannot_name_it(get: Get) -> None:
    answer = await get(f"{PATH}?symbols=600000.SH,600519.SH&count=5&format=csv")
    assert answer.headers["argus-missing"] == "1"
    assert "argus-missing" not in (await get(f"{PATH}?symbols=600000.SH&count=5&format=csv")).headers


async def test_answers_are_compressed_as_the_client_likes(get: Get) -> None:
    plain = await get(f"{YEAR}&format=csv")
    packed = await get(f"{YEAR}&format=csv", **{"Accept-Encoding": "gzip, zstd"})
    assert packed.headers["content-encoding"] == "zstd"
    assert "Accept-Encoding" in packed.headers["vary"]
    assert packed.headers["etag"] != plain.headers["etag"]
    # httpx has undone it already where it came through httpx.
    assert packed.text == plain.text or zstandard.ZstdDecompressor().stream_reader(packed.content).read() == plain.content
    assert len(plain.content) > 1024
    small = await get(f"{PATH}?symbols=600000.SH&count=1&fields=close", **{"Accept-Encoding": "gzip"})
    assert "content-encoding" not in small.headers
    parquet = await get(f"{YEAR}&format=parquet", **{"Accept-Encoding": "gzip"})
    assert "content-encoding" not in parquet.headers


async def test_head_has_the_headers_alone(get: Get) -> None:
    answer = await get(YEAR, "HEAD")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["etag"] == (await get(YEAR)).headers["etag"]


@pytest.mark.parametrize(
    ("query", "status", "name", "parameter"),
    [
        ("", 400, "invalid_argument", "symbols"),
        ("symbols=600000.SH", 400, "invalid_argument", "start"),
        ("symbols=600001.SH&count=5", 404, "unknown_symbol", "symbols"),
        ("symbols=000001&count=5", 400, "ambiguous_symbol", "symbols"),
        ("symbols=600000.SH&count=5&period=2m", 400, "invalid_argument", "period"),
        ("symbols=600000.SH&start=2026-02-01&end=2026-01-01", 400, "invalid_argument", "start"),
        ("symbols=600000.SH&start=1980-01-01", 400, "outside_calendar", "start"),
        ("symbols=600000.SH&start=2026-02-30", 400, "invalid_argument", "start"),
        ("symbols=600000.SH&count=5&end=yesterday", 400, "invalid_argument", "end"),
        ("symbols=600000.SH&count=0", 400, "invalid_argument", "count"),
        ("symbols=600000.SH&count=5&adjust=both", 400, "invalid_argument", "adjust"),
        ("symbols=600000.SH&count=5&as_of=2026-01-05", 400, "invalid_argument", "as_of"),
        ("symbols=600000.SH&count=5&fields=close,colour", 400, "invalid_argument", "fields"),
        ("symbols=600000.SH&count=5&format=xls", 400, "invalid_argument", "format"),
        ("symbols=600000.SH&count=5&limit=0", 400, "invalid_argument", "limit"),
        ("symbols=600000.SH&count=5&limit=100001", 400, "invalid_argument", "limit"),
        ("symbols=600000.SH&count=5&limit=5&format=csv", 400, "invalid_argument", "limit"),
        ("symbols=600000.SH&count=5&cursor=x&format=csv", 400, "invalid_argument", "cursor"),
        ("symbols=600000.SH&count=5&cursor=x", 400, "cursor_invalid", "cursor"),
        ("symbols=600000.SH&count=5&count=6", 400, "invalid_argument", "count"),
        ("symbols=600000.SH&colour=red", 400, "invalid_argument", "colour"),
    ],
)
async def test_a_wrong_request_is_refused_with_the_parameter_named(
    get: Get, query: str, status: int, name: str, parameter: str
) -> None:
    answer = await get(f"{PATH}?{query}")
    problem = answer.json()
    assert (answer.status_code, problem["name"], problem["parameter"]) == (status, name, parameter)
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["detail"]
    assert "ratelimit-remaining" in answer.headers


async def test_a_hundred_thousand_symbols_are_refused_unread(get: Get) -> None:
    symbols = ",".join(f"{number:06d}.SH" for number in range(600_000, 620_000))
    answer = await get(PATH, "POST", {"symbols": symbols, "count": 5})
    assert (answer.status_code, answer.json()["name"], answer.json()["parameter"]) == (403, "symbol_limit", "symbols")
    answer = await get(f"{PATH}?symbols={symbols[:60_000]}&symbols=*&count=5")
    assert (answer.status_code, answer.json()["name"], answer.json()["parameter"]) == (403, "symbol_limit", "symbols")


async def test_a_format_that_there_is_not_and_a_method_that_is_not_allowed(get: Get) -> None:
    answer = await get(f"{PATH}?symbols=600000.SH&count=5", Accept="text/html")
    assert (answer.status_code, answer.json()["name"]) == (406, "not_acceptable")
    answer = await get(f"{PATH}?symbols=600000.SH&count=5", "DELETE")
    assert answer.status_code == 405
    assert {"GET", "POST"} <= set(answer.headers["allow"].split(", "))


async def test_a_key_is_needed(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"{PATH}?symbols=600000.SH&count=5")
    assert (answer.status_code, answer.json()["name"]) == (401, "not_authenticated")


WORDS = st.lists(st.text(max_size=30) | st.sampled_from(["600000.SH", "1d", "2026-01-05", "5", "*", "front", "json"]), max_size=2)
EVERYONE = Principal(
    key_id=1,
    prefix="x",
    plan="x",
    scopes=frozenset(),
    limits=Limits(requests_per_minute=1, connections=1, symbols=6000, data_types=frozenset(DataType), priority=1),
)


@given(st.dictionaries(st.sampled_from(sorted(history.PARAMETERS)) | st.text(max_size=10), WORDS, max_size=8), st.text())
def test_whatever_is_asked_it_is_read_or_refused_with_the_parameter_named(asked: dict[str, list[str]], accept: str) -> None:
    try:
        history.read_now(asked, EVERYONE, accept, "")
        history.read_now(history.from_terminal_names(asked), EVERYONE, accept, "")
    except ArgusError as error:
        assert "parameter" in error.params


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    try:
        asked = history.from_body(body)
    except ArgusError as error:
        assert error.problem.status == 400
    else:
        assert all(isinstance(value, str) for values in asked.values() for value in values)
