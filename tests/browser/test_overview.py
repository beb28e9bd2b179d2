"""The overview shows the service as it is, and keeps doing so."""

from __future__ import annotations

from playwright.sync_api import Page

from tests.browser.conftest import SYMBOLS, Console, Open, run_action
from tests.e2e.service import receive_data, stream, wait_for


def figure(page: Page, id: str, part: str = "value") -> str:
    return page.locator(f'[data-figure="{id}"] [data-part="{part}"]').inner_text()


def test_the_figures_are_live_and_move_without_a_reload(open_page: Open) -> None:
    page = open_page("/admin/")
    page.evaluate("window.sameDocument = true")
    assert figure(page, "feed") == "正常"
    wait_for(lambda: figure(page, "symbols") == str(SYMBOLS), "a quote of every symbol")
    before = figure(page, "stream"), figure(page, "rate", "detail"), page.locator("#overview-time").inner_text()
    page.wait_for_function(
        "before => document.querySelector('[data-figure=stream] [data-part=value]').innerText != before", arg=before[0]
    )
    wait_for(lambda: figure(page, "rate", "detail") != before[1], "more quotes")
    wait_for(lambda: page.locator("#overview-time").inner_text() != before[2], "the clock to move")
    assert "在线" in page.locator('[data-terminal="main"]').inner_text()
    assert page.evaluate("window.sameDocument")


def test_the_chart_draws_the_seconds_that_have_passed(open_page: Open) -> None:
    page = open_page("/admin/")
    drawn = "Chart.getChart(document.querySelector('#overview-rate canvas')).data.datasets[0].data.filter(n => n > 0).length"
    wait_for(lambda: page.evaluate(drawn) >= 2, "two seconds with quotes in the chart")


def test_terminals_come_and_go_while_the_page_is_open(open_page: Open, console: Console) -> None:
    page = open_page("/admin/", language="en-US")
    page.evaluate("window.sameDocument = true")
    page.locator('[data-terminal="main"]').wait_for()
    other = open_page("/admin/marketdata/terminal/add/", language="en-US")
    other.fill("[name=name]", "away")
    other.select_option("[name=pool]", label="main")
    other.uncheck("[name=enabled]", force=True)
    other.click("[name=_save]")
    row = page.locator('[data-terminal="away"]')
    row.wait_for()
    assert " ".join(row.inner_text().split()) == "away disabled It is disabled."
    assert row.get_attribute("data-level") == "neutral"
    names = "[...document.querySelectorAll('#overview-terminals > li')].map(row => row.dataset.terminal)"
    assert page.evaluate(names) == ["away", "main"]
    run_action(other, "away", "delete_selected")
    other.click("#content [type=submit]")
    row.wait_for(state="detached")
    assert page.evaluate(names) == ["main"]
    assert page.evaluate("window.sameDocument")


def test_the_list_of_terminals_leads_to_their_page(open_page: Open, console: Console) -> None:
    page = open_page("/admin/", language="en-US")
    page.get_by_role("link", name="Live state and controls").click()
    page.wait_for_url(f"{console.url}/admin/terminals/")


def test_connections_are_counted_by_plan(open_page: Open, console: Console) -> None:
    page = open_page("/admin/", language="en-US")
    with stream(console.port, console.demo_key, symbols=["*"]) as client:
        receive_data(client)
        wait_for(lambda: "demo 1" in figure(page, "connections", "detail"), "the connection to be counted")
    wait_for(lambda: figure(page, "connections") == "0", "the connection to be gone")


def test_the_page_says_when_the_server_is_silent(open_page: Open) -> None:
    page = open_page("/admin/")
    page.wait_for_function("document.getElementById('overview-time').innerText != ''")
    assert page.locator("#overview-lost").is_hidden()
    page.route("**/overview.json", lambda route: route.fulfill(status=200, body="not JSON"))
    page.get_by_text("服务器没有响应").wait_for()
    page.unroute("**/overview.json")
    page.locator("#overview-lost").wait_for(state="hidden")


def test_every_page_says_that_the_data_is_simulated(open_page: Open, console: Console) -> None:
    page = open_page("/admin/")
    addresses = [link.get_attribute("href") or "" for link in page.locator("#nav-sidebar-apps a").all()]
    assert len(addresses) > 8
    for address in addresses:
        if address.startswith("/admin/"):
            page.goto(console.url + address)
            assert page.get_by_text("模拟数据", exact=True).first.is_visible(), address
            assert page.title().strip().startswith("[模拟数据]"), address
