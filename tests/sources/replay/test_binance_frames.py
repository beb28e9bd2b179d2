"""The Binance reader against the same frames read by Python's json module."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from marketdata.sources.replay.formats import open_recording
from marketdata.sources.replay.recording import RecordingError
from marketdata.types import ParseError, Quote
from tests.sources.replay.raw import ETH, SPOT, USD_M, frames, lines, write_gzip

SYMBOLS = {SPOT: "BTCUSDT.BINANCE", ETH: "ETHUSDT.BINANCE", USD_M: "BTCUSDT.BINANCEUM"}


def expected(path: Path, name: str) -> list[object]:
    """Every frame's quote, or the reason why it has none."""
    found: list[object] = []
    price, time, bid, ask = None, 0, ((), ()), ((), ())
    for received, message in frames(path):
        event = message.get("data", {})
        kind = message.get("stream", "").partition("@")[2]
        if kind not in ("bookTicker", "trade"):
            found.append("not_a_quote")
            continue
        if kind == "trade":
            price = float(event["p"])
        else:
            bid, ask = (((float(event[p]),), (float(event[v]),)) for p, v in ("bB", "aA"))
        time = max(time, event["E"] if name == USD_M else received)
        found.append(
            Quote(
                symbol=SYMBOLS[name],
                time=time,
                price=price,
                bid_price=bid[0],
                bid_volume=bid[1],
                ask_price=ask[0],
                ask_volume=ask[1],
                source="replay",
            )
        )
    return found


@pytest.mark.parametrize(("name", "rows"), [(SPOT, 41_249), (ETH, 33_618), (USD_M, 93_954)], ids=["spot", "eth", "usdm"])
def test_every_frame_becomes_its_exact_quote_or_the_reason_in_order(data_dir: Path, name: str, rows: int) -> None:
    replayed = list(open_recording(data_dir / name).rows())
    assert len(replayed) == rows
    found = [value if isinstance(value, Quote) else value.reason for _, value in replayed]
    assert found == expected(data_dir / name, name)
    assert [key for key, _ in replayed] == [received for received, _ in frames(data_dir / name)]


@pytest.mark.parametrize("name", [SPOT, USD_M])
def test_the_book_is_never_crossed_and_time_never_goes_back(data_dir: Path, name: str) -> None:
    quotes = [value for _, value in open_recording(data_dir / name).rows() if isinstance(value, Quote)]
    assert not [quote for quote in quotes if quote.bid_price >= quote.ask_price and quote.ask_price]
    assert all(earlier.time <= later.time for earlier, later in pairwise(quotes))


def test_what_is_no_quote_is_depth_and_the_book_snapshot(data_dir: Path) -> None:
    details = Counter(value.detail[:12] for _, value in open_recording(data_dir / SPOT).rows() if isinstance(value, ParseError))
    assert details == {"depthUpdate": 3451, '{"lastUpdate': 1}


def test_the_market_is_told_by_any_of_its_frames(data_dir: Path, tmp_path: Path) -> None:
    for name, market in ((SPOT, "BINANCE"), (USD_M, "BINANCEUM")):
        for kind in (b"@bookTicker", b"@trade", b"@depth"):
            only = [line for line in lines(data_dir / name)[:500] if kind in line]
            span = open_recording(write_gzip(tmp_path / "only.gz", only)).scan()
            assert span.symbols == (f"BTCUSDT.{market}",)


BOOK = b'1723161254087891268 {"stream":"btcusdt@bookTicker","data":{"u":1,"s":"BTCUSDT","b":"10.1","B":"3","a":"10.2","A":"1.5"}}'


def frame(text: bytes) -> bytes:
    return b"1723161254087999999 " + text


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "frame"),
        (b"hello", "frame"),
        (b"123 {}", "frame"),
        (frame(b"{broken}"), "frame"),
        (frame(b'{"data":{"s":1}}'), "frame"),
        (frame(b'{"data":{"s":"BTCUSDT","b":"1"}}'), "frame"),
        (frame(b'{"data":{"s":"?","b":"1","B":"1","a":"2","A":"1"}}'), "symbol"),
        (frame(b'{"data":{"s":"BTCUSDT","b":"one","B":"1","a":"2","A":"1"}}'), "price"),
        (frame(b'{"data":{"s":"BTCUSDT","b":"1","B":"nan","a":"2","A":"1"}}'), "volume"),
        (frame(b'{"data":{"e":"trade","E":1,"s":"BTCUSDT"}}'), "price"),
        (frame(b'{"data":{"e":"trade","E":1,"s":"BTCUSDT","p":"0","q":"0","X":"NA"}}'), "price"),
        (frame(b'{"result":null,"id":1}'), "not_a_quote"),
        (frame(b'{"data":{"e":"kline","E":1,"s":"BTCUSDT"}}'), "not_a_quote"),
    ],
)
def test_a_bad_line_is_one_error_with_its_reason_in_its_place(tmp_path: Path, line: bytes, reason: str) -> None:
    rows = list(open_recording(write_gzip(tmp_path / "bad.gz", [BOOK, line, BOOK])).rows())
    assert [type(value) for _, value in rows] == [Quote, ParseError, Quote]
    assert isinstance(rows[1][1], ParseError)
    assert rows[1][1].reason == reason


def test_a_side_of_the_book_without_a_price_is_empty(tmp_path: Path) -> None:
    line = BOOK.replace(b'"10.1","B":"3"', b'"0.0","B":"0"')
    ((_, quote),) = open_recording(write_gzip(tmp_path / "side.gz", [line])).rows()
    assert isinstance(quote, Quote)
    assert (quote.bid_price, quote.ask_price) == ((), (10.2,))


@pytest.mark.parametrize("lost", [1, 8, 5000])
def test_a_file_that_breaks_off_gives_what_it_has_and_one_error(data_dir: Path, tmp_path: Path, lost: int) -> None:
    whole = lines(data_dir / SPOT)[:2000]
    path = write_gzip(tmp_path / "cut.gz", whole)
    path.write_bytes(path.read_bytes()[:-lost])
    values = [value for _, value in open_recording(path).rows()]
    assert isinstance(values[-1], ParseError)
    assert values[-1].reason == "damaged"
    complete = [value for _, value in open_recording(write_gzip(tmp_path / "whole.gz", whole)).rows()]
    assert len(values) > 100
    assert values[:-1] == complete[: len(values) - 1]


def test_bad_lines_at_the_beginning_wait_for_the_first_that_has_a_time(tmp_path: Path) -> None:
    bad = frame(b"{broken}")
    rows = list(open_recording(write_gzip(tmp_path / "bad.gz", [bad, b"noise", BOOK])).rows())
    assert [type(value) for _, value in rows] == [ParseError, ParseError, Quote]


def test_a_file_that_does_not_tell_its_market_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="market and symbol"):
        open_recording(write_gzip(tmp_path / "no.gz", [frame(b'{"result":null,"id":1}')])).scan()
