"""A real service, and a real browser that looks at it: the system's Chromium through Playwright's own API.

pytest-playwright's session-wide browser would keep its event loop running in this thread while other tests want theirs;
ours ends with the tests of this folder.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.e2e.service import Service, free_port, wait_for

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
SYMBOLS = 60


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Starting a browser and a service takes longer than a test may."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(240))


@dataclass(frozen=True)
class Console:
    """A running ``up`` and who may sign in to it."""

    service: Service
    port: int
    password: str
    demo_key: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="package")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """The service as its user starts it; the password and the key are read from what it shows once."""
    service = Service(tmp_path_factory.mktemp("console"), PYTHONUNBUFFERED="1")
    port = free_port()
    service.start("up", "manage.py", "up", "--port", str(port), "--symbols", str(SYMBOLS))
    try:
        service.ready(port, "up")
        said = service.log("up")
        password, key = re.search(r"password: (\S+)", said), re.search(r"argus_\w{8}_[\w-]{43}", said)
        assert password and key, said
        yield Console(service, port, password.group(1), key.group())
    finally:
        service.close()


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """Chromium. Its absence is a failure in CI and a skip with the reason elsewhere."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        reason = f"no browser: install one of {', '.join(NAMES)}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def signed_in(console: Console, chromium: Browser) -> Any:
    """The cookies of somebody who has signed in through the form."""
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"{console.url}/admin/login/")
        sign_in(page, console)
        return context.storage_state()


def sign_in(page: Page, console: Console) -> None:
    """Fill the form in and send it."""
    page.fill("[name=username]", "admin")
    page.fill("[name=password]", console.password)
    page.click("#login-form [type=submit]")
    page.wait_for_url(f"{console.url}/admin/")


class Watch:
    """What a browser asked for and complained about."""

    def __init__(self, context: BrowserContext) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        context.on("request", lambda request: self.requests.append(request.url))
        context.on("console", lambda message: self._said(message.type, message.text))
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        context.on("response", lambda answer: self._answered(answer.status, answer.url))

    def _said(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.complaints.append(text)

    def _answered(self, status: int, url: str) -> None:
        if status >= 400:
            self.complaints.append(f"{status} {url}")


Open = Callable[..., Page]


@pytest.fixture
def open_page(console: Console, chromium: Browser, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens a page as a signed-in administrator (``signed_in=False``: as a stranger) and watches it until the test's end.

    No page may complain in the console, get an error for an answer, or ask anybody but our service for anything.
    """
    opened: list[tuple[BrowserContext, Watch]] = []

    def open(path: str, *, language: str = "zh-CN", scheme: Any = "light", width: int = 1280, signed_in: bool = True) -> Page:
        state = request.getfixturevalue("signed_in") if signed_in else None
        context = chromium.new_context(
            locale=language,
            color_scheme=scheme,
            viewport={"width": width, "height": 800},
            timezone_id="Asia/Shanghai",
            storage_state=state,
        )
        opened.append((context, Watch(context)))
        page = context.new_page()
        page.goto(console.url + path)
        return page

    yield open
    for context, watch in opened:
        context.close()
        local = ("data:", "blob:")
        assert [url for url in watch.requests if not url.startswith((console.url + "/", *local))] == []
        assert watch.complaints == []


def run_action(page: Page, row: str, action: str) -> None:
    """Tick the row that has this text, choose the action, run it."""
    page.locator("#result_list tbody tr", has_text=row).locator("input.action-select").check()
    page.select_option("select[name=action]", action)
    page.click("button[name=index]")


def row_appears(page: Page, text: str) -> None:
    """Reload the list until it has a row with this text."""

    def there() -> bool:
        page.reload()
        return page.locator("#result_list tbody tr", has_text=text).count() > 0

    wait_for(there, f"a row with {text!r}")
