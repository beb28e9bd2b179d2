"""The futures reader against the same records laid out as a C structure, by name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest

from marketdata.sources.replay.formats import open_recording
from marketdata.sources.replay.recording import RecordingError
from marketdata.types import ParseError, Quote, TradingStatus
from tests.sources.replay.raw import FUTURES, Tick, ticks, write_dsb


def on_tick(value: float) -> float | None:
    """A price on the index futures' tick of 0.2."""
    steps = (Decimal(repr(value)) / Decimal("0.2")).to_integral_value()
    return float(steps * Decimal("0.2")) if steps else None


def time_of(tick: Tick) -> int:
    text = f"{tick.action_date}{tick.action_time:09d}"
    local = datetime.strptime(text[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    return round((local - timedelta(hours=8)).timestamp()) * 1000 + tick.action_time % 1000


def expected(tick: Tick) -> Quote:
    return Quote(
        symbol="IF2101.IF",
        time=time_of(tick),
        price=on_tick(tick.price),
        open=on_tick(tick.open),
        high=on_tick(tick.high),
        low=on_tick(tick.low),
        prev_close=on_tick(tick.pre_close),
        volume=tick.total_volume,
        amount=tick.total_turnover,
        bid_price=tuple(price for price in map(on_tick, tick.bid_prices) if price),
        bid_volume=tuple(volume for price, volume in zip(tick.bid_prices, tick.bid_volumes, strict=True) if price),
        ask_price=tuple(price for price in map(on_tick, tick.ask_prices) if price),
        ask_volume=tuple(volume for price, volume in zip(tick.ask_prices, tick.ask_volumes, strict=True) if price),
        status=TradingStatus.UNKNOWN,
        limit_up=on_tick(tick.upper_limit),
        limit_down=on_tick(tick.lower_limit),
        open_interest=tick.open_interest,
        prev_settlement=on_tick(tick.pre_settlement),
        source="replay",
    )


@pytest.mark.parametrize(("name", "rows"), [(FUTURES[0], 27_955), (FUTURES[1], 28_254)], ids=["0104", "0105"])
def test_every_tick_becomes_its_exact_quote_in_order(data_dir: Path, name: str, rows: int) -> None:
    recorded = ticks(data_dir / name)
    replayed = list(open_recording(data_dir / name).rows())
    assert len(replayed) == rows
    assert [value for _, value in replayed] == [expected(tick) for tick in recorded]
    assert all(earlier[0] < later[0] for earlier, later in pairwise(replayed))


@pytest.mark.parametrize("name", FUTURES)
def test_the_sums_of_the_ticks_are_the_totals_of_the_last(data_dir: Path, name: str) -> None:
    recorded = ticks(data_dir / name)
    quotes = [value for _, value in open_recording(data_dir / name).rows() if isinstance(value, Quote)]
    last = quotes[-1]
    prices = [quote.price for quote in quotes if quote.price]
    assert last.volume == sum(tick.volume for tick in recorded)
    assert last.amount == sum(tick.turnover for tick in recorded)
    assert last.open == quotes[0].open
    assert last.high is not None
    assert last.low is not None
    assert (last.high >= max(prices), last.low <= min(prices)) == (True, True)
    assert not [quote for quote in quotes if quote.bid_price and quote.ask_price and quote.bid_price >= quote.ask_price]


def test_the_second_day_begins_where_the_first_was_settled(data_dir: Path) -> None:
    first, second = (ticks(data_dir / name) for name in FUTURES)
    quote = next(iter(open_recording(data_dir / FUTURES[1]).rows()))[1]
    assert isinstance(quote, Quote)
    assert quote.prev_settlement == on_tick(first[-1].settlement)
    assert (quote.prev_close, second[0].pre_interest) == (first[-1].price, first[-1].open_interest)


def some(data_dir: Path, rows: int = 3) -> list[Tick]:
    return ticks(data_dir / FUTURES[0])[:rows]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("action_time", 246060000, "time"),
        ("action_date", 0, "time"),
        ("price", float("nan"), "price"),
        ("price", -1.0, "price"),
        ("high", 1.7976931348623157e308, "price"),
        ("total_turnover", float("inf"), "volume"),
        ("code", b"?!", "symbol"),
        ("exchange", b"\xff\xff", "symbol"),
    ],
)
def test_a_bad_record_is_one_error_with_its_reason_in_its_place(
    data_dir: Path, tmp_path: Path, field: str, value: object, reason: str
) -> None:
    records = some(data_dir)
    setattr(records[1], field, value)
    rows = list(open_recording(write_dsb(tmp_path / "bad.dsb", records)).rows())
    assert [type(value) for _, value in rows] == [Quote, ParseError, Quote]
    assert isinstance(rows[1][1], ParseError)
    assert rows[1][1].reason == reason
    assert rows[0][0] <= rows[1][0] <= rows[2][0]


def test_a_record_without_a_time_at_the_beginning_waits_for_the_first_that_has_one(data_dir: Path, tmp_path: Path) -> None:
    records = some(data_dir)
    records[0].action_date = 0
    rows = list(open_recording(write_dsb(tmp_path / "bad.dsb", records)).rows())
    assert rows[0][0] == rows[1][0]
    assert isinstance(rows[0][1], ParseError)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:15], "within its header"),
        (lambda data: data[:-10], "promises"),
        (lambda data: data + b"more", "promises"),
        (lambda data: data[:20] + bytes(len(data) - 20), "damaged"),
        (lambda data: data[:8] + b"\x17" + data[9:], "type 23"),
        (lambda data: data[:10] + b"\x04" + data[11:], "version 4"),
    ],
)
def test_a_damaged_file_says_what_is_wrong(data_dir: Path, tmp_path: Path, damage: object, said: str) -> None:
    path = tmp_path / "damaged.dsb"
    assert callable(damage)
    path.write_bytes(damage(write_dsb(path, some(data_dir)).read_bytes()))
    with pytest.raises(RecordingError, match=said):
        open_recording(path).scan()


def test_a_file_that_ends_within_a_record_says_so(data_dir: Path, tmp_path: Path) -> None:
    path = write_dsb(tmp_path / "short.dsb", some(data_dir), tail=b"x" * 100)
    with pytest.raises(RecordingError, match="100 bytes instead of 402"):
        open_recording(path).scan()


def test_a_file_without_records_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no tick"):
        open_recording(write_dsb(tmp_path / "empty.dsb", [])).scan()
