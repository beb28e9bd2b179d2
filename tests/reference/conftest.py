"""Stored reference data, and a reader's way to the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import Client

from argus.access import services
from argus.access.models import Plan
from argus.access.principal import SCOPE_READ
from marketdata import universe
from marketdata.reference import days, store
from marketdata.types import Instrument

SOURCE = "scripted"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """What a test loads into the process goes with it."""
    known, told, looked_at = universe.current(), days._told, days._looked_at
    yield
    universe.set_current(known)
    days._told, days._looked_at, days._revision = told, looked_at, None


def told(symbol: str, name: str | None = None, **known: Any) -> Instrument:
    return Instrument(symbol=symbol, name=name, source=SOURCE, **known)


STOCKS = (
    told("000001.SZ", "平安银行", lot=100, listed="1991-04-03"),
    told("000002.SZ", "万  科Ａ"),
    told("600900.SH", "长江电力"),
    told("601398.SH", "工商银行"),
    told("600001.SH", "*ST平安"),
    told("000001.SH", "上证指数"),
)
CONTRACTS = (
    told("IF2612.IF", "沪深300股指2612", multiplier=300.0, delisted="2999-12-18"),
    told("IF2611.IF", "沪深300股指2611", delisted="2999-11-20"),
    told("IF2001.IF", "沪深300股指2001", delisted="2020-01-17"),
    told("rb2701.SF", "螺纹钢2701", delisted="2999-01-15"),
    told("10008800.SHO", "300ETF购4000", underlying="510300.SH", option_type="call", strike=4.0, delisted="2999-12-23"),
    told("10008801.SHO", "300ETF沽4000", underlying="510300.SH", option_type="put", strike=4.0, delisted="2999-12-23"),
    told("10000001.SHO", "300ETF购3000", underlying="510300.SH", option_type="call", strike=3.0, delisted="2020-12-23"),
    told("510300.SH", "300ETF"),
    told("159915.SZ", "创业板ETF"),
    told("501018.SH", "南方原油LOF"),
    told("000300.SH", "沪深300"),
)


@pytest.fixture
def stored(db: None) -> None:
    """A small market, as a source told it, in the database and in this process."""
    sectors = {"沪深A股": ["600900.SH", "000001.SZ"], "银行": ["000001.SZ", "601398.SH"]}
    universe.save_reference(source=SOURCE, instruments=STOCKS, sectors=sectors, complete=True)
    universe.save_reference(source=SOURCE, instruments=CONTRACTS, quoted=False)
    store.save_main_contracts(source=SOURCE, contracts={"IF.IF": "IF2612.IF", "rb.SF": "rb2701.SF"})
    store.save_weights(source=SOURCE, index="000300.SH", weights={"000001.SZ": 0.5, "601398.SH": 1.5})
    universe.load()


Get = Callable[..., Any]


@pytest.fixture
def get(db: None) -> Get:
    """GET an address with a reader's key: the answer, whatever its status."""
    plan = Plan.objects.create(name="readers", requests_per_minute=100_000, connections=1, symbols=5)
    key = services.create_key(name="reader", plan=plan, scopes=(SCOPE_READ,))[1].text
    client = Client(raise_request_exception=False)

    def get(path: str, query: Any = None, **headers: str) -> Any:
        return client.get(path, query, headers={"X-API-Key": key, "Accept-Language": "en", **headers})

    return get
