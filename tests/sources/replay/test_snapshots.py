"""The A-share snapshot readers against the same files read by Python's csv module and decimal arithmetic."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from marketdata.sources.replay.formats import open_recording
from marketdata.sources.replay.recording import Row
from marketdata.types import ParseError, Quote, TradingStatus
from tests.sources.replay.raw import SH, SZ, cents, csv_rows, write_zip

AUCTIONS = {TradingStatus.OPENING_AUCTION, TradingStatus.CLOSING_AUCTION}
SHANGHAI = ZoneInfo("Asia/Shanghai")
STATUS_OF = {
    "1": "opening_auction",
    "2": "pre_open",
    "3": "continuous",
    "4": "break",
    "5": "closing_auction",
    "6": "closed",
    "OCALL": "opening_auction",
    "TRADE": "continuous",
}


class Names:
    """How a vendor calls its columns."""

    def __init__(self, name: str) -> None:
        self.is_sz = name == SZ
        first = 1 if self.is_sz else 0
        bid, ask = ("Buy", "Sell") if self.is_sz else ("Bid", "Offer")
        levels = range(first, first + 10)
        self.bid = [(f"{bid}Price{level}", f"{bid}OrderQty{level}") for level in levels]
        self.ask = [(f"{ask}Price{level}", f"{ask}OrderQty{level}") for level in levels]

    def symbol(self, row: dict[str, str]) -> str:
        return row["SecurityID"] if self.is_sz else f"{int(row['SecurityID']):06d}.SH"

    def time(self, row: dict[str, str]) -> int:
        text = f"{row['MDDate']} {row['MDTime']}" if self.is_sz else row["DateTime"].replace("T", " ")
        moment = datetime.strptime(f"{text}000", "%Y.%m.%d %H:%M:%S.%f").replace(tzinfo=SHANGHAI)
        return round(moment.timestamp() * 1000)

    def expected(self, row: dict[str, str]) -> Quote:
        """The row as a quote."""
        sides = []
        for columns in (self.bid, self.ask):
            levels = [(cents(row[price]), int(row[volume])) for price, volume in columns]
            sides.append([(price, volume) for price, volume in levels if price is not None])
        bid, ask = sides
        status = row["TradingPhaseCode" if self.is_sz else "InstrumentStatus"]
        return Quote(
            symbol=self.symbol(row),
            time=self.time(row),
            price=cents(row["LastPx"]),
            open=cents(row["OpenPx"]),
            high=cents(row["HighPx"]),
            low=cents(row["LowPx"]),
            prev_close=cents(row["PreClosePx"]),
            volume=int(row["TotalVolumeTrade"]),
            amount=float(Decimal(row["TotalValueTrade"]).quantize(Decimal("0.001"))),
            trades=None if self.is_sz else int(row["NumTrades"]),
            bid_price=tuple(price for price, _ in bid),
            bid_volume=tuple(volume for _, volume in bid),
            ask_price=tuple(price for price, _ in ask),
            ask_volume=tuple(volume for _, volume in ask),
            status=TradingStatus(STATUS_OF[status]),
            limit_up=cents(row["MaxPx"]) if self.is_sz else None,
            limit_down=cents(row["MinPx"]) if self.is_sz else None,
            source="replay",
        )


@pytest.fixture(scope="module", params=[SZ, SH], ids=["sz", "sh"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def replayed(name: str, data_dir: Path) -> list[Row]:
    return list(open_recording(data_dir / name).rows())


@pytest.fixture(scope="module")
def recorded(name: str, data_dir: Path) -> dict[str, list[dict[str, str]]]:
    """Symbol -> its rows in the file's order."""
    names, rows = Names(name), defaultdict(list)
    for row in csv_rows(data_dir / name):
        rows[names.symbol(row)].append(row)
    return rows


def by_symbol(rows: list[Row]) -> dict[str, list[Quote]]:
    found: dict[str, list[Quote]] = defaultdict(list)
    for _, value in rows:
        assert isinstance(value, Quote), value
        found[value.symbol].append(value)
    return found


def test_every_row_becomes_its_exact_quote_in_the_order_of_the_file(
    name: str, replayed: list[Row], recorded: dict[str, list[dict[str, str]]]
) -> None:
    names, found = Names(name), by_symbol(replayed)
    assert found.keys() == recorded.keys()
    assert len(replayed) == {SZ: 20_980, SH: 32_972}[name]
    for symbol, rows in recorded.items():
        assert found[symbol] == [names.expected(row) for row in rows]


def test_time_never_goes_back_and_duplicate_times_stay(name: str, replayed: list[Row]) -> None:
    assert all(earlier[0] <= later[0] for earlier, later in pairwise(replayed))
    duplicates = sum(
        count - 1 for count in Counter((value.symbol, value.time) for _, value in replayed if isinstance(value, Quote)).values()
    )
    assert duplicates == {SZ: 0, SH: 95}[name]


def test_the_book_is_never_crossed_outside_the_auctions(replayed: list[Row]) -> None:
    quotes = [value for _, value in replayed if isinstance(value, Quote)]
    crossed = [quote for quote in quotes if quote.bid_price and quote.ask_price and quote.bid_price[0] >= quote.ask_price[0]]
    assert {quote.status for quote in crossed} <= AUCTIONS
    assert len([quote for quote in crossed if quote.status in AUCTIONS]) > 300


def test_before_the_first_match_there_is_no_price(replayed: list[Row]) -> None:
    quotes = [value for _, value in replayed if isinstance(value, Quote)]
    before = [quote for quote in quotes if quote.status == TradingStatus.OPENING_AUCTION]
    assert {(quote.price, quote.open, quote.high, quote.low, quote.volume) for quote in before} == {(None, None, None, None, 0)}


def test_the_last_quote_of_each_symbol_agrees_with_the_whole_session(
    name: str, replayed: list[Row], recorded: dict[str, list[dict[str, str]]]
) -> None:
    for symbol, quotes in by_symbol(replayed).items():
        last, rows = quotes[-1], recorded[symbol]
        prices = [price for quote in quotes if (price := quote.price) is not None]
        assert last.volume == max(int(row["TotalVolumeTrade"]) for row in rows)
        assert last.amount == max(quote.amount or 0 for quote in quotes)
        assert {cents(row["OpenPx"]) for row in rows} == {None, last.open}
        assert last.high is not None
        assert last.low is not None
        assert last.high >= max(prices)
        assert last.low <= min(prices)
        assert last.price == cents(rows[-1]["LastPx"])


def test_the_heartbeats_at_lunch_come_every_minute(data_dir: Path) -> None:
    quotes = by_symbol(list(open_recording(data_dir / SZ).rows()))["300918.SZ"]
    times = [quote.time for quote in quotes if quote.status == TradingStatus.BREAK]
    gaps = Counter((later - earlier) // 1000 for earlier, later in pairwise(times))
    assert gaps.most_common(1)[0][0] == min(gaps) == 60


def good(**changed: str) -> dict[str, str]:
    """A row of the Shenzhen layout."""
    row = {
        "MDDate": "2022.06.01",
        "MDTime": "09:30:00.000",
        "SecurityID": "000400.SZ",
        "PreClosePx": "19.99",
        "TotalVolumeTrade": "100",
        "TotalValueTrade": "2000",
        "LastPx": "20",
        "OpenPx": "20",
        "HighPx": "20",
        "LowPx": "20",
        "TradingPhaseCode": "3",
        "MaxPx": "22",
        "MinPx": "18",
    }
    for level in range(1, 11):
        row |= {f"BuyPrice{level}": f"{20 - level / 100:.2f}", f"BuyOrderQty{level}": "100"}
        row |= {f"SellPrice{level}": f"{20 + level / 100:.2f}", f"SellOrderQty{level}": "200"}
    return row | changed


def table(*rows: dict[str, str]) -> str:
    return "\n".join([",".join(good()), *(",".join(row.values()) for row in rows)]) + "\n"


def values(path: Path) -> Iterator[Quote | ParseError]:
    for _, value in open_recording(path).rows():
        yield value


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"MDTime": "25:00:00.000"}, "time"),
        ({"MDTime": ""}, "time"),
        ({"MDDate": "yesterday"}, "time"),
        ({"SecurityID": "nonsense"}, "symbol"),
        ({"SecurityID": ""}, "symbol"),
        ({"LastPx": "abc"}, "price"),
        ({"LastPx": "nan"}, "price"),
        ({"HighPx": "inf"}, "price"),
        ({"LowPx": "-1"}, "price"),
        ({"BuyPrice3": "x"}, "price"),
        ({"MaxPx": ""}, "price"),
        ({"TotalVolumeTrade": "-5"}, "volume"),
        ({"TotalVolumeTrade": "1.5"}, "volume"),
        ({"TotalValueTrade": "nan"}, "volume"),
        ({"SellOrderQty10": "-1"}, "volume"),
        ({"SellOrderQty10": ""}, "volume"),
        ({"MinPx": "18,extra"}, "columns"),
    ],
)
def test_a_bad_row_is_one_error_with_its_reason_in_its_place(tmp_path: Path, changed: dict[str, str], reason: str) -> None:
    before, after = good(), good(MDTime="09:30:03.000", TotalVolumeTrade="200")
    path = write_zip(tmp_path / "bad.zip", table(before, good(**changed), after))
    first, refused, last = values(path)
    assert isinstance(first, Quote)
    assert isinstance(refused, ParseError)
    assert isinstance(last, Quote)
    assert (refused.reason, last.volume) == (reason, 200)
    assert refused.symbol in ("", "000400.SZ")


def test_a_bad_row_at_the_beginning_takes_its_place_beside_the_first_good_one(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "bad.zip", table(good(MDTime="?"), good(MDDate="?"), good()))
    rows = list(open_recording(path).rows())
    assert len({key for key, _ in rows}) == 1
    assert [isinstance(value, Quote) for _, value in rows] == [False, False, True]


def test_rows_of_a_symbol_keep_the_order_of_the_file_when_their_time_goes_back(tmp_path: Path) -> None:
    rows = [good(MDTime="09:30:03.000", TotalVolumeTrade="1"), good(TotalVolumeTrade="2"), good(MDTime="09:30:06.000")]
    other = good(SecurityID="300122.SZ", MDTime="09:30:01.000")
    path = write_zip(tmp_path / "back.zip", table(*rows, other))
    quotes = [value for value in values(path) if isinstance(value, Quote)]
    assert [(quote.symbol[:6], quote.volume) for quote in quotes] == [
        ("300122", 100),
        ("000400", 1),
        ("000400", 2),
        ("000400", 100),
    ]
    assert quotes[2].time < quotes[1].time


def test_an_unknown_phase_is_unknown_and_the_row_stays(tmp_path: Path) -> None:
    (quote,) = values(write_zip(tmp_path / "phase.zip", table(good(TradingPhaseCode="9"))))
    assert isinstance(quote, Quote)
    assert quote.status == TradingStatus.UNKNOWN


def test_a_level_without_a_price_goes_with_its_volume(tmp_path: Path) -> None:
    auction = {
        f"{side}{what}{level}": "0" for side in ("Buy", "Sell") for what in ("Price", "OrderQty") for level in range(2, 11)
    }
    row = good(**auction | {"BuyPrice1": "20", "SellPrice1": "20", "BuyOrderQty2": "8100", "LastPx": "0"})
    (quote,) = values(write_zip(tmp_path / "auction.zip", table(row)))
    assert isinstance(quote, Quote)
    assert (quote.bid_price, quote.bid_volume, quote.ask_price, quote.ask_volume) == ((20.0,), (100,), (20.0,), (200,))
    assert quote.price is None


def test_line_ends_of_windows_blank_lines_and_a_missing_last_one_change_nothing(tmp_path: Path) -> None:
    plain = table(good(), good(MDTime="09:30:03.000"))
    changed = "\ufeff" + plain.replace("\n", "\r\n\r\n").rstrip()
    assert list(values(write_zip(tmp_path / "a.zip", plain))) == list(values(write_zip(tmp_path / "b.zip", changed)))
