"""Sees within a second what has become of keys, whichever process changed them.

One query a second reads what changed in the last minute by the database's own clock, so that neither a slow commit nor a
process with a wrong clock hides a change; what was seen before is told apart by time and version. After a longer pause (the
database was away, the machine slept) every key that was admitted here is read again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta

import structlog
from django.db import Error as DatabaseError
from django.db.models import Value
from django.db.models.functions import Now

from argus.access import check, lookup, services
from argus.access.cache import Known
from argus.access.models import APIKey, KeyRemoval
from argus.access.principal import Principal
from argus.errors import KEY_EXPIRED, KEY_INVALID, ArgusError

log = structlog.get_logger(__name__)

OnChange = Callable[[int, Principal | ArgusError], None]

INTERVAL = 1.0
"""Seconds between two looks."""
DEADLINE = 5.0
"""Seconds that a look may take."""
WINDOW = timedelta(seconds=60)
"""How far back a look reaches: longer than any transaction that changes a key."""
PAUSE = 30.0
"""Seconds without a good look after which everything is read again; well within the window."""
USE_NOTED = 60.0
"""Seconds between two writes of one key's last use."""

Stamps = dict[int, object]


class Watcher:
    """Drops what changed from the process' cache and tells ``on_change``: the key's id, and what it is now.

    ``on_change`` runs on the event loop, must not raise, and may be told the same thing twice. What a key's new state means
    for a connection is its affair: the addresses of a Principal may have changed as well as its plan.
    """

    def __init__(self, on_change: OnChange) -> None:
        self._on_change = on_change
        self._stamps: Stamps = {}
        self._looked = time.monotonic()
        self._use_noted: dict[int, float] = {}
        self._failing = False

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                async with asyncio.timeout(DEADLINE):
                    await self.look()
            except (DatabaseError, TimeoutError) as error:
                if not self._failing:
                    log.warning("key_watch_failed", error=type(error).__name__)
                self._failing = True
            else:
                if self._failing:
                    log.info("key_watch_works_again")
                self._failing = False
            await asyncio.sleep(INTERVAL)

    async def look(self) -> None:
        """Look once, now."""
        began = time.monotonic()
        everything = list(check.cache.tracked) if began - self._looked > PAUSE else []
        stamps = await asyncio.wrap_future(lookup.in_thread(_recent))
        changed = {key_id for key_id, stamp in stamps.items() if self._stamps.get(key_id) != stamp}
        changed.update(everything)
        for key_id in changed:
            check.cache.drop(key_id)
        if changed:
            self._tell(await asyncio.wrap_future(lookup.in_thread(lookup.by_ids, changed)))
        self._stamps = stamps
        self._looked = began
        check.cache.vouch()
        self._tell(dict.fromkeys(check.cache.take_expired(time.time_ns() // 1_000_000), KEY_EXPIRED))
        await self._note_use()

    def _tell(self, found: dict[int, Known]) -> None:
        now = time.time_ns() // 1_000_000
        for key_id, known in found.items():
            if known is KEY_INVALID:
                check.cache.forget(key_id)
            self._on_change(key_id, check.still(known, now))

    async def _note_use(self) -> None:
        """Write down which keys are in use, off the path of their requests."""
        now = time.monotonic()
        self._use_noted = {key_id: noted for key_id, noted in self._use_noted.items() if now - noted < USE_NOTED}
        used = check.cache.take_used()
        due = used - self._use_noted.keys()
        check.cache.used |= used - due
        if due:
            await asyncio.wrap_future(lookup.in_thread(services.note_use, key_ids=due))
            self._use_noted.update(dict.fromkeys(due, now))


def _recent() -> Stamps:
    """The keys that changed or went within the window, each with a mark that is another one after every change."""
    since = Now() - WINDOW
    changed = APIKey.objects.order_by().filter(changed_at__gte=since).values_list("pk", "version", "changed_at")
    removed = KeyRemoval.objects.order_by().filter(removed_at__gte=since).values_list("key_id", Value(-1), "removed_at")
    return {key_id: (version, moment) for key_id, version, moment in changed.union(removed, all=True)}
