"""Reference data over REST: dates, days, instruments, sectors, contracts; refusals that name the parameter; old names."""

from __future__ import annotations

import json
from datetime import date
from typing import Any
from urllib.parse import quote

import pytest
from django.utils.http import urlencode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marketdata import market_time
from marketdata.calendar import midnight
from marketdata.reference import days, store
from tests.reference.conftest import Get

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stored")]

NOW = "2026-11-20"


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(market_time, "now", lambda: midnight(date.fromisoformat(NOW)) + 10 * 3_600_000)


def body(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.content
    found: dict[str, Any] = json.loads(answer.content)
    assert {"data", "source", "refreshed_at", "as_of", "request_id"} <= set(found)
    return found


def problem(answer: Any, status: int, name: str, parameter: str) -> str:
    document = json.loads(answer.content)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (document["status"], document["name"], document["parameter"]) == (status, name, parameter), document
    return str(document["detail"])


DATES = "/api/v1/trading_dates"


@pytest.mark.parametrize(
    ("query", "dates", "complete"),
    [
        ({"start": "2026-09-30", "end": "2026-10-09"}, ["2026-09-30", "2026-10-08", "2026-10-09"], True),
        ({"start": "20260930", "end": "20260930", "market": "XSHE"}, ["2026-09-30"], True),
        ({"count": "2"}, ["2026-11-19", "2026-11-20"], True),
        ({"end": "2026-02-23", "count": "2"}, ["2026-02-12", "2026-02-13"], True),
        ({"start": "2026-02-14", "count": "2"}, ["2026-02-24", "2026-02-25"], True),
        ({"start": "2026-02-10", "end": "2026-02-28", "count": "1"}, ["2026-02-27"], True),
        ({"start": "2026-10-01", "end": "2026-10-03"}, [], True),
        ({"end": "1990-12-20"}, ["1990-12-19", "1990-12-20"], True),
        ({"start": "2026-12-31", "end": "2099-12-31"}, ["2026-12-31"], False),
        ({"start": "2026-12-30", "count": "9"}, ["2026-12-30", "2026-12-31"], False),
        ({"start": "1980-01-01", "end": "1990-12-19"}, ["1990-12-19"], False),
        ({"end": "1990-12-19", "count": "2"}, ["1990-12-19"], False),
    ],
)
def test_trading_dates_are_those_of_the_calendar_and_say_whether_they_are_all(
    get: Get, query: dict[str, str], dates: list[str], complete: bool
) -> None:
    found = body(get(DATES, query))
    assert (found["data"], found["complete"]) == (dates, complete)
    assert (found["detail"] is None) == complete
    assert found["calendar"] == {
        "first": "1990-12-19",
        "last": "2026-12-31",
        "source": "built-in",
        "refreshed_at": None,
        "conflicts": [],
    }


def test_all_dates_without_parameters(get: Get) -> None:
    assert len(body(get(DATES))["data"]) == 8797


@pytest.mark.parametrize(
    ("query", "parameter", "says"),
    [
        ({"start": "2027-01-04"}, "start", "the calendar ends 2026-12-31"),
        ({"end": "2027-01-04", "count": "5"}, "end", "the calendar ends 2026-12-31"),
        ({"end": "2027-01-04"}, "end", "the calendar ends 2026-12-31"),
        ({"start": "2026-01-01", "end": "2027-01-04", "count": "5"}, "end", "the calendar ends 2026-12-31"),
        ({"end": "1990-12-18"}, "end", "the calendar begins 1990-12-19"),
        ({"market": "HK"}, "market", "Nothing is known of the trading days of HK"),
    ],
)
def test_beyond_the_calendar_nothing_is_guessed(get: Get, query: dict[str, str], parameter: str, says: str) -> None:
    assert says in problem(get(DATES, query), 400, "outside_calendar", parameter)


def test_a_clock_beyond_the_calendar_is_told_and_not_guessed_over(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(market_time, "now", lambda: 1_900_000_000_000)
    problem(get(DATES, {"count": "3"}), 400, "outside_calendar", "count")
    problem(get("/api/v1/calendar/day"), 400, "outside_calendar", "date")


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ({"start": "yesterday"}, "start"),
        ({"end": "2026-02-30"}, "end"),
        ({"start": "2026-03-01", "end": "2026-02-01"}, "start"),
        ({"count": "0"}, "count"),
        ({"count": "99999999999"}, "count"),
        ({"count": "²"}, "count"),
        ({"begin": "2026-03-01"}, "begin"),
        ({"start": ["2026-03-01", "2026-03-02"]}, "start"),
        ({"start": "2026\x00"}, "start"),
    ],
)
def test_bad_dates_are_refused_by_their_parameter(get: Get, query: dict[str, Any], parameter: str) -> None:
    problem(get(DATES, query), 400, "invalid_argument", parameter)


def test_what_the_source_told_extends_the_dates(get: Get) -> None:
    store.save_trading_dates(source="scripted", market="SH", dates=["2026-12-31", "2027-01-04"])
    days.load()
    found = body(get(DATES, {"start": "2026-12-31", "end": "2027-01-04"}))
    assert (found["data"], found["complete"], found["source"]) == (["2026-12-31", "2027-01-04"], True, "built-in,scripted")
    assert found["calendar"]["last"] == "2027-01-04"
    assert found["refreshed_at"].endswith("+08:00")


def test_a_trading_day_has_its_neighbours_and_phases(get: Get) -> None:
    day = body(get("/api/v1/calendar/day", {"market": "SH", "date": "2026-10-08"}))["data"]
    assert (day["is_trading_day"], day["previous_trading_day"], day["next_trading_day"]) == (True, "2026-09-30", "2026-10-09")
    assert [phase["status"] for phase in day["phases"]] == [
        "opening_auction",
        "break",
        "continuous",
        "break",
        "continuous",
        "closing_auction",
    ]
    first = day["phases"][0]
    assert (first["start"], first["end"]) == ("2026-10-08T09:15:00.000+08:00", "2026-10-08T09:25:00.000+08:00")
    assert first["end_ms"] - first["start_ms"] == 600_000
    assert [phase["status"] for phase in day["after_hours"]] == ["break", "after_hours"]


def test_a_holiday_has_no_phases_and_the_calendar_s_last_day_no_next_one(get: Get) -> None:
    day = body(get("/api/v1/calendar/day", {"date": "2026-10-01"}))["data"]
    assert (day["is_trading_day"], day["phases"], day["after_hours"]) == (False, [], [])
    last = body(get("/api/v1/calendar/day", {"date": "2026-12-31"}))["data"]
    assert (last["is_trading_day"], last["next_trading_day"]) == (True, None)
    assert body(get("/api/v1/calendar/day"))["data"]["date"] == NOW
    assert "ends 2026-12-31" in problem(get("/api/v1/calendar/day", {"date": "2027-01-01"}), 400, "outside_calendar", "date")


def test_phases_of_other_rules_than_today_s_and_of_unknown_hours_are_not_guessed(get: Get) -> None:
    assert body(get("/api/v1/calendar/day", {"date": "1995-01-03"}))["data"]["phases"] is None
    assert body(get("/api/v1/calendar/day", {"market": "SHFE", "date": NOW}))["data"]["phases"] is None
    crypto = body(get("/api/v1/calendar/day", {"market": "BINANCE", "date": "2026-11-21"}))["data"]
    assert crypto["is_trading_day"]
    assert [phase["status"] for phase in crypto["phases"]] == ["continuous"]


INSTRUMENTS = "/api/v1/instruments"


def test_instruments_are_searched_filtered_and_paged(get: Get) -> None:
    assert [row["symbol"] for row in body(get(INSTRUMENTS, {"q": "payh"}))["data"]] == ["000001.SZ"]
    row = body(get(INSTRUMENTS, {"q": "payh", "kind": "stock", "market": "SZSE", "quoted": "true"}))["data"][0]
    assert (row["name"], row["pinyin"], row["lot"], row["listed"]) == ("平安银行", "pinganyinhang", 100, "1991-04-03")
    assert (row["delisted"], row["strike"], row["quoted"], row["source"]) == (None, None, True, "scripted")
    whole = [row["symbol"] for row in body(get(INSTRUMENTS))["data"]]
    assert whole == sorted(whole)
    pages: list[str] = []
    query = {"limit": "5"}
    while True:
        page = body(get(INSTRUMENTS, query))
        pages += [row["symbol"] for row in page["data"]]
        if page["cursor"] is None:
            break
        query["cursor"] = page["cursor"]
    assert pages == whole
    nothing = body(get(INSTRUMENTS, {"q": "zzzz"}))
    assert (nothing["data"], nothing["source"]) == ([], "scripted")
    assert nothing["refreshed_at"].endswith("+08:00")


@pytest.mark.parametrize(
    ("query", "status", "name", "parameter"),
    [
        ({"kind": "shares"}, 400, "invalid_argument", "kind"),
        ({"market": "MARS"}, 404, "unknown_sector", "market"),
        ({"quoted": "maybe"}, 400, "invalid_argument", "quoted"),
        ({"limit": "1001"}, 400, "invalid_argument", "limit"),
        ({"cursor": "x"}, 400, "cursor_invalid", "cursor"),
        ({"cursor": "x" * 5000}, 400, "cursor_invalid", "cursor"),
        ({"q": "***"}, 400, "invalid_argument", "q"),
        ({"q": "a", "page": "2"}, 400, "invalid_argument", "page"),
    ],
)
def test_bad_searches_are_refused_by_their_parameter(
    get: Get, query: dict[str, str], status: int, name: str, parameter: str
) -> None:
    problem(get(INSTRUMENTS, query), status, name, parameter)


def test_a_cursor_of_another_query_is_refused(get: Get) -> None:
    cursor = body(get(INSTRUMENTS, {"limit": "2"}))["cursor"]
    assert body(get(INSTRUMENTS, {"limit": "3", "cursor": cursor}))["data"]
    problem(get(INSTRUMENTS, {"limit": "2", "cursor": cursor, "kind": "fund"}), 400, "cursor_invalid", "cursor")
    problem(get("/api/v1/indices", {"cursor": cursor}), 400, "cursor_invalid", "cursor")


@pytest.mark.parametrize("word", ["000001.SZ", "sz000001", "000001.XSHE", "平安银行", "SZSE.000001"])
def test_an_instrument_is_found_by_any_usual_form_of_its_symbol(get: Get, word: str) -> None:
    [row] = body(get(f"{INSTRUMENTS}/{word}"))["data"]
    assert (row["symbol"], row["name"]) == ("000001.SZ", "平安银行")


def test_several_instruments_come_in_the_order_asked_beside_what_was_rejected(get: Get) -> None:
    found = body(get("/instrument_detail", {"symbol": "IF2612,000001.SZ,000001,600777.SH"}))
    assert [row["symbol"] for row in found["data"]] == ["IF2612.IF", "000001.SZ"]
    assert [(item["symbol"], item["name"]) for item in found["rejected"]] == [
        ("000001", "ambiguous_symbol"),
        ("600777.SH", "unknown_symbol"),
    ]


def test_instruments_that_nobody_knows_are_refused(get: Get) -> None:
    problem(get(f"{INSTRUMENTS}/600777.SH"), 404, "unknown_symbol", "symbol")
    problem(get(f"{INSTRUMENTS}/000001"), 400, "ambiguous_symbol", "symbol")
    problem(get("/instrument_detail"), 400, "invalid_argument", "symbol")
    answer = get("/instrument_detail", {"symbol": ",".join(f"{number:06d}.SZ" for number in range(6))})
    assert (json.loads(answer.content)["name"], json.loads(answer.content)["parameter"]) == ("symbol_limit", "symbol")


def test_sectors_and_their_constituents(get: Get) -> None:
    assert [(row["name"], row["size"], row["weighted"]) for row in body(get("/api/v1/sectors"))["data"]] == [
        ("000300.SH", 2, True),
        ("沪深A股", 2, False),
        ("银行", 2, False),
    ]
    found = body(get("/api/v1/sectors/银行"))
    assert found["data"] == [
        {"symbol": "000001.SZ", "name": "平安银行", "weight": None},
        {"symbol": "601398.SH", "name": "工商银行", "weight": None},
    ]
    assert [row["symbol"] for row in body(get("/stock_list"))["data"]] == ["600900.SH", "000001.SZ"]
    problem(get("/stock_list", {"sector": "没有"}), 404, "unknown_sector", "sector")


@pytest.mark.parametrize("name", ["000300.SH", "sh000300", "沪深300"])
def test_an_index_has_its_constituents_with_weights_the_heaviest_first(get: Get, name: str) -> None:
    data = body(get("/stock_list", {"sector": name}))["data"]
    assert [(row["symbol"], row["weight"]) for row in data] == [("601398.SH", 1.5), ("000001.SZ", 0.5)]


def test_indices_and_etfs_are_instruments_of_their_sort(get: Get) -> None:
    assert [row["symbol"] for row in body(get("/api/v1/indices"))["data"]] == ["000001.SH", "000300.SH"]
    assert [row["symbol"] for row in body(get("/api/v1/etfs"))["data"]] == ["159915.SZ", "510300.SH"]
    assert [row["symbol"] for row in body(get("/api/v1/etfs", {"q": "cyb"}))["data"]] == ["159915.SZ"]
    problem(get("/api/v1/etfs", {"kind": "stock"}), 400, "invalid_argument", "kind")


def test_futures_come_by_product_with_the_main_contract_marked(get: Get) -> None:
    found = body(get("/api/v1/futures"))["data"]
    assert [(row["product"], row["main"]) for row in found] == [("IF.IF", "IF2612.IF"), ("rb.SF", "rb2701.SF")]
    assert [(row["symbol"], row["main"]) for row in found[0]["contracts"]] == [("IF2611.IF", False), ("IF2612.IF", True)]
    [product] = body(get("/api/v1/futures", {"product": "if", "expired": "true"}))["data"]
    assert [row["symbol"] for row in product["contracts"]] == ["IF2001.IF", "IF2611.IF", "IF2612.IF"]
    problem(get("/api/v1/futures", {"product": "zz"}), 404, "unknown_symbol", "product")


@pytest.mark.parametrize(("word", "symbol"), [("IF", "IF2612.IF"), ("if.CFFEX", "IF2612.IF"), ("RB.SHFE", "rb2701.SF")])
def test_a_product_has_its_main_contract_under_any_usual_name(get: Get, word: str, symbol: str) -> None:
    assert body(get(f"/api/v1/futures/{word}/main"))["data"]["symbol"] == symbol
    problem(get("/api/v1/futures/IC/main"), 404, "unknown_symbol", "product")


@pytest.mark.parametrize("word", ["510300", "510300.SH", "sh510300"])
def test_options_of_an_underlying(get: Get, word: str) -> None:
    found = body(get("/api/v1/options", {"underlying": word}))
    assert [(row["symbol"], row["option_type"], row["strike"]) for row in found["data"]] == [
        ("10008800.SHO", "call", 4.0),
        ("10008801.SHO", "put", 4.0),
    ]
    assert [row["symbol"] for row in body(get("/api/v1/options", {"underlying": word, "type": "put"}))["data"]] == [
        "10008801.SHO"
    ]
    assert len(body(get("/api/v1/options", {"underlying": word, "expired": "true"}))["data"]) == 3


def test_options_need_an_underlying_that_has_some(get: Get) -> None:
    problem(get("/api/v1/options"), 400, "invalid_argument", "underlying")
    problem(get("/api/v1/options", {"underlying": "600000.SH"}), 404, "unknown_symbol", "underlying")
    problem(get("/api/v1/options", {"underlying": "510300", "type": "swap"}), 400, "invalid_argument", "type")


ALIASES = [
    (f"{DATES}?count=3", "/api/get_trading_dates?count=3"),
    (f"{DATES}?count=3", "/trading_dates?count=3"),
    (f"{INSTRUMENTS}/000001.SZ,600900.SH", "/instrument_detail?symbol=000001.SZ,600900.SH"),
    (f"{INSTRUMENTS}/000001.SZ", "/api/instrument_detail?symbol=000001.SZ"),
    ("/api/v1/sectors/银行", "/stock_list?sector=银行"),
    ("/api/v1/sectors/沪深A股", "/api/stock_list"),
    (f"{DATES}?count=x", "/trading_dates?count=x"),
    (
        f"{DATES}?start=2026-10-08&end=2026-10-12",
        "/api/get_trading_dates?market=SH&start_time=20261008&end_time=20261012&count=-1",
    ),
    (f"{DATES}?end=2026-10-12&count=2", "/trading_dates?start_time=&end_time=2026-10-12&count=2"),
    (f"{DATES}?end=x", "/trading_dates?end_time=x"),
    (f"{INSTRUMENTS}/000001.SZ", "/instrument_detail?stock_code=000001.SZ"),
    ("/api/v1/sectors/银行", "/api/stock_list?sector_name=银行"),
    (f"{INSTRUMENTS}/600777.SH", "/instrument_detail?symbol=600777.SH"),
]


@pytest.mark.parametrize(("address", "alias"), ALIASES)
def test_an_alias_answers_exactly_the_same(get: Get, address: str, alias: str) -> None:
    ours, theirs = get(address), get(alias)
    assert ours.status_code == theirs.status_code
    assert ours.headers.get("ETag") == theirs.headers.get("ETag")
    same = [{**json.loads(answer.content), "request_id": ""} for answer in (ours, theirs)]
    assert same[0] == same[1]


def test_the_terminal_s_names_belong_to_the_old_names_alone(get: Get) -> None:
    problem(get(f"{DATES}?start_time=20261008"), 400, "invalid_argument", "start_time")
    problem(get("/instrument_detail?code=000001.SZ"), 400, "invalid_argument", "code")


@pytest.mark.parametrize("address", [DATES, INSTRUMENTS, "/api/v1/sectors", "/stock_list"])
def test_a_format_other_than_json_is_refused_by_its_parameter(get: Get, address: str) -> None:
    problem(get(address, {"format": "csv"}), 400, "invalid_argument", "format")


def test_an_answer_that_has_not_changed_is_not_sent_again(get: Get) -> None:
    first = get(f"{DATES}?count=3")
    again = get(f"{DATES}?count=3", **{"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert get(f"{DATES}?count=4", **{"If-None-Match": first.headers["ETag"]}).status_code == 200


ADDRESSES = (
    DATES,
    "/api/v1/calendar/day",
    INSTRUMENTS,
    "/instrument_detail",
    "/api/v1/sectors",
    "/stock_list",
    "/api/v1/indices",
    "/api/v1/etfs",
    "/api/v1/futures",
    "/api/v1/options",
)


def test_every_address_is_closed_without_a_key(get: Get) -> None:
    for address in ADDRESSES:
        assert get(address, **{"X-API-Key": ""}).status_code == 401, address


SEARCHED = ["q", "kind", "market", "quoted", "limit", "cursor", "symbol", "sector", "product", "underlying", "type", "expired"]
NAMES = st.sampled_from([*SEARCHED, "start", "end", "count", "date", "other"])
VALUES = st.one_of(
    st.text(max_size=80),
    st.sampled_from(
        ["SH", "HK", "0001-01-01", "9999-12-31", "00010101", "-1", "1e9", "٣", "true", "000001", "*", "market:SH", "\0"]
    ),
    st.sampled_from(["sector:银行", "%", "İ", "ß", "2026-01-05", "IF", "rb.SF", "510300", "call", "5"]),
)


@given(query=st.lists(st.tuples(NAMES, VALUES), max_size=4), address=st.sampled_from(ADDRESSES))
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_query_leads_to_an_error_of_ours(get: Get, query: list[tuple[str, str]], address: str) -> None:
    try:
        text = urlencode(query)
    except UnicodeEncodeError:  # Half of a surrogate pair cannot stand in a URL.
        return
    answer = get(f"{address}?{text}")
    assert answer.status_code in (200, 400, 403, 404), (text, answer.content)
    if answer.status_code != 200:
        document = json.loads(answer.content)
        assert document["request_id"]
        assert document["parameter"]


@given(word=st.text(min_size=1, max_size=80), address=st.sampled_from(["instruments/{}", "sectors/{}", "futures/{}/main"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_word_in_a_path_leads_to_an_error_of_ours(get: Get, word: str, address: str) -> None:
    try:
        path = "/api/v1/" + address.format(quote(word, safe=""))
    except UnicodeEncodeError:
        return
    assert get(path).status_code in (200, 301, 400, 403, 404)
