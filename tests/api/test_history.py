"""History over REST: parameters, formats, pages, caching, refusals; the plain route and Django's view answer alike."""

from __future__ import annotations

import dataclasses
import io
import json
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

from argus.access.models import Plan
from argus.access.principal import Limits, Principal
from argus.errors import ArgusError
from marketdata import universe
from marketdata.adjust import ALGORITHMS, Factors
from marketdata.api import history
from marketdata.api.formats.negotiate import Format
from marketdata.cache.tiers import Tier
from marketdata.calendar import midnight
from marketdata.history.query import HistoryQuery
from marketdata.history.service import Adjustment, Prepared
from marketdata.types import Adjust, DataType
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


@pytest.fixture
def elsewhere(filled: object) -> None:
    """The source also quotes shares of Hong Kong, of whose trading days nothing is known."""
    known = universe.current()
    universe.set_current(dataclasses.replace(known, symbols=(*known.symbols, "00005.HK", "00700.HK")))


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
    assert (body["source"], body["stale"], body["age"]) == ("simulated", False, None)
    assert (body["tiers"], body["missing"]) == ({"l1": 2}, {})
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
    refused = await get(PATH, "POST", [])
    assert (refused.status_code, refused.json()["name"]) == (400, "bad_json")


@pytest.mark.parametrize(
    ("address", "body", "parameter"),
    [
        ("", {}, "symbols"),
        ("", {"symbols": {"a": 1}, "count": 1}, "symbols"),
        ("", {"symbols": [["600000.SH"]], "count": 1}, "symbols"),
        ("", {"symbols": "600000.SH", "count": True}, "count"),
        ("", {"symbols": "600000.SH", "count": 1.5}, "count"),
        ("", {"symbols": "600000.SH", "count": [1, 2]}, "count"),
        ("", {"symbols": "600000.SH", "count": 10**30}, "count"),
        ("", {"symbols": "600000.SH", "count": 1, "period": ""}, "period"),
        ("", {"symbols": "600000.SH", "count": 1, "colour": "red"}, "colour"),
        ("?period=1m", {"symbols": "600000.SH", "count": 1}, "period"),
    ],
)
async def test_a_wrong_body_is_refused_with_the_parameter_named(
    get: Get, address: str, body: dict[str, Any], parameter: str
) -> None:
    refused = await get(PATH + address, "POST", body)
    assert (refused.status_code, refused.json()["name"]) == (400, "invalid_argument")
    assert refused.json()["parameter"] == parameter


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


@pytest.mark.parametrize(
    ("asked", "known"),
    [("count=3", True), ("start=2026-10-01", True), ("start=2026-10-01&limit=5", False), ("count=3&format=csv", True)],
)
async def test_time_alone_changes_the_tag_of_those_pages_that_a_time_is_fixed_in(
    get: Get, monkeypatch: pytest.MonkeyPatch, asked: str, known: bool
) -> None:
    path = f"{PATH}?symbols=600000.SH&{asked}"
    tag = (await get(path)).headers["etag"]
    monkeypatch.setattr(history.market_time, "now", lambda: midnight(date(2026, 11, 20)) + 1_000)
    assert (await get(path, **{"If-None-Match": tag})).status_code == (304 if known else 200)


async def test_pages_of_other_ends_have_other_tags(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    path, tags = f"{PATH}?symbols=600000.SH&start=2026-10-01&limit=12", set()
    for second in range(2):
        monkeypatch.setattr(history.market_time, "now", lambda second=second: midnight(date(2026, 11, 20)) + second * 1_000)
        first = (await get(path)).json()
        tags.add((await get(f"{path}&cursor={first['cursor']}")).headers["etag"])
    assert len(tags) == 2


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
        ("symbols=平安银行&start=2026-01-05&end=2026-01-09", {}, False),
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


ADJUSTMENT = Adjustment(
    method=Adjust.BACK,
    algorithm=ALGORITHMS[Adjust.BACK],
    as_of=None,
    refreshed_at=None,
    stale=(),
    factors={"600000.SH": Factors(method=Adjust.BACK, algorithm=ALGORITHMS[Adjust.BACK], as_of=None, rows=())},
    more=0,
)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("form", list(Format))
async def test_every_format_says_in_its_headers_what_the_bars_are(
    get: Get, _bars: dict[str, Any], form: Format, method: str
) -> None:
    _bars |= {"adjustment": ADJUSTMENT, "forming_from": 1_795_071_600_000}
    asked = f"{PATH}?symbols=600000.SH,600519.SH,xx&count=5&adjust=back&format={form}"
    answer = await get(asked, method)
    told = {name: value for name, value in answer.headers.items() if name.startswith("argus-")}
    assert told == {
        "argus-source": "simulated",
        "argus-as-of": "2026-11-20T15:00:00.000+08:00",
        "argus-stale": "false",
        "argus-stamp": "end",
        "argus-adjustment": ALGORITHMS[Adjust.BACK],
        "argus-forming-from": "1795071600000",
        "argus-missing": "1",
        "argus-rejected": "1",
    }
    _bars |= {"adjustment": None, "forming_from": None, "stale": True, "age": 61.25}
    plain = (await get(f"{PATH}?symbols=600000.SH&count=5&format={form}", method)).headers
    assert (plain["argus-stale"], plain["argus-age"]) == ("true", "61.250")
    assert not {"argus-adjustment", "argus-forming-from", "argus-missing", "argus-rejected"} & set(plain)


@pytest.mark.parametrize("form", [Format.ARROW, Format.PARQUET])
async def test_files_say_in_themselves_what_the_bars_are(get: Get, _bars: dict[str, Any], form: Format) -> None:
    _bars |= {"adjustment": ADJUSTMENT}
    content = (await get(f"{PATH}?symbols=600000.SH,600519.SH,xx&count=5&adjust=back&format={form}")).content
    schema = pq.read_schema(io.BytesIO(content)) if form is Format.PARQUET else pa.ipc.open_stream(content).schema
    told = json.loads(schema.metadata[b"argus"])
    assert (told["stamp"], told["adjust"], told["source"], told["stale"]) == ("end", "back", "simulated", False)
    assert told["adjustment"]["algorithm"] == ALGORITHMS[Adjust.BACK]
    assert set(told["adjustment"]["factors"]) == {"600000.SH"}
    assert set(told["missing"]) == {"600519.SH"}
    assert [word["symbol"] for word in told["rejected"]] == ["xx"]


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
        ("symbols=600000.SH&count=-5", 400, "invalid_argument", "count"),
        ("symbols=600000.SH&count=99999999999999999999", 400, "invalid_argument", "count"),
        ("symbols=600000.SH&count=5&limit=-1", 400, "invalid_argument", "limit"),
        ("symbols=600000.SH&count=5&period=", 400, "invalid_argument", "period"),
        ("symbols=600000.SH&count=5&period=1d%00", 400, "invalid_argument", "period"),
        ("symbols=600000.SH%00&count=5", 400, "invalid_symbol", "symbols"),
        ("symbols=%FF&count=5", 400, "invalid_symbol", "symbols"),
        (f"symbols={'A' * 5000}&count=5", 400, "invalid_symbol", "symbols"),
        (f"symbols=600000.SH&count=5&fields={'a' * 5000}", 400, "invalid_argument", "fields"),
        (f"symbols=600000.SH&count=5&{'a' * 500}=1", 400, "invalid_argument", "a" * 40),
        (f"symbols=600000.SH&count=5&cursor={'a' * 5000}", 400, "cursor_invalid", "cursor"),
        ("symbols=600000.SH&count=5&end=2027-01-04", 400, "outside_calendar", "end"),
        ("symbols=600000.SH&start=2027-01-04", 400, "outside_calendar", "start"),
        ("symbols=600000.SH&start=2026-01-05&end=2027-01-04", 400, "outside_calendar", "end"),
        ("symbols=600000.SH&start=1980-01-01&end=1985-01-01", 400, "outside_calendar", "start"),
        ("symbols=600000.SH&count=5&adjust=front&as_of=2027-01-04", 400, "outside_calendar", "as_of"),
        ("symbols=600000.SH&start=2026-02-02&adjust=front&as_of=2026-01-30", 400, "invalid_argument", "as_of"),
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


async def test_symbols_of_a_market_without_a_calendar_stand_in_no_other_s_way(get: Get, elsewhere: None) -> None:
    for symbols in ("00700.HK", "00700.HK,00005.HK"):
        answer = await get(f"{PATH}?symbols={symbols}&count=5")
        problem = answer.json()
        assert (answer.status_code, problem["name"], problem["parameter"]) == (400, "outside_calendar", "symbols")
        assert "nothing is known of the trading days of HK" in problem["detail"]
    together = await get(f"{PATH}?symbols=00700.HK,600000.SH&start=2026-01-05&end=2026-01-06")
    assert (together.status_code, {row["symbol"] for row in together.json()["data"]}) == (200, {"600000.SH"})
    too_early = await get(f"{PATH}?symbols=00700.HK,600000.SH&start=1980-01-01")
    assert (too_early.status_code, too_early.json()["parameter"]) == (400, "start")


@pytest.mark.parametrize("plan", ["large", "unlimited"])
async def test_a_hundred_thousand_symbols_are_refused_unread(get: Get, plan: str) -> None:
    if plan == "unlimited":
        await Plan.objects.filter(name="large").aupdate(symbols=1_000_000)
    symbols = [f"{number:06d}.SH" for number in range(600_000, 700_000)]
    for asked in (symbols, ",".join(symbols)):
        problem = await get(PATH, "POST", {"symbols": asked, "count": 5})
        assert (problem.status_code, problem.json()["name"], problem.json()["parameter"]) == (403, "symbol_limit", "symbols")
        assert (problem.json()["count"], problem.json()["limit"]) == (100_000, 20_000 if plan == "unlimited" else 6000)
    long = await get(PATH, "POST", {"symbols": symbols * 2, "count": 5})
    assert (long.status_code, long.json()["name"]) == (413, "message_too_big")


async def test_more_symbols_than_the_plan_allows_are_refused_in_an_address_too(get: Get) -> None:
    symbols = ",".join(f"{number:06d}.SH" for number in range(600_000, 606_001))
    answer = await get(f"{PATH}?symbols={symbols}&symbols=*&count=5")
    assert (answer.status_code, answer.json()["name"], answer.json()["parameter"]) == (403, "symbol_limit", "symbols")


async def test_a_cursor_of_another_query_is_refused(get: Get) -> None:
    text = (await get(f"{YEAR}&limit=50")).json()["cursor"]
    assert (await get(f"{YEAR}&limit=20&cursor={text}")).status_code == 200, "a page may be of another size"
    for other in ("&fields=close", "&period=1w", "&adjust=back", "&count=7"):
        answer = await get(f"{YEAR}{other}&limit=50&cursor={text}")
        assert (answer.status_code, answer.json()["name"], answer.json()["parameter"]) == (400, "cursor_invalid", "cursor")


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


@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_what_is_small_and_in_memory_is_of_a_known_length(client: httpx.AsyncClient, keys: Keys, coding: str) -> None:
    path = f"{PATH}?symbols=600000.SH&start=2026-01-05&count=200"
    headers = {"Accept-Encoding": coding, "X-API-Key": keys.reader}
    async with client.stream("GET", path, headers=headers) as answer:
        sent = b"".join([part async for part in answer.aiter_raw()])
    assert answer.headers["content-length"] == str(len(sent))
    assert answer.headers.get("content-encoding", "identity") == coding
