"""The body of an answer with latest quotes: stored fragments joined, never decoded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache

import msgspec

from marketdata.latest import LatestStore
from marketdata.universe import Rejected

BEIJING = timezone(timedelta(hours=8))


class Refused(msgspec.Struct, frozen=True):
    """A word of the request that stands for nothing, as the stream's ``rejected`` has it."""

    symbol: str
    code: int
    name: str
    reason: str


class About(msgspec.Struct, frozen=True):
    """What stands beside the quotes."""

    streams: dict[str, dict[str, int]]
    source: str | None
    as_of: str | None
    """When the source last answered (ISO 8601, +08:00); with several feeds that of the one silent longest."""
    stale: bool
    age: float | None
    """Seconds since that answer came here; None before the first one."""
    missing: list[str]
    """Symbols that are known and have no quote yet."""
    rejected: list[Refused]
    request_id: str


def body(
    store: LatestStore,
    symbols: Sequence[str] | None,
    *,
    rejected: Sequence[Rejected] = (),
    expected: Iterable[str] = (),
    stale_after: float,
    request_id: str,
) -> bytes:
    """The JSON answer: the newest quote of each symbol that has one, in the order asked.

    ``symbols`` None: every symbol of the store; ``expected`` are then those that ``missing`` is about. The streams'
    positions are read first: a quote may be newer than they say, never older.
    """
    streams, source, as_of = _standing(store, store.changes)
    fragments = store.fragments
    if symbols is None:
        found = list(fragments.values())
        missing = [symbol for symbol in expected if symbol not in fragments]
    else:
        newest = list(map(fragments.get, symbols))
        found = list(filter(None, newest))
        missing = []
        if len(found) < len(newest):
            missing = [symbol for symbol, fragment in zip(symbols, newest, strict=True) if fragment is None]
    age = store.age()
    stale, age = age is None or age > stale_after, None if age is None else round(age, 1)
    about = About(streams, source, as_of, stale, age, missing, refusals(rejected), request_id)
    return b'{"data":[%s],%s' % (b",".join(found), _encode(about)[1:])


def refusals(rejected: Iterable[Rejected]) -> list[Refused]:
    """Rejected words as clients see them."""
    return [Refused(item.word[:80], item.problem.code, item.problem.name, item.reason) for item in rejected]


_encode = msgspec.json.Encoder().encode


@lru_cache(maxsize=1)
def _standing(store: LatestStore, _changes: int) -> tuple[dict[str, dict[str, int]], str | None, str | None]:
    """Positions, source and time of the feeds: made once for all answers until the store changes."""
    return store.streams(), ",".join(sorted({feed.source for feed in store.feeds.values()})) or None, _as_of(store)


def _as_of(store: LatestStore) -> str | None:
    canaries = [feed.canary for feed in store.feeds.values()]
    known = [canary for canary in canaries if canary is not None]
    if not known or len(known) < len(canaries):
        return None
    return datetime.fromtimestamp(min(known) / 1000, UTC).astimezone(BEIJING).isoformat(timespec="milliseconds")
