"""Keys, plans and live connections: what is clicked in the admin happens to real clients."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from argus.errors import DISCONNECTED, KEY_REVOKED, SYMBOL_LIMIT
from tests.browser.conftest import Console, Open, row_appears, run_action
from tests.e2e.service import get, receive_data, stream, wait_for

LATEST = "/api/v1/market_data/latest?symbols={}"


def new_key(console: Console, name: str) -> str:
    """A key of the plan ``standard``, made by the command."""
    said = console.service.manage("create_key", name, "--plan", "standard")
    found = re.search(r"argus_\w{8}_[\w-]{43}", said)
    assert found, said
    return found.group()


def close_code(client: ClientConnection) -> int:
    """Read until the server closes; the code."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            client.recv(timeout=10)
    assert closed.value.rcvd is not None
    return int(closed.value.rcvd.code)


def test_a_key_that_is_made_is_shown_once_and_works_at_once(open_page: Open, console: Console) -> None:
    page = open_page("/admin/access/apikey/add/")
    page.fill("[name=name]", "图表页面")
    page.select_option("[name=plan]", label="standard")
    page.click("[name=_save]")
    key = page.locator("#new-api-key").inner_text()
    assert get(console.port, LATEST.format("000001.SZ"), key)[0] == 200
    page.reload()
    page.get_by_text("图表页面").wait_for()
    assert key not in page.content()
    page.get_by_role("link", name="图表页面").click()
    page.wait_for_url("**/change/")
    assert key not in page.content()


def test_a_revoked_keys_stream_is_closed_within_seconds(open_page: Open, console: Console) -> None:
    key = new_key(console, "to be revoked")
    with stream(console.port, key, symbols=["000001.SZ"]) as client:
        receive_data(client)
        page = open_page("/admin/access/apikey/")
        run_action(page, "to be revoked", "revoke")
        page.get_by_text("已吊销 1 个 API 密钥").wait_for()
        assert close_code(client) == KEY_REVOKED.close
    assert get(console.port, LATEST.format("000001.SZ"), key)[0] == KEY_REVOKED.status


def test_a_live_connection_is_listed_and_can_be_disconnected(open_page: Open, console: Console) -> None:
    key = new_key(console, "to be disconnected")
    with ExitStack() as stack:
        unwanted, other = (
            stack.enter_context(stream(console.port, word, symbols=["000001.SZ"])) for word in (key, console.demo_key)
        )
        receive_data(unwanted)
        page = open_page("/admin/streaming/liveconnection/")
        row_appears(page, "to be disconnected")
        row = page.locator("#result_list tbody tr", has_text="to be disconnected").inner_text()
        assert "standard" in row
        assert "127.0.0.1" in row
        run_action(page, "to be disconnected", "disconnect_selected")
        page.get_by_text("正在断开 1 个连接").wait_for()
        assert close_code(unwanted) == DISCONNECTED.close
        receive_data(other)


def test_a_plan_that_is_changed_holds_for_keys_in_use(open_page: Open, console: Console) -> None:
    key = new_key(console, "limited later")
    path = LATEST.format("000001.SZ,000002.SZ")
    assert get(console.port, path, key)[0] == 200
    page = open_page("/admin/access/plan/")
    page.get_by_role("link", name="standard").click()
    page.fill("[name=symbols]", "1")
    page.click("[name=_save]")

    def refused() -> dict[str, Any] | None:
        status, body, _headers = get(console.port, path, key)
        return body if status == SYMBOL_LIMIT.status else None

    body = wait_for(refused, "the new limit to hold")
    assert (body["name"], body["limit"]) == (SYMBOL_LIMIT.name, 1)
    assert get(console.port, LATEST.format("000001.SZ"), key)[0] == 200
