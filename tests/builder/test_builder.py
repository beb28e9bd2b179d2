"""Which bars quotes become: the rules that stand at the top of ``marketdata/builder``, one by one."""

from __future__ import annotations

from datetime import date

import pytest

from marketdata.builder import BarBuilder, LiveBar
from marketdata.calendar import TradingCalendar
from marketdata.types import Bar, Period, Quote
from tests.builder.quotes import DAY, EVERYTHING, Tape, at, built, of

M1, M5, H1, D1 = Period.M1, Period.M5, Period.H1, Period.D1


def stamps(bars: list[LiveBar], period: Period = M1) -> list[int]:
    return [bar.time for bar in of(bars, period)]


def volumes(bars: list[LiveBar], period: Period = M1) -> list[object]:
    return [bar.volume for bar in of(bars, period)]


def test_a_minute_is_the_difference_of_two_quotes() -> None:
    tape = Tape()
    bars = built(
        tape.quote("09:25:03", 10.0, 1000),
        tape.quote("09:30:03", 10.2, 200, through=(9.8,)),
        tape.quote("09:30:58", 10.1, 300),
        tape.quote("09:31:01", 10.3, 100),
    )
    auction, first, second = of(bars, M1)
    assert (auction.time, auction.open, auction.high, auction.low, auction.close) == (at("09:30"), 10.0, 10.0, 10.0, 10.0)
    assert (auction.volume, auction.amount, auction.closed, auction.provisional) == (1000, 10_000.0, True, True)
    assert (first.time, first.open, first.high, first.low, first.close) == (at("09:31"), 10.2, 10.2, 9.8, 10.1)
    assert (first.volume, first.amount, first.closed) == (500, 5070.0, True)
    assert (second.time, second.volume, second.closed) == (at("09:32"), 100, False)


@pytest.mark.parametrize(
    ("time", "stamp"),
    [
        ("09:15:00", "09:30"),
        ("09:29:59.999", "09:30"),
        ("09:30:00", "09:31"),
        ("09:31:00", "09:31"),
        ("09:31:00.001", "09:32"),
        ("11:30:00", "11:30"),
        ("11:30:03", "11:30"),
        ("12:59:59.999", "11:30"),
        ("13:00:00", "13:01"),
        ("14:57:03", "14:58"),
        ("15:00:00", "15:00"),
        ("15:00:03", "15:00"),
        ("15:05:00", "15:00"),
    ],
)
def test_a_snapshot_belongs_to_the_minute_that_ends_with_it(time: str, stamp: str) -> None:
    tape = Tape()
    assert stamps(built(tape.quote("09:14:00"), tape.quote("09:15:00"), tape.quote(time, 10.0, 100))) == [at(stamp)]


def test_longer_periods_begin_with_the_opening_auction_and_anew_after_lunch() -> None:
    tape = Tape()
    quotes = [tape.quote("09:25:03", 10.0, 1)]
    quotes += [tape.quote(time, 10.0, 1) for time in ("09:35:00", "09:35:01", "10:31:00", "11:30:03", "13:00:03", "15:00:02")]
    bars = built(*quotes, until=at("16:00"))
    assert stamps(bars, M5) == [at(text) for text in ("09:35", "09:40", "10:35", "11:30", "13:05", "15:00")]
    assert volumes(bars, M5) == [2, 1, 1, 1, 1, 1]
    assert stamps(bars, H1) == [at(text) for text in ("10:30", "11:30", "14:00", "15:00")]
    assert volumes(bars, H1) == [3, 2, 1, 1]
    assert all(bar.closed for bar in bars)


def test_the_day_is_the_quotes_own_numbers() -> None:
    tape = Tape()
    bars = built(tape.quote("09:25:03", 10.0, 1000), tape.quote("15:00:03", 10.5, 500, through=(9.0, 11.0)), until=at("16:00"))
    (day,) = of(bars, D1)
    assert (day.time, day.open, day.high, day.low, day.close) == (at("15:00"), 10.0, 11.0, 9.0, 10.5)
    assert (day.volume, day.amount, day.prev_close, day.closed) == (1500, 15_250.0, 9.9, True)


def test_a_minute_without_a_trade_has_no_bar_and_what_was_missed_is_in_the_next() -> None:
    tape = Tape()
    bars = built(
        tape.quote("09:25:03", 10.0, 100),
        tape.quote("09:33:00"),
        tape.quote("09:36:30", 10.1, 700),
        until=at("09:40"),
    )
    assert list(zip(stamps(bars), volumes(bars), strict=True)) == [(at("09:30"), 100), (at("09:37"), 700)]


def test_a_late_start_does_not_put_the_day_into_a_minute() -> None:
    tape = Tape()
    tape.quote("10:00:00", 10.0, 1_000_000)
    builder = BarBuilder()
    builder.take([tape.quote("10:00:30"), tape.quote("10:00:33", 10.1, 100), tape.quote("10:01:03", 10.2, 200)])
    bars = builder.drain(EVERYTHING)
    assert [(bar.time, bar.volume) for bar in of(bars, M1)] == [(at("10:02"), 200)]
    assert not of(bars, M5)
    builder.take([tape.quote("10:05:01", 10.2, 50)])
    bars = builder.drain(EVERYTHING)
    assert [(bar.time, bar.volume, bar.closed) for bar in of(bars, M5)] == [(at("10:10"), 50, False)]
    assert of(bars, D1)[0].volume == 1_000_350


def test_a_late_start_misses_nothing_while_nothing_has_traded() -> None:
    tape = Tape()
    bars = built(tape.quote("10:00:00"), tape.quote("10:00:30", 10.0, 100))
    assert volumes(bars, H1) == [100]


def test_the_clock_closes_what_is_silent() -> None:
    tape = Tape()
    builder = BarBuilder()
    builder.take([tape.quote("09:25:03", 10.0, 100), tape.quote("09:34:59", 10.0, 100)])
    builder.advance(at("09:35:03"))
    assert not [bar for bar in builder.drain(EVERYTHING) if bar.closed and bar.time == at("09:35")]
    builder.advance(at("09:35:04"))
    assert [(bar.period, bar.time, bar.closed) for bar in builder.drain(EVERYTHING)] == [
        (M1, at("09:35"), True),
        (M5, at("09:35"), True),
    ]
    builder.advance(at("10:30:04"))
    assert [bar.period for bar in builder.drain(EVERYTHING)] == [Period.M15, Period.M30, H1]
    builder.advance(at("15:00:30"))
    assert [(bar.period, bar.volume, bar.closed) for bar in builder.drain(EVERYTHING)] == [(D1, 200, True)]


def test_a_quote_of_a_minute_that_the_clock_has_closed_is_late_and_its_volume_is_kept() -> None:
    tape = Tape()
    builder = BarBuilder()
    builder.take([tape.quote("09:25:03", 10.0, 100), tape.quote("09:30:30", 10.0, 100)])
    builder.advance(at("09:31:10"))
    builder.take([tape.quote("09:30:59", 10.1, 10), tape.quote("09:31:30", 10.0, 1)])
    assert builder.counts.late == 1
    assert volumes(builder.drain(EVERYTHING)) == [100, 100, 11]


def test_a_quote_from_before_the_last_is_refused_and_counted() -> None:
    tape = Tape()
    before, first, second = tape.quote("09:20:00"), tape.quote("09:30:30", 10.0, 100), tape.quote("09:31:30", 10.1, 100)
    builder = BarBuilder()
    builder.take([before, first, second, first])
    assert builder.counts.late == 1
    assert builder.drain({M1: None})[-1].volume == 100


def test_a_clock_that_was_set_back_goes_on_after_three_quotes() -> None:
    tape = Tape()
    quotes = [tape.quote("09:20:00"), tape.quote("09:30:30", 10.0, 100)]
    ahead = Tape(day=date(2022, 6, 6)).quote("10:00:00", 12.0, 5)
    builder = BarBuilder()
    builder.take([*quotes, ahead, *(tape.quote(f"09:33:{second}", 10.0, 100) for second in range(10, 20))])
    builder.advance(at("09:35:10"))
    bars = builder.drain(EVERYTHING)
    assert builder.counts.clock_resets == 1
    assert builder.counts.late == 2
    assert max(bar.time for bar in bars) == at("15:00")
    builder.take([tape.quote("09:36:01", 10.0, 7)])
    assert builder.drain({M1: None})[-1].volume == 7


def test_a_clock_set_back_before_the_opening_and_forward_again_begins_anew() -> None:
    later = Tape(day=date(2022, 6, 2))
    builder = BarBuilder()
    builder.take([later.quote("09:20:00"), later.quote("09:31:30", 10.0, 100)])
    builder.take([Tape().quote(f"08:00:0{second}") for second in range(3)])
    assert builder.counts.clock_resets == 1
    # In the very minute that was given up.
    builder.take([later.quote("09:31:40", 10.1, 50), later.quote("09:32:10", 10.2, 30)])
    assert [bar.volume for bar in of(builder.drain(EVERYTHING), M1) if not bar.closed] == [30]


def test_volume_that_goes_down_is_made_up_for() -> None:
    tape = Tape()
    quotes = [tape.quote("09:20:00"), tape.quote("09:30:30", 10.0, 100), tape.quote("09:31:30", 10.0, 50)]
    tape.volume -= 80
    quotes += [tape.quote("09:32:30"), tape.quote("09:32:40", 10.0, 5), tape.quote("09:33:30", 10.0, 100)]
    builder = BarBuilder()
    builder.take(quotes)
    bars = of(builder.drain(EVERYTHING), M1)
    assert builder.counts.corrections == 1
    assert all(bar.volume is not None and bar.volume >= 0 for bar in bars)
    assert sum(bar.volume or 0 for bar in bars) == tape.volume


def test_a_new_day_begins_anew() -> None:
    before, after = Tape(), Tape(day=date(2022, 6, 2), prev_close=10.0)
    bars = built(
        before.quote("09:25:00", 10.0, 1000),
        before.quote("14:59:59", 10.0, 1000),
        after.quote("09:00:00"),
        after.quote("09:25:00", 9.5, 10),
        after.quote("09:30:03", 9.4, 20),
    )
    assert volumes(bars) == [1000, 1000, 10, 20]
    closed, forming = of(bars, D1)
    assert (closed.volume, closed.prev_close, closed.closed) == (2000, 9.9, True)
    assert (forming.volume, forming.open, forming.prev_close, forming.closed) == (30, 9.5, 10.0, False)


def test_what_is_quoted_before_the_opening_belongs_to_no_bar() -> None:
    before, after = Tape(), Tape(day=date(2022, 6, 2))
    before.quote("14:00:00", 10.0, 5000)
    stale = before.quote("32:59:00")
    bars = built(stale, after.quote("09:16:00"), after.quote("09:25:00", 9.5, 10))
    assert [(bar.period, bar.volume) for bar in bars if bar.period is not D1 and bar.volume != 10] == []
    assert volumes(bars, D1) == [10]


def test_the_fixed_price_session_is_in_the_day_alone() -> None:
    tape = Tape("688001.SH")
    builder = BarBuilder()
    builder.take([tape.quote("09:20:00"), tape.quote("15:00:02", 10.0, 100)])
    builder.advance(at("15:01"))
    builder.take([tape.quote("15:10:00", 10.0, 30)])
    bars = builder.drain(EVERYTHING)
    assert volumes(bars) == [100]
    assert volumes(bars, H1) == [100]
    assert [(bar.volume, bar.closed) for bar in of(bars, D1)] == [(130, False)]
    builder.advance(at("15:30:30"))
    assert [(bar.volume, bar.closed) for bar in builder.drain(EVERYTHING)] == [(130, True)]


def test_a_halted_instrument_has_no_bars() -> None:
    tape = Tape()
    assert built(*(tape.quote(f"{hour:02}:00:00") for hour in (10, 11, 13, 14)), until=at("16:00")) == []


def test_markets_whose_hours_are_not_known_are_counted() -> None:
    builder = BarBuilder()
    builder.take([Tape("rb2210.SF").quote("21:00:00", 4000.0, 1)])
    assert builder.counts.unknown_hours == 1
    assert builder.drain(EVERYTHING) == []


def test_closed_days_have_no_bars_and_unknown_days_do() -> None:
    holiday, beyond = date(2022, 6, 3), date(2022, 6, 13)
    calendar = TradingCalendar.from_dates(["2022-06-01", "2022-06-02", "2022-06-06"])
    builder = BarBuilder(lambda market: calendar)
    builder.take([Tape(day=holiday).quote("09:25:00", 10.0, 5)])
    assert (builder.counts.closed_days, builder.drain(EVERYTHING)) == (1, [])
    builder.take([Tape(day=beyond).quote("09:25:00", 10.0, 5)])
    assert volumes(builder.drain(EVERYTHING)) == [5]


def test_each_market_has_its_own_trading_days() -> None:
    days = {"SH": TradingCalendar.from_dates(["2022-06-01", "2022-06-06"]), "SZ": TradingCalendar.from_dates(["2022-06-01"])}
    holiday = date(2022, 6, 2)
    builder = BarBuilder(days.__getitem__)
    builder.take(Tape(symbol, day=holiday).quote("09:25:00", 10.0, 5) for symbol in ("600000.SH", "000001.SZ"))
    assert builder.counts.closed_days == 1
    assert {bar.symbol for bar in builder.drain(EVERYTHING)} == {"000001.SZ"}, "beyond the end of its calendar a quote is proof"


def test_around_the_clock_a_minute_is_half_open_and_volumes_stay_unknown() -> None:
    def quote(text: str, price: float) -> Quote:
        return Quote(symbol="BTCUSDT.BINANCE", time=at(text), price=price, source="test")

    bars = built(
        quote("23:57:59", 1.0), quote("23:58:00", 2.0), quote("23:58:59.999", 3.0), quote("23:59:00", 4.0), quote("23:59:30", 5.0)
    )
    assert [(bar.time, bar.open, bar.close, bar.volume) for bar in of(bars, M1)] == [
        (at("23:59"), 2.0, 3.0, None),
        (at("24:00"), 4.0, 5.0, None),
    ]
    assert not of(bars, D1)


def test_bars_around_the_clock_go_on_over_midnight() -> None:
    def quote(minute: int, price: float) -> Quote:
        return Quote(symbol="BTCUSDT.BINANCE", time=at("23:00") + minute * 60_000, price=price, source="test")

    bars = built(*(quote(minute, float(minute)) for minute in range(125)))
    assert [(bar.time, bar.open, bar.close, bar.closed) for bar in of(bars, H1)] == [
        (at("25:00"), 60.0, 119.0, True),
        (at("26:00"), 120.0, 124.0, False),
    ]


def test_open_interest_is_the_last_of_the_bar() -> None:
    def quote(text: str, volume: int, interest: int) -> Quote:
        fields = {"price": 5.0, "open": 5.0, "high": 5.0, "low": 5.0}
        return Quote(symbol="IF2101.IF", time=at(text), volume=volume, open_interest=interest, source="test", **fields)

    rows = [("09:29:00.4", 240, 90), ("09:30:00.4", 311, 91), ("09:30:59.9", 400, 92), ("09:31:00.4", 401, 93)]
    bars = built(*(quote(*row) for row in rows))
    assert [(bar.volume, bar.open_interest) for bar in of(bars, M1)] == [(240, 90), (160, 92), (1, 93)]
    assert of(bars, M5)[-1].open_interest == 93


def test_only_what_is_wanted_is_given_and_nothing_twice() -> None:
    one, two = Tape("600000.SH"), Tape("600001.SH")
    builder = BarBuilder()
    builder.take([one.quote("09:25:00", 10.0, 1), two.quote("09:25:00", 10.0, 1)])
    assert [(bar.symbol, bar.period) for bar in builder.drain({M5: {"600001.SH", "600002.SH"}, Period.W1: None})] == [
        ("600001.SH", M5)
    ]
    assert builder.drain(EVERYTHING) == []
    builder.take([one.quote("09:25:30"), two.quote("09:31:00")])
    assert [(bar.symbol, bar.closed) for bar in builder.drain({M1: None})] == [("600000.SH", True), ("600001.SH", True)][1:]


def test_a_new_subscriber_gets_the_last_closed_and_the_forming_bar() -> None:
    tape = Tape()
    builder = BarBuilder()
    builder.take([tape.quote(text, 10.0, 1) for text in ("09:25:00", "09:30:30", "09:31:30", "09:32:30")])
    builder.drain({})
    assert [(bar.time, bar.closed) for bar in builder.current({M1: {"600000.SH"}})] == [(at("09:32"), True), (at("09:33"), False)]
    assert [(bar.period, bar.closed) for bar in builder.current({M5: None, D1: None})] == [(M5, False), (D1, False)]


def terminal(time: str, close: float, volume: int, *, period: Period = M1) -> Bar:
    return Bar(
        symbol="600000.SH",
        period=period,
        time=at(time),
        open=10.0,
        high=max(close, 10.0),
        low=min(close, 10.0),
        close=close,
        volume=volume,
        amount=volume * close,
        source="qmt",
    )


def test_the_terminals_bars_take_the_place_of_ours() -> None:
    tape = Tape()
    builder = BarBuilder()
    builder.take([tape.quote(text, 10.0, 100) for text in ("09:25:00", "09:30:30", "09:31:30", "09:34:59", "09:35:30")])
    builder.drain({})
    settled = builder.settle([terminal("09:31", 10.0, 100), terminal("09:32", 10.5, 150)])
    assert [(bar.period, bar.time, bar.volume, bar.provisional) for bar in settled if bar.period is M1] == [
        (M1, at("09:31"), 100, False),
        (M1, at("09:32"), 150, False),
    ]
    five = [bar for bar in settled if bar.period is M5][-1]
    assert (five.time, five.high, five.volume, five.closed, five.provisional) == (at("09:35"), 10.5, 450, True, True)
    assert [(bar.time, bar.volume) for bar in builder.closed()] == [(at("09:30"), 100), (at("09:35"), 100)]
    settled = builder.settle([terminal("09:30", 10.0, 100), terminal("09:35", 10.0, 100)])
    assert [(bar.volume, bar.provisional) for bar in settled if bar.period is M5] == [(450, False)]
    assert builder.closed() == []
    # The hour still forms: it is what its minutes are now, and what has come since.
    builder.take([tape.quote("09:35:40", 10.0, 1)])
    assert [bar.volume for bar in builder.drain({H1: None})] == [551]


def test_a_minute_that_only_the_terminal_has_is_put_in_its_place() -> None:
    tape = Tape()
    builder = BarBuilder()
    builder.take([tape.quote(text, 10.0, 100) for text in ("09:25:00", "09:30:30", "09:33:30")])
    settled = builder.settle([terminal("09:32", 9.0, 10), terminal("09:34", 9.0, 10), terminal("09:40", 9.0, 10)])
    assert [(bar.period, bar.time) for bar in settled] == [(M1, at("09:32"))]
    assert builder.drain({M5: None})[-1].low == 9.0
    # The clock has passed the hour, and quotes of it never came.
    builder.advance(at("10:00:10"))
    settled = builder.settle([terminal("09:59", 8.0, 10), terminal("10:05", 9.0, 10)])
    assert [(bar.period, bar.time, bar.closed) for bar in settled] == [(M1, at("09:59"), True)]
    assert builder.drain({H1: None})[-1].low == 8.0


def test_the_day_is_settled_too() -> None:
    tape = Tape()
    builder = BarBuilder()
    builder.take([tape.quote("09:25:00", 10.0, 100)])
    assert builder.settle([terminal("15:00", 10.0, 100, period=D1)]) == []
    builder.advance(at("15:31", DAY))
    assert [bar.period for bar in builder.closed(["600000.SH"], at("15:00"))] == [D1]
    (day,) = builder.settle([terminal("15:00", 10.1, 120, period=D1)])
    assert (day.volume, day.close, day.prev_close, day.provisional) == (120, 10.1, 9.9, False)
