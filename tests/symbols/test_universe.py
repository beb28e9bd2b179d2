"""What people's words stand for, and how reference data reaches a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from argus.errors import AMBIGUOUS_SYMBOL, INVALID_SYMBOL, UNKNOWN_SECTOR, UNKNOWN_SYMBOL
from marketdata import models, universe
from marketdata.types import Instrument
from marketdata.universe import Universe, resolve, save_reference

KNOWN = Universe(
    symbols=("000001.SH", "000001.SZ", "000002.SZ", "600000.SH", "920002.BJ"),
    sectors={"沪深300": ("600000.SH", "000001.SZ"), "空": ()},
    names={"000001.SZ": "平安银行", "000002.SZ": "万 科Ａ", "600000.SH": "浦发", "920002.BJ": "浦发"},
)


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = universe.current()
    yield
    universe.set_current(before)


@pytest.mark.parametrize(
    ("words", "symbols"),
    [
        (["000001.SZ", "sh600000"], ("000001.SZ", "600000.SH")),
        (["600000", "SH600000", "600000.XSHG"], ("600000.SH",)),
        (["market:SH"], ("000001.SH", "600000.SH")),
        (["market: xshe "], ("000001.SZ", "000002.SZ")),
        (["sector:沪深300"], ("600000.SH", "000001.SZ")),
        (["sector:空"], ()),
        (["平安银行", "万科A"], ("000001.SZ", "000002.SZ")),
        (["000002.SZ", "sector:沪深300", "market:BJ"], ("000002.SZ", "600000.SH", "000001.SZ", "920002.BJ")),
        ([], ()),
    ],
)
def test_words_stand_for_symbols_in_the_order_asked(words: list[str], symbols: tuple[str, ...]) -> None:
    assert resolve(words, KNOWN) == (symbols, False, ())


def test_a_star_is_everything_now_and_later() -> None:
    found = resolve(["600000", " * "], KNOWN)
    assert found.everything
    assert set(found.symbols) == set(KNOWN.symbols)


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("000001", AMBIGUOUS_SYMBOL),
        ("浦发", AMBIGUOUS_SYMBOL),
        ("无名", INVALID_SYMBOL),
        ("", INVALID_SYMBOL),
        ("600001.SH", UNKNOWN_SYMBOL),
        ("market:XX", UNKNOWN_SECTOR),
        ("market:HK", UNKNOWN_SECTOR),
        ("sector:沪深30", UNKNOWN_SECTOR),
        ("x" * 10_000, INVALID_SYMBOL),
    ],
)
def test_a_word_that_stands_for_nothing_is_named_with_its_problem(word: str, problem: object) -> None:
    found = resolve([word, "600000"], KNOWN)
    assert found.symbols == ("600000.SH",)
    assert [(item.word, item.problem) for item in found.rejected] == [(word, problem)]
    assert found.rejected[0].reason


def test_nothing_readable_is_called_unknown_before_the_source_has_told_its_symbols() -> None:
    found = resolve(["600001.SH", "market:SH"], Universe())
    assert found.symbols == ("600001.SH",)
    assert [item.problem for item in found.rejected] == [UNKNOWN_SECTOR]


def told(symbol: str, **known: object) -> Instrument:
    return Instrument(symbol=symbol, source="simulated", **known)  # type: ignore[arg-type]


def save(*instruments: Instrument, complete: bool = True, **sectors: list[str]) -> None:
    save_reference(source="simulated", instruments=instruments, sectors=sectors, complete=complete)


@pytest.mark.django_db
def test_what_a_source_told_becomes_the_universe() -> None:
    save(told("600000.SH", name="浦发银行"), told("000001.SZ"), 沪深300=["000001.SZ", "600000.SH", "999999.SH"])
    known = universe.load()
    assert known.symbols == ("000001.SZ", "600000.SH")
    assert known.sectors == {"沪深300": ("000001.SZ", "600000.SH")}
    assert known.names == {"600000.SH": "浦发银行"}
    assert known is universe.current()
    row = models.Instrument.objects.get(symbol="600000.SH")
    assert (row.kind, row.price_tick, row.market, row.source) == ("stock", 0.01, "SH", "simulated")


@pytest.mark.django_db
def test_what_a_source_does_not_know_keeps_what_is_stored() -> None:
    save(told("600000.SH", name="浦发银行", lot=100, listed="1999-11-10"))
    save(told("600000.SH"))
    row = models.Instrument.objects.get()
    assert (row.name, row.lot, str(row.listed)) == ("浦发银行", 100, "1999-11-10")


@pytest.mark.django_db
def test_what_the_source_quotes_no_longer_leaves_the_universe_but_not_the_database() -> None:
    save(told("600000.SH"), told("600001.SH"), 甲=["600001.SH"], 乙=["600000.SH"])
    save(told("600000.SH"), 乙=["600000.SH"])
    assert universe.load().symbols == ("600000.SH",)
    assert universe.current().sectors == {"乙": ("600000.SH",)}
    assert models.Instrument.objects.count() == 2
    save(told("600001.SH"), complete=False)
    assert universe.load().symbols == ("600000.SH", "600001.SH")


@pytest.mark.django_db(transaction=True)
async def test_processes_take_a_new_revision_and_only_that() -> None:
    from asgiref.sync import sync_to_async

    universe.set_current(Universe())
    assert not await universe.refresh()
    await sync_to_async(save)(told("600000.SH", name="浦发银行", listed="1999-11-10"))
    assert await universe.refresh()
    assert universe.current().symbols == ("600000.SH",)
    await sync_to_async(save)(told("600000.SH", name="浦发银行", listed="1999-11-10"))
    assert not await universe.refresh()
