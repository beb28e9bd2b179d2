"""The watcher: what becomes of keys is noticed, whoever changed them and however."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connection
from django.utils import timezone

from argus.access import check, keys, lookup, services, watch
from argus.access.models import APIKey, KeyRemoval, Plan
from argus.access.principal import Principal
from argus.access.watch import Watcher
from argus.config import ROOT
from argus.errors import KEY_EXPIRED, KEY_INVALID, KEY_REVOKED, ArgusError
from tests.access.factory import make_key, make_plan

pytestmark = pytest.mark.django_db(transaction=True)


class Told:
    """What a watcher has told, newest last."""

    def __init__(self) -> None:
        self.changes: list[tuple[int, Any]] = []
        self.watcher = Watcher(self.on_change)

    def on_change(self, key_id: int, now: Principal | ArgusError) -> None:
        self.changes.append((key_id, now.problem if isinstance(now, ArgusError) else now))

    async def look(self) -> list[tuple[int, Any]]:
        self.changes.clear()
        await self.watcher.look()
        return list(self.changes)


@pytest.fixture
async def told() -> Told:
    """A watcher that has looked once."""
    told = Told()
    await told.look()
    return told


async def admitted(told: Told, **values: Any) -> tuple[APIKey, str]:
    """A key that has been let in here, its making already noticed."""
    key, text = await sync_to_async(make_key)(**values)
    await check.authenticate(text, None)
    await told.look()
    await check.authenticate(text, None)
    return key, text


async def refused(text: str) -> Any:
    with pytest.raises(ArgusError) as caught:
        await check.authenticate(text, None)
    return caught.value.problem


async def test_nothing_is_told_while_nothing_changes(told: Told) -> None:
    await admitted(told)
    assert await told.look() == []
    assert await told.look() == []


async def test_a_revoked_key_is_told_and_refused(told: Told) -> None:
    key, text = await admitted(told)
    await sync_to_async(services.revoke_keys)(keys=APIKey.objects.filter(pk=key.pk))
    assert await told.look() == [(key.pk, KEY_REVOKED)]
    assert await refused(text) is KEY_REVOKED
    assert await told.look() == []


@pytest.mark.parametrize("delete", [lambda key: key.delete(), lambda key: APIKey.objects.filter(pk=key.pk).delete()])
async def test_a_deleted_key_is_told_and_unknown(told: Told, delete: Callable[[APIKey], Any]) -> None:
    key, text = await admitted(told)
    await sync_to_async(delete)(key)
    assert await told.look() == [(key.pk or told.changes[0][0], KEY_INVALID)]
    assert await refused(text) is KEY_INVALID
    assert check.cache.tracked == {}


async def test_an_edited_key_is_told_with_what_it_is_now(told: Told) -> None:
    key, text = await admitted(told)
    key.networks = ["10.0.0.0/8"]
    await key.asave()
    [(key_id, now)] = await told.look()
    assert key_id == key.pk
    assert [str(network) for network in now.networks] == ["10.0.0.0/8"]
    assert (await check.authenticate(text, "10.0.0.1")) == now


@pytest.mark.parametrize("bulk", [False, True])
async def test_an_edited_plan_is_told_for_each_of_its_keys(told: Told, bulk: bool) -> None:
    plan, other = await sync_to_async(make_plan)(), await sync_to_async(make_plan)()
    first, text = await admitted(told, plan=plan)
    second, _ = await admitted(told, plan=plan)
    await admitted(told, plan=other)
    if bulk:
        await Plan.objects.filter(pk=plan.pk).aupdate(requests_per_minute=7)
    else:
        plan.requests_per_minute = 7
        await plan.asave()
    changes = await told.look()
    assert {key_id for key_id, _ in changes} == {first.pk, second.pk}
    assert {now.limits.requests_per_minute for _, now in changes} == {7}
    assert (await check.authenticate(text, None)).limits.requests_per_minute == 7


async def test_a_key_moved_to_another_plan_in_bulk_is_told(told: Told) -> None:
    key, _ = await admitted(told)
    plan = await sync_to_async(make_plan)(symbols=3)
    await APIKey.objects.filter(pk=key.pk).aupdate(plan=plan)
    [(_, now)] = await told.look()
    assert now.limits.symbols == 3


async def test_two_changes_at_the_same_moment_are_both_told(told: Told) -> None:
    key, _ = await admitted(told)
    moment = timezone.now()

    def change_at_that_moment() -> None:
        APIKey.objects.filter(pk=key.pk).touch()
        # Past the model, as if the clock had not moved on.
        with connection.cursor() as cursor:
            cursor.execute("UPDATE access_apikey SET changed_at = %s WHERE id = %s", [moment, key.pk])

    await sync_to_async(change_at_that_moment)()
    assert len(await told.look()) == 1
    await sync_to_async(change_at_that_moment)()
    assert len(await told.look()) == 1
    assert await told.look() == []


async def test_a_process_with_a_wrong_clock_hides_no_change(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    key, _ = await admitted(told)
    for error in (timedelta(hours=-2), timedelta(hours=2)):
        wrong = timezone.now() + error
        with monkeypatch.context() as patched:
            patched.setattr(timezone, "now", lambda wrong=wrong: wrong)
            key.name = f"changed at {wrong}"
            await key.asave()
        assert [key_id for key_id, _ in await told.look()] == [key.pk]


async def test_a_key_is_told_when_its_time_has_come(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = timezone.now() + timedelta(hours=1)
    key, _ = await admitted(told, expires_at=moment)
    ms = lookup.milliseconds(moment)
    monkeypatch.setattr(watch.time, "time_ns", lambda: (ms - 1) * 1_000_000)
    assert await told.look() == []
    monkeypatch.setattr(watch.time, "time_ns", lambda: ms * 1_000_000)
    assert await told.look() == [(key.pk, KEY_EXPIRED)]
    assert await told.look() == []


async def test_after_a_long_pause_every_admitted_key_is_read_again(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    key, text = await admitted(told)

    def revoke_long_ago() -> None:
        services.revoke_keys(keys=APIKey.objects.filter(pk=key.pk))
        with connection.cursor() as cursor:
            cursor.execute("UPDATE access_apikey SET changed_at = %s", [timezone.now() - timedelta(hours=1)])

    await sync_to_async(revoke_long_ago)()
    told.watcher._looked -= watch.PAUSE + 1
    assert (key.pk, KEY_REVOKED) in await told.look()
    assert await refused(text) is KEY_REVOKED


async def test_a_restarted_watcher_knows_what_the_dead_one_missed_of_its_process(told: Told) -> None:
    key, text = await admitted(told)
    await sync_to_async(services.revoke_keys)(keys=APIKey.objects.filter(pk=key.pk))
    successor = Told()
    assert (key.pk, KEY_REVOKED) in await successor.look()
    assert await refused(text) is KEY_REVOKED


async def test_the_last_use_is_noted_without_counting_as_a_change(told: Told) -> None:
    key, text = await admitted(told)
    await key.arefresh_from_db()
    noted, changed = key.last_used_at, key.changed_at
    assert noted is not None
    await check.authenticate(text, None)
    await told.look()
    await key.arefresh_from_db()
    assert (key.last_used_at, key.changed_at) == (noted, changed)  # at most once a minute

    told.watcher._use_noted[key.pk] -= watch.USE_NOTED
    await told.look()
    await key.arefresh_from_db()
    assert key.last_used_at is not None
    assert key.last_used_at > noted
    assert await told.look() == []


async def test_a_key_that_is_not_used_is_not_noted(told: Told) -> None:
    key, _ = await sync_to_async(make_key)()
    await told.look()
    await key.arefresh_from_db()
    assert key.last_used_at is None


async def test_removals_are_swept_after_a_day(told: Told) -> None:
    await KeyRemoval.objects.acreate(key_id=1, removed_at=timezone.now() - timedelta(days=2))
    key, _ = await sync_to_async(make_key)()
    await key.adelete()
    assert await KeyRemoval.objects.acount() == 1


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


@pytest.fixture
async def running(told: Told, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Told]:
    monkeypatch.setattr(watch, "INTERVAL", 0.02)
    task = asyncio.create_task(told.watcher.run())
    yield told
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_running_watcher_survives_a_database_that_comes_and_goes(running: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    key, text = await sync_to_async(make_key)()
    await check.authenticate(text, None)
    tries: list[None] = []

    def away() -> None:
        tries.append(None)
        raise OperationalError("the database is away")

    with monkeypatch.context() as patched:
        patched.setattr(watch, "_recent", away)
        await until(lambda: len(tries) >= 3)
        await sync_to_async(services.revoke_keys)(keys=APIKey.objects.filter(pk=key.pk))
    await until(lambda: (key.pk, KEY_REVOKED) in running.changes)


async def test_a_revocation_by_another_process_is_noticed(running: Told) -> None:
    key, text = await sync_to_async(make_key)()
    await check.authenticate(text, None)
    await asyncio.to_thread(revoke_in_another_process, key.prefix)
    await until(lambda: (key.pk, KEY_REVOKED) in running.changes)
    assert await refused(text) is KEY_REVOKED


def database_url() -> str:
    """The test database, as another process is told of it."""
    database = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{database['NAME']}"
    return "postgres://{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}".format_map(database)


def revoke_in_another_process(prefix: str) -> None:
    command = [sys.executable, "manage.py", "revoke_key", prefix]
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "argus.settings", "DATABASE_URL": database_url()}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=60, capture_output=True)


async def test_cached_keys_are_vouched_for_while_the_watcher_looks(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    _, text = await admitted(told)
    monkeypatch.setattr(check.cache, "ALONE", 0.0)
    assert check.cache.find(keys.digest(text)) is not None
    monkeypatch.setattr(check.cache, "_vouched_until", float("-inf"))
    assert check.cache.find(keys.digest(text)) is None
