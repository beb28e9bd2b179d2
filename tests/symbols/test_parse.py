"""Every form that people write becomes the one canonical symbol, or is refused with its reason."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketdata.exchanges import MARKET_OF_NAME, MARKETS, Kind
from marketdata.symbols import SymbolError, board_limit, kind, market_of, parse, price_tick


@pytest.mark.parametrize(
    ("text", "symbol"),
    [
        ("000001.SZ", "000001.SZ"),
        ("sz000001", "000001.SZ"),
        ("SZ.000001", "000001.SZ"),
        ("SZ000001", "000001.SZ"),
        ("000001.XSHE", "000001.SZ"),
        ("000001SZ", "000001.SZ"),
        ("SZSE:000001", "000001.SZ"),
        (" 000001 . sz ", "000001.SZ"),
        ("０００００１．ＳＺ", "000001.SZ"),
        ("SHSE.600000", "600000.SH"),
        ("SH600000", "600000.SH"),
        ("600000.sh", "600000.SH"),
        ("sh.600000", "600000.SH"),
        ("600000.ss", "600000.SH"),
        ("600000.XSHG", "600000.SH"),
        ("600000", "600000.SH"),
        ("688981", "688981.SH"),
        ("300750", "300750.SZ"),
        ("302132", "302132.SZ"),
        ("002594", "002594.SZ"),
        ("920002", "920002.BJ"),
        ("bj920002", "920002.BJ"),
        ("830799.BSE", "830799.BJ"),
        ("399001", "399001.SZ"),
        ("899050", "899050.BJ"),
        ("000001.SH", "000001.SH"),
        ("sh000300", "000300.SH"),
        ("510300", "510300.SH"),
        ("159915", "159915.SZ"),
        ("161725", "161725.SZ"),
        ("508000", "508000.SH"),
        ("113050", "113050.SH"),
        ("128034", "128034.SZ"),
        ("204001", "204001.SH"),
        ("131810", "131810.SZ"),
        ("900901", "900901.SH"),
        ("200011", "200011.SZ"),
        ("00700", "00700.HK"),
        ("700.HK", "00700.HK"),
        ("0700.hk", "00700.HK"),
        ("HK00700", "00700.HK"),
        ("00700.HGT", "00700.HGT"),
        ("IF2101", "IF2101.IF"),
        ("if2101", "IF2101.IF"),
        ("IF2101.CFFEX", "IF2101.IF"),
        ("CFFEX.IF2101", "IF2101.IF"),
        ("IF00.IF", "IF00.IF"),
        ("T2503", "T2503.IF"),
        ("RB2510", "rb2510.SF"),
        ("rb2510.SHFE", "rb2510.SF"),
        ("M2509", "m2509.DF"),
        ("l2603F", "l2603F.DF"),
        ("SR509", "SR509.ZF"),
        ("sr2509.CZCE", "SR509.ZF"),
        ("SH509", "SH509.ZF"),
        ("SH509.ZF", "SH509.ZF"),
        ("lc2511", "lc2511.GF"),
        ("SC2512", "sc2512.INE"),
        ("zz2512.SF", "zz2512.SF"),
        ("IO2508-C-4000", "IO2508-C-4000.IF"),
        ("io2508c4000.cffex", "IO2508-C-4000.IF"),
        ("m2509-C-3000", "m2509-C-3000.DF"),
        ("M2509-MS-P-3000.DCE", "m2509-MS-P-3000.DF"),
        ("CU2510C80000", "cu2510C80000.SF"),
        ("SR509C5000", "SR509C5000.ZF"),
        ("10004567", "10004567.SHO"),
        ("90000123", "90000123.SZO"),
        ("BTCUSDT.BINANCE", "BTCUSDT.BINANCE"),
        ("btc/usdt.binance", "BTCUSDT.BINANCE"),
        ("BINANCE:BTC-USDT", "BTCUSDT.BINANCE"),
        ("BTCUSDT.BINANCEUM", "BTCUSDT.BINANCEUM"),
        ("BTCUSDT_250926.BINANCEUM", "BTCUSDT_250926.BINANCEUM"),
    ],
)
def test_every_usual_form_becomes_the_canonical_symbol(text: str, symbol: str) -> None:
    assert parse(text) == symbol
    assert parse(symbol) == symbol
    assert market_of(symbol) in MARKETS


@pytest.mark.parametrize(
    ("text", "candidates"),
    [
        ("000001", ("000001.SH", "000001.SZ")),
        ("127045", ("127045.SH", "127045.SZ")),
        ("111001", ("111001.SH", "111001.SZ")),
        ("BTCUSDT", ("BTCUSDT.BINANCE", "BTCUSDT.BINANCEUM")),
    ],
)
def test_a_code_of_several_exchanges_is_refused_with_the_candidates_named(text: str, candidates: tuple[str, ...]) -> None:
    with pytest.raises(SymbolError) as caught:
        parse(text)
    assert caught.value.kind == "ambiguous"
    assert caught.value.candidates == candidates
    assert all(candidate in caught.value.reason for candidate in candidates)


@pytest.mark.parametrize(
    "text",
    ["", " ", ".", "SZ", "SZ.", "000001.", "000001.XX", "00001.SZ", "000001.SZ.SH", "平安银行", "٠٠٠٠٠١.SZ", "1", "700",
     "730001", "HK700", "SH600000SZ", "IF.IF", "rb.SF", "ABC123", "-", "x" * 65, "000001\x00.SZ", "*", "market:SH", "６"],
)  # fmt: skip
def test_what_names_nothing_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(SymbolError) as caught:
        parse(text)
    assert caught.value.kind == "invalid"
    assert caught.value.reason


def test_what_is_no_text_is_refused() -> None:
    for thing in (None, 600000, b"600000.SH", ["600000.SH"]):
        with pytest.raises(SymbolError):
            parse(thing)  # type: ignore[arg-type]


pieces = st.sampled_from(
    [*MARKET_OF_NAME, ".", ":", "-", "/", "C", "P", "F", "600000", "000001", "2509", "IF", "rb", "ＳＺ", " "]
)
texts = st.text(max_size=80) | st.lists(pieces | st.text("0123456789ABCabc._", max_size=6), max_size=5).map("".join)


@given(texts)
@example("ß" * 10)
@example("ﬁ2509.SF")
@example("1²3456")
def test_any_text_is_a_symbol_that_stays_itself_or_is_refused(text: str) -> None:
    try:
        symbol = parse(text)
    except SymbolError as error:
        assert error.kind in ("invalid", "ambiguous")
        return
    assert parse(symbol) == symbol
    assert market_of(symbol) in MARKETS
    assert parse(f" {symbol.lower()} ") == symbol
    tick = price_tick(symbol)
    assert tick is None or tick > 0
    assert board_limit(symbol) in (None, 0.1, 0.2, 0.3)


def test_every_listed_stock_is_recognised_by_its_bare_code(data_dir: Path) -> None:
    with gzip.open(data_dir / "instruments" / "stock_list.csv.gz", "rt", encoding="utf-8") as file:
        codes = [row["code"] for row in csv.DictReader(file)]
    assert len(codes) == 5527
    ambiguous = 0
    for written in codes:
        market, code = written[:2].upper(), written[2:]
        symbol = f"{code}.{market}"
        assert parse(written) == symbol
        assert kind(symbol) == Kind.STOCK
        assert price_tick(symbol) == 0.01
        try:
            assert parse(code) == symbol
        except SymbolError as error:
            # Shenzhen's 000xxx, which Shanghai gives to its indices.
            assert error.candidates == (f"{code}.SH", symbol)
            ambiguous += 1
    assert ambiguous == sum(code.startswith("sz000") for code in codes)


def test_every_listed_futures_contract_is_recognised(data_dir: Path) -> None:
    contracts = json.loads(gzip.decompress((data_dir / "instruments" / "contracts.json.gz").read_bytes()).decode("gbk"))
    products = json.loads((data_dir / "instruments" / "commodities.json").read_bytes().decode("gbk"))
    seen = 0
    for exchange, listed in contracts.items():
        market = MARKET_OF_NAME[exchange]
        for code, contract in listed.items():
            symbol = f"{code}.{market}"
            assert parse(code) == parse(f"{exchange}.{code}") == parse(code.upper()) == symbol
            assert kind(symbol) == Kind.FUTURE
            tick = products[exchange][contract["product"]]["pricetick"]
            ours = price_tick(symbol)
            assert ours is not None
            assert round(tick / ours, 9).is_integer(), (symbol, tick, ours)
            seen += 1
    assert seen == 685


@pytest.mark.parametrize(
    ("symbol", "of_kind", "tick", "limit"),
    [
        ("600000.SH", Kind.STOCK, 0.01, 0.1),
        ("688981.SH", Kind.STOCK, 0.01, 0.2),
        ("300750.SZ", Kind.STOCK, 0.01, 0.2),
        ("920002.BJ", Kind.STOCK, 0.01, 0.3),
        ("900901.SH", Kind.B_SHARE, 0.001, 0.1),
        ("200011.SZ", Kind.B_SHARE, 0.01, 0.1),
        ("000001.SH", Kind.INDEX, 0.0001, None),
        ("510300.SH", Kind.FUND, 0.001, 0.1),
        ("588000.SH", Kind.FUND, 0.001, 0.2),
        ("159915.SZ", Kind.FUND, 0.001, None),
        ("113050.SH", Kind.CONVERTIBLE, 0.001, 0.2),
        ("127045.SZ", Kind.CONVERTIBLE, 0.001, 0.2),
        ("019742.SH", Kind.BOND, 0.001, None),
        ("204001.SH", Kind.REPO, 0.005, None),
        ("00700.HK", Kind.STOCK, None, None),
        ("IF2509.IF", Kind.FUTURE, 0.2, None),
        ("T2509.IF", Kind.FUTURE, 0.005, None),
        ("au2512.SF", Kind.FUTURE, 0.02, None),
        ("IO2508-C-4000.IF", Kind.OPTION, 0.2, None),
        ("cu2510C80000.SF", Kind.OPTION, None, None),
        ("zz2512.SF", Kind.FUTURE, None, None),
        ("10004567.SHO", Kind.OPTION, 0.0001, None),
        ("BTCUSDT.BINANCE", Kind.CRYPTO, None, None),
        ("730001.SH", None, None, None),
    ],
)
def test_the_code_tells_kind_tick_and_limit(symbol: str, of_kind: Kind | None, tick: float | None, limit: float | None) -> None:
    assert (kind(symbol), price_tick(symbol), board_limit(symbol)) == (of_kind, tick, limit)
