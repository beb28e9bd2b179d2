"""A running server with empty state, and a key for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from channels.layers import channel_layers
from django.core.cache import cache

from argus.access import check, limits
from argus.config import config
from marketdata import journal, universe
from marketdata.latest import store
from tests.streaming.returning import Source
from tests.streaming.server import UNIVERSE, Server, new_key, serve


@pytest.fixture
def clean_process(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of an earlier test: what a process keeps beside the database."""
    monkeypatch.setattr(limits, "_limiter", limits.MemoryLimiter())
    monkeypatch.setattr(journal, "_journals", {})
    channel_layers.backends.clear()
    for holder in (cache, check.cache, store):
        holder.clear()
    before = universe.current()
    universe.set_current(UNIVERSE)
    yield
    universe.set_current(before)
    channel_layers.backends.clear()
    for holder in (cache, check.cache, store):
        holder.clear()


@pytest.fixture
def source(server: Server) -> Source:
    """A feed that writes its journal."""
    return Source()


@pytest.fixture
async def server(clean_process: None) -> AsyncIterator[Server]:
    async with serve() as running:
        yield running


@pytest.fixture
async def key(clean_process: None) -> str:
    """The text of a key with a generous plan."""
    return (await new_key())[1]


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines short enough to be waited for."""
    monkeypatch.setitem(config.__dict__, "send_timeout", 0.5)
    monkeypatch.setitem(config.__dict__, "auth_timeout", 0.5)
