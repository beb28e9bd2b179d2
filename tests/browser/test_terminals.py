"""The page of terminals is live, and its knobs act while it is open."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page

from tests.browser.conftest import Open
from tests.e2e.service import wait_for

MAIN = '[data-pool="main"]'
TERMINAL = '[data-terminal="main"]'


def fact(page: Page, name: str) -> str:
    """What is told of the terminal; empty where it is not told now."""
    return "".join(page.locator(f'{TERMINAL} [data-fact="{name}"]').all_inner_texts())


def knob(page: Page, where: str, name: str) -> Locator:
    return page.locator(f'{where} > fieldset [name$="-{name}"]')


def said(page: Page, where: str) -> Locator:
    return page.locator(f'{where} > [data-part="said"]')


@pytest.fixture
def terminals(open_page: Open) -> Iterator[Page]:
    """The page with the terminal publishing; whatever the test does, it publishes again afterwards, as before."""
    page = open_page("/admin/terminals/", language="en-US")
    page.evaluate("window.sameDocument = true")
    wait_for(lambda: (fact(page, "level"), fact(page, "role")) == ("up", "publishing"), "the terminal to publish")
    yield page
    if page.locator(TERMINAL).get_attribute("data-drained") == "true":
        page.get_by_role("button", name="Resume").click()
    knob(page, MAIN, "strategy").select_option("least_connections")
    wait_for(lambda: (fact(page, "level"), fact(page, "role")) == ("up", "publishing"), "the terminal to publish again")


def test_the_strategy_is_changed_and_stays_so(terminals: Page) -> None:
    knob(terminals, MAIN, "strategy").select_option("random")
    said(terminals, MAIN).get_by_text("Saved.").wait_for()
    terminals.reload()
    assert knob(terminals, MAIN, "strategy").input_value() == "random"


def test_a_drained_terminal_publishes_no_more_until_it_is_resumed(terminals: Page) -> None:
    terminals.get_by_role("button", name="Drain").click()
    wait_for(lambda: fact(terminals, "level") == "drained", "the terminal to be drained")
    wait_for(lambda: fact(terminals, "role") == "", "it to publish no more")
    assert "publishes nothing" in fact(terminals, "reasons")
    terminals.get_by_role("button", name="Resume").click()
    wait_for(lambda: (fact(terminals, "level"), fact(terminals, "role")) == ("up", "publishing"), "it to publish again")
    assert terminals.evaluate("window.sameDocument")


def test_a_probe_says_what_came_of_it(terminals: Page) -> None:
    terminals.get_by_role("button", name="Probe now").click()
    said(terminals, TERMINAL).get_by_text("It answers.").wait_for()


def test_what_is_typed_is_not_taken_away_and_is_sent_when_it_is_done(terminals: Page) -> None:
    weight = knob(terminals, TERMINAL, "weight")
    weight.focus()
    terminals.keyboard.press("ControlOrMeta+A")
    terminals.keyboard.type("7")
    shown = terminals.locator("#terminals-time").inner_text()
    wait_for(lambda: terminals.locator("#terminals-time").inner_text() != shown, "the page to be renewed")
    assert weight.input_value() == "7"
    terminals.keyboard.press("Tab")
    said(terminals, TERMINAL).get_by_text("Saved.").wait_for()
    terminals.reload()
    assert weight.input_value() == "7"


def test_the_page_is_fit_for_a_phone_and_says_when_the_server_is_silent(open_page: Open) -> None:
    page = open_page("/admin/terminals/", width=390, scheme="dark")
    page.wait_for_function("document.getElementById('terminals-time').innerText != ''")
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    page.route("**/terminals.json", lambda route: route.fulfill(status=200, body="not JSON"))
    page.locator("#terminals-lost").wait_for()
    page.unroute("**/terminals.json")
    page.locator("#terminals-lost").wait_for(state="hidden")
