"""The admin sees who is connected, on whatever process, and can end it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import Client as Browser
from django.urls import reverse
from django.utils import timezone

from streaming import presence
from streaming.models import SILENT_AFTER, LiveConnection
from streaming.presence import Presence
from streaming.runtime import current
from tests.streaming.server import SYMBOLS, Server, client, new_key, quote, subscriber


@sync_to_async
def rows() -> list[LiveConnection]:
    return list(LiveConnection.objects.live().select_related("key"))


async def rows_when(condition: Callable[[list[LiveConnection]], Any], what: str) -> list[LiveConnection]:
    """The rows, once the condition holds for them."""
    deadline = time.monotonic() + 10
    while not condition(found := await rows()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.02)
    return found


async def test_a_connection_has_a_row_while_it_lives(server: Server) -> None:
    key, text = await new_key()
    async with subscriber(server, text, *SYMBOLS[:3]) as one:
        (connection,) = server.connections.values()
        (row,) = await rows_when(lambda found: len(found) == 1, "the row")
        assert (row.connection_id, row.key, row.prefix, row.plan) == (connection.id, key, key.prefix, key.plan.name)
        assert row.address == "127.0.0.1"
        assert abs(row.connected_at - timezone.now()) < timedelta(minutes=1)
        await one.ask("ping")
    await rows_when(lambda found: not found, "the row to go")


async def test_a_connection_without_a_key_has_no_row(server: Server, key: str) -> None:
    async with client(server), client(server, key):
        (row,) = await rows_when(lambda found: found, "the row")
        assert row.prefix


async def test_the_counters_are_written_now_and_then(server: Server, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "CONFIRM", 0.0)
    async with subscriber(server, key, *SYMBOLS[:3]) as one:
        await server.feed.publish(quote(SYMBOLS[0]))
        await one.receive("data")
        (row,) = await rows_when(lambda found: found and found[0].frames > 2, "the counters")
        assert (row.symbols, row.behind) == (3, False)
        assert row.bytes > 300


async def test_the_counters_are_written_in_turns(server: Server, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, every one is written within a round, and none twice."""
    monkeypatch.setattr(presence, "CONFIRM", 4 * presence.LOOK)
    written: list[str] = []

    def write(process: str, work: presence._Work) -> list[str]:
        if process == own.process:
            written.extend(row.connection_id for row in work.rows)
        return []

    async with AsyncExitStack() as stack:
        for _ in range(6):
            one = await stack.enter_async_context(client(server, key))
            await one.receive("connected")
        runtime = current()
        assert runtime is not None
        own = Presence(runtime.hub)
        monkeypatch.setattr(presence, "_write", write)
        await own.exchange()
        assert sorted(written) == sorted(server.connections)
        written.clear()
        for _ in range(4):
            await own.exchange()
        assert sorted(written) == sorted(server.connections)


async def test_the_operator_can_disconnect_a_client(server: Server, admin_browser: Browser) -> None:
    _, text = await new_key()
    async with client(server, text) as one, client(server, text) as other:
        first = (await one.receive("connected"))["connection_id"]
        await rows_when(lambda found: len(found) == 2, "the rows")
        answer = await sync_to_async(admin_browser.post)(
            reverse("admin:streaming_liveconnection_changelist"),
            {"action": "disconnect_selected", "_selected_action": [first]},
        )
        assert answer.status_code == 302
        assert (await one.receive("error"))["name"] == "disconnected"
        assert await one.closed() == 4113
        assert (await other.ask("ping"))["type"] == "pong"


async def test_another_process_disconnects_its_own(server: Server, key: str) -> None:
    """The mark in the database is all that passes between processes."""
    async with client(server, key) as one:
        await rows_when(lambda found: found, "the row")
        await sync_to_async(LiveConnection.objects.update)(disconnect=True)
        assert await one.closed() == 4113


async def test_rows_of_a_dead_process_do_not_count_and_are_purged(server: Server, key: str) -> None:
    old = timezone.now() - 2 * SILENT_AFTER
    await sync_to_async(LiveConnection.objects.create)(connection_id="dead", process="elsewhere:1", connected_at=old, seen_at=old)
    assert await rows() == []
    runtime = current()
    assert runtime is not None
    await Presence(runtime.hub).exchange()
    assert not await LiveConnection.objects.filter(pk="dead").aexists()


async def test_a_connection_that_a_process_with_a_wrong_clock_purged_is_shown_again(
    server: Server, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "CONFIRM", 0.0)
    async with client(server, key):
        (row,) = await rows_when(lambda found: found, "the row")
        ahead = timezone.now() + 10 * SILENT_AFTER
        with monkeypatch.context() as wrong:
            wrong.setattr("streaming.models.timezone.now", lambda: ahead)
            await sync_to_async(LiveConnection.objects.dead().delete)()
        (again,) = await rows_when(lambda found: found, "the row to come back")
        assert again.connection_id == row.connection_id


async def test_a_stopped_process_takes_its_rows_away(clean_process: None) -> None:
    from tests.streaming.server import serve

    _, text = await new_key()
    async with serve() as server, client(server, text):
        await rows_when(lambda found: found, "the row")
    assert not await LiveConnection.objects.aexists()


async def test_many_connections_are_written_in_bulk(server: Server, django_assert_max_num_queries: Any) -> None:
    """A thousand rows take a handful of statements, not a thousand."""
    now = timezone.now()
    work = presence._Work(
        [
            LiveConnection(connection_id=str(number), process="p", connected_at=now, seen_at=now, frames=number)
            for number in range(1_000)
        ],
        [],
        False,
    )

    def write() -> None:
        with django_assert_max_num_queries(50):
            presence._write("p", work)
            presence._write("p", work)

    await sync_to_async(write)()
    assert await LiveConnection.objects.acount() == 1_000


# The admin's page


@pytest.fixture
def admin_browser(clean_process: None) -> Browser:
    browser = Browser()
    browser.force_login(User.objects.create_superuser("operator"))
    return browser


def _row(**fields: Any) -> LiveConnection:
    now = timezone.now()
    return LiveConnection.objects.create(
        **{"connection_id": "c1", "process": "p", "connected_at": now, "seen_at": now, "prefix": "abcd1234", **fields}
    )


@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_the_page_lists_the_live_connections(admin_browser: Browser, language: str) -> None:
    _row(address="192.0.2.7", plan="pro")
    _row(connection_id="long gone", seen_at=timezone.now() - 2 * SILENT_AFTER)
    page = admin_browser.get(reverse("admin:streaming_liveconnection_changelist"), headers={"Accept-Language": language})
    text = page.content.decode()
    assert page.status_code == 200
    assert "abcd1234" in text
    assert "192.0.2.7" in text
    assert "long gone" not in text


def test_the_rows_are_nobodys_to_write(admin_browser: Browser) -> None:
    row = _row()
    assert admin_browser.get(reverse("admin:streaming_liveconnection_add")).status_code == 403
    assert admin_browser.post(reverse("admin:streaming_liveconnection_delete", args=[row.pk])).status_code == 403
    page = admin_browser.get(reverse("admin:streaming_liveconnection_change", args=[row.pk]))
    assert page.status_code == 200
    assert b'name="_save"' not in page.content


def test_only_who_may_change_connections_may_end_them(clean_process: None) -> None:
    from django.contrib.auth.models import Permission

    watcher = User.objects.create_user("watcher", is_staff=True)
    watcher.user_permissions.add(Permission.objects.get(codename="view_liveconnection"))
    browser = Browser()
    browser.force_login(watcher)
    _row()
    url = reverse("admin:streaming_liveconnection_changelist")
    assert browser.get(url).status_code == 200
    browser.post(url, {"action": "disconnect_selected", "_selected_action": ["c1"]})
    assert not LiveConnection.objects.get().disconnect
