"""A store with known quotes, keys of known plans, and a client of the whole ASGI application."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import httpx
import msgspec
import pytest

from argus.access import check, services
from argus.access.models import Plan
from argus.access.principal import SCOPE_OPERATE, SCOPE_READ
from marketdata import universe
from marketdata.batch import Batch
from marketdata.latest import LatestStore, store
from marketdata.types import Quote
from marketdata.universe import Universe

SYMBOLS = ("000001.SH", "000001.SZ", "000002.SZ", "600000.SH", "600519.SH", "920002.BJ")
UNQUOTED = "600036.SH"
PRICES = dict(zip(SYMBOLS, (3335.7458, 11.37, 7.0, 10.05, 1408.88, 25.310), strict=True))


def quote(symbol: str, price: float) -> Quote:
    return Quote(symbol=symbol, time=1785896702000, price=price, prev_close=None, bid_price=(price,), source="simulated")


def batch(seq: int, *quotes: Quote, epoch: int = 7, feed: str = "main", canary: int | None = 1785896702113) -> Batch:
    fragments = [msgspec.json.encode(item)[:-1] + b',"seq":%d}' % seq for item in quotes]
    symbols = [item.symbol for item in quotes]
    published = int(time.time() * 1000)
    return Batch(feed, epoch, seq, published, "simulated", canary, None, False, symbols, fragments)


def take(latest: LatestStore, message: Batch) -> None:
    assert latest.apply(message)


@pytest.fixture
def filled() -> Iterator[LatestStore]:
    """This process's store: six symbols by message 1841, one of them again by 1842; one more is known and has no quote."""
    before = universe.current()
    store.clear()
    sectors = {"沪深300": ("600000.SH", "000001.SZ")}
    universe.set_current(Universe(symbols=(*SYMBOLS, UNQUOTED), sectors=sectors, names={"000001.SZ": "平安银行"}))
    take(store, batch(1841, *(quote(symbol, price) for symbol, price in PRICES.items())))
    take(store, batch(1842, quote("000001.SZ", 11.38)))
    yield store
    store.clear()
    universe.set_current(before)


class Keys(NamedTuple):
    """Keys' texts."""

    reader: str
    operator: str
    small: str


@pytest.fixture
def keys(transactional_db: None) -> Iterator[Keys]:
    """A reader and an operator of a large plan, and a reader whose plan has three symbols and four requests a minute."""
    large = Plan.objects.create(name="large", requests_per_minute=10_000, connections=5, symbols=6000)
    little = Plan.objects.create(name="little", requests_per_minute=4, connections=1, symbols=3)

    def key(plan: Plan, *scopes: str) -> str:
        return services.create_key(name=scopes[0], plan=plan, scopes=scopes)[1].text

    yield Keys(key(large, SCOPE_READ), key(large, SCOPE_OPERATE, SCOPE_READ), key(little, SCOPE_READ))
    check.cache.clear()


@pytest.fixture
async def client(transactional_db: None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, without a network between. (Its runtime writes to the database until it stops.)"""
    from argus.asgi import application
    from streaming import runtime

    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        yield http
    await runtime.stop()
