"""Every page fits its window, in the light and in the dark, and the API's documentation comes from us alone."""

from __future__ import annotations

import pytest
from drf_spectacular.generators import SchemaGenerator

from tests.browser.conftest import Console, Open

PAGES = [
    "/admin/",
    "/admin/access/apikey/",
    "/admin/access/apikey/add/",
    "/admin/access/apikey/1/change/",
    "/admin/access/plan/",
    "/admin/access/plan/1/change/",
    "/admin/streaming/liveconnection/",
    "/admin/marketdata/instrument/",
    "/admin/marketdata/instrument/1/change/",
    "/admin/marketdata/sector/",
    "/admin/marketdata/sector/1/change/",
    "/admin/marketdata/tradingdates/",
    "/admin/marketdata/maincontract/",
    "/admin/marketdata/dividends/",
    "/admin/marketdata/backfill/",
    "/admin/marketdata/bardifference/",
    "/admin/terminals/",
    "/admin/chart/",
    "/admin/marketdata/pool/",
    "/admin/marketdata/pool/add/",
    "/admin/marketdata/pool/1/change/",
    "/admin/marketdata/terminal/",
    "/admin/marketdata/terminal/1/change/",
    "/admin/auth/user/",
    "/admin/auth/user/add/",
    "/admin/auth/user/1/change/",
    "/admin/auth/group/add/",
    "/admin/access/",
    "/admin/login/",
]
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_no_page_is_wider_than_its_window(open_page: Open, console: Console, width: int, scheme: str) -> None:
    page = open_page("/api/docs", width=width, scheme=scheme)
    page.locator(".opblock").first.wait_for()
    excess = {"/api/docs": page.evaluate(OVERFLOW)}
    for path in PAGES:
        page.goto(console.url + path)
        excess[path] = page.evaluate(OVERFLOW)
    assert {path: pixels for path, pixels in excess.items() if pixels > 0} == {}


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
@pytest.mark.parametrize("path", ["/admin/", "/api/docs"])
def test_pages_follow_the_systems_light_and_dark(open_page: Open, path: str, scheme: str, dark: bool) -> None:
    page = open_page(path, scheme=scheme)
    page.wait_for_function("getComputedStyle(document.body).backgroundColor != ''")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).slice(0, 1).map(Number)[0]")
    lightness = background / 255 if background > 1 else background
    assert (lightness < 0.5) is dark


def test_the_api_documentation_shows_every_operation(open_page: Open) -> None:
    page = open_page("/api/docs", language="en-US")
    page.locator(".opblock").first.wait_for()
    shown = page.locator(".opblock-summary-path").evaluate_all("found => found.map(one => one.dataset.path)")
    operations = [path for path, methods in SchemaGenerator().get_schema(public=True)["paths"].items() for _ in methods]
    assert sorted(shown) == sorted(operations)
    assert {"/api/v1/market_data/latest", "/api/v1/market_data/history", "/api/v1/stream/ticket"} < set(shown)
    page.locator('[data-path="/api/v1/market_data/latest"]').click()
    page.get_by_text("separated by commas").first.wait_for()
    assert "API documentation" in page.title()
    in_chinese = open_page("/api/docs").locator('.opblock-summary:has([data-path="/api/v1/market_data/full"])')
    assert "全市场的最新行情" in in_chinese.inner_text()


def test_strangers_are_sent_to_sign_in_before_they_see_the_documentation(open_page: Open) -> None:
    page = open_page("/api/docs", signed_in=False)
    page.locator("#login-form").wait_for()
