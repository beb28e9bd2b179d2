"""The chart page draws what UDF answers, goes back as far as there is anything, and follows the newest quote."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import Page, Route

from tests.browser.conftest import Console, Open
from tests.e2e.service import get, wait_for

SYMBOL = "000001.SZ"
BEIJING = 8 * 3600
DRAWN = "[...document.getElementById('chart').series.prices.data()].map(bar => [bar.time, bar.close])"
VOLUMES = "[...document.getElementById('chart').series.volumes.data()].map(bar => [bar.time, bar.value])"
TO_THE_LEFT = "document.getElementById('chart').chart.timeScale().setVisibleLogicalRange({ from: -200, to: -50 })"


def settled(page: Page, *states: str) -> None:
    """Wait until the bars are there."""
    page.wait_for_function("states => states.includes(document.getElementById('chart').dataset.state)", arg=list(states))


def history(console: Console, period: str, symbol: str = SYMBOL, start: str = "2025-01-01") -> list[dict[str, Any]]:
    """What the REST history has of the days on which there was trading."""
    path = (
        f"/api/v1/market_data/history?symbols={symbol}&period={period}&start={start}&fields=close,volume,suspended&limit=100000"
    )
    status, body, _ = get(console.port, path, console.demo_key)
    assert status == 200, body
    return [row for row in body["data"] if row["volume"] or not row["suspended"]]


@pytest.fixture
def chart(open_page: Open) -> Page:
    page = open_page(f"/admin/chart/?symbol={SYMBOL}", language="en-US")
    settled(page, "ready")
    return page


def test_it_draws_the_closes_and_the_volumes_of_the_history(chart: Page, console: Console) -> None:
    rows = history(console, "1d")
    drawn, volumes = dict(chart.evaluate(DRAWN)), dict(chart.evaluate(VOLUMES))
    # Stamped at the close, 15:00 in Beijing; a chart's days are at midnight UTC.
    known = {row["time"] // 1000 - 7 * 3600: row for row in rows}
    assert len(drawn) == 300
    shown = [time for time in drawn if time <= max(known)]
    assert len(shown) >= 299, "and the day that goes on"
    assert {time: drawn[time] for time in shown} == {time: known[time]["close"] for time in shown}
    assert {time: volumes[time] for time in shown} == {time: known[time]["volume"] for time in shown}
    assert sorted(known)[-len(shown) :] == shown, "none is left out"


def test_another_resolution_and_another_instrument_are_drawn(chart: Page, console: Console) -> None:
    chart.locator('[data-resolution="60"]').click()
    settled(chart, "ready")
    assert chart.locator('[data-resolution="60"]').get_attribute("aria-pressed") == "true"
    rows = {row["time"] // 1000 - 3600: row["close"] for row in history(console, "1h", start="2026-01-01")}
    drawn = {time - BEIJING: close for time, close in chart.evaluate(DRAWN)}
    assert len(drawn) == 300
    shown = {time: close for time, close in drawn.items() if time <= max(rows)}
    assert shown.items() <= rows.items()

    chart.fill("#chart-symbol", "000002")
    chart.locator("#chart-found li").first.wait_for()
    chart.keyboard.press("ArrowDown")
    chart.keyboard.press("Enter")
    chart.wait_for_function("new URLSearchParams(location.search).get('symbol') === '000002.SZ'")
    settled(chart, "ready")
    assert "000002.SZ" in chart.locator('#chart-quote [data-part="name"]').inner_text()
    rows = {row["time"] // 1000 - 3600: row["close"] for row in history(console, "1h", "000002.SZ", start="2026-01-01")}
    others = {time - BEIJING: close for time, close in chart.evaluate(DRAWN)}
    assert {time: close for time, close in others.items() if time <= max(rows)}.items() <= rows.items()
    assert others != drawn
    chart.reload()
    settled(chart, "ready")
    assert chart.locator('[data-resolution="60"]').get_attribute("aria-pressed") == "true", "the address says what is shown"
    assert "000002.SZ" in chart.locator('#chart-quote [data-part="name"]').inner_text()


def test_whoever_scrolls_to_the_left_comes_to_the_first_bar(chart: Page, console: Console) -> None:
    chart.evaluate(TO_THE_LEFT)
    settled(chart, "complete")
    rows = {row["time"] // 1000 - 7 * 3600: row["close"] for row in history(console, "1d")}
    drawn = chart.evaluate(DRAWN)
    assert drawn[0][0] == min(rows)
    assert dict(drawn).items() >= rows.items()
    requests: list[str] = []
    chart.on("request", lambda request: requests.append(request.url))
    chart.evaluate("document.getElementById('chart').chart.timeScale().setVisibleLogicalRange({ from: -100, to: 0 })")
    with chart.expect_response("**/quotes?*"):
        pass
    assert not [url for url in requests if "countback" in url], "where there is nothing before, nothing is asked for"


def test_where_there_are_no_bars_it_goes_on_where_there_are(chart: Page) -> None:
    asked: list[int] = []

    def answer(route: Route) -> None:
        query = parse_qs(urlparse(route.request.url).query)
        if "countback" not in query:
            route.continue_()
            return
        asked.append(int(query["to"][0]))
        hole = {"s": "no_data", "nextTime": asked[0] - 90 * 86_400} if len(asked) == 1 else {"s": "no_data"}
        route.fulfill(status=200, content_type="application/json", body=json.dumps(hole))

    chart.route("**/history?*", answer)
    chart.evaluate(TO_THE_LEFT)
    settled(chart, "complete")
    assert asked == [asked[0], asked[0] - 90 * 86_400 + 1]


def test_an_unknown_instrument_is_said_and_the_chart_stays(chart: Page) -> None:
    before = chart.evaluate(DRAWN)
    for text in ("600999.SH", "nothing like it"):
        chart.fill("#chart-symbol", text)
        chart.keyboard.press("Enter")
        chart.get_by_text(f"{text}: There is no instrument like that.").wait_for()
        assert chart.evaluate(DRAWN)[:-1] == before[:-1]


def test_the_quote_is_live(chart: Page) -> None:
    price = chart.locator('#chart-quote [data-part="lp"]')
    wait_for(lambda: price.inner_text() not in ("", "–"), "a price")
    up = {"s": "ok", "d": [{"s": "ok", "n": SYMBOL, "v": {"lp": 123.4, "ch": 1.2, "chp": 0.98, "volume": 1234}}]}
    answer = json.dumps(up)
    chart.route("**/quotes?*", lambda route: route.fulfill(status=200, content_type="application/json", body=answer))
    wait_for(lambda: price.inner_text() == "123.40", "the newest price")
    assert chart.locator("#chart-quote").get_attribute("data-level") == "up"
    assert chart.locator('#chart-quote [data-part="change"]').inner_text() == "+1.20 (+0.98 %)"
    chart.unroute("**/quotes?*")
    wait_for(lambda: price.inner_text() != "123.40", "the market's price again")


def test_a_ticket_that_is_no_longer_good_is_replaced(chart: Page) -> None:
    refusal = json.dumps({"s": "error", "errmsg": "expired", "name": "ticket_invalid"})
    with chart.expect_request("**/admin/chart/ticket"):
        chart.route("**/quotes?*", lambda r: r.fulfill(status=200, content_type="application/json", body=refusal), times=1)
    with chart.expect_response("**/quotes?*") as again:
        pass
    assert again.value.json()["s"] == "ok"
    assert chart.locator("#chart-said").is_hidden()


def test_it_says_when_the_server_is_silent(chart: Page) -> None:
    chart.route("**/quotes?*", lambda route: route.fulfill(status=200, body="not JSON"))
    chart.get_by_text("No answer from the server; the figures are old.").wait_for()
    chart.unroute("**/quotes?*")
    chart.locator("#chart-said").wait_for(state="hidden")


def test_it_fits_a_phone_and_the_dark(open_page: Open) -> None:
    page = open_page(f"/admin/chart/?symbol={SYMBOL}&resolution=5", width=390, scheme="dark")
    settled(page, "ready")
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    canvas = page.locator("#chart-canvas").bounding_box()
    assert canvas is not None
    assert canvas["y"] + canvas["height"] <= 800, "all of it is seen at once"
    colour = "document.getElementById('chart').chart.options().layout.textColor"
    in_the_dark = page.evaluate(colour)
    page.evaluate("document.documentElement.classList.remove('dark')")
    page.wait_for_function(f"before => {colour} !== before", arg=in_the_dark)


def test_the_overview_leads_to_it(open_page: Open, console: Console) -> None:
    page = open_page("/admin/", language="en-US")
    page.locator('#nav-sidebar-apps a[href="/admin/chart/"]').click()
    page.wait_for_url(f"{console.url}/admin/chart/*")
    settled(page, "ready")
