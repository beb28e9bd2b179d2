"""The market that an emulated terminal shows: a function of the code and of a step, so that every run is the same."""

from __future__ import annotations

import datetime
from typing import Any, Final

MIDNIGHT: Final = 1_754_582_400_000
"""2025-08-08, a Friday, in Beijing: the terminal's today."""
OPENED: Final = MIDNIGHT + (9 * 60 + 30) * 60_000
DAYS: Final = [
    day
    for back in range(89, -1, -1)
    if (day := datetime.date(2025, 8, 8) - datetime.timedelta(days=back)).weekday() < 5 and day != datetime.date(2025, 6, 2)
]
"""Trading dates; 2025-06-02 was a holiday."""

INDICES: Final = ["000001.SH", "000300.SH", "399001.SZ", "399006.SZ"]
FUTURES: Final = ["IF2509.IF", "rb2510.SF"]
FUND: Final = "510300.SH"
NAMES: Final = {"600000.SH": "浦发银行", "000001.SZ": "平安银行", "000001.SH": "上证指数", "510300.SH": "沪深300ETF"}
MINUTES: Final = {"1m": 1, "5m": 5, "15m": 15, "30m": 30, "1h": 60}


def stocks(count: int) -> list[str]:
    """Codes of the three exchanges, in about the proportion of the real market."""
    shanghai, beijing = max(1, count * 42 // 100), max(1, count * 6 // 100)
    codes = [f"{600000 + number}.SH" for number in range(min(shanghai, 2000))]
    codes += [f"{688000 + number}.SH" for number in range(shanghai - len(codes))]
    codes += [f"{920000 + number}.BJ" for number in range(beijing)]
    return codes + [f"{number + 1:06d}.SZ" for number in range(count - len(codes))]


def _base(code: str) -> float:
    return 10.0 + int("".join(filter(str.isdigit, code))[-4:] or 0) % 50


def tick(code: str, step: int, levels: int = 5) -> dict[str, Any]:
    """The tick of a step, in raw doubles as the vendor sends them; time, volume and amount grow with the step."""
    if code in FUTURES:
        return _future(code, step, levels)
    base = 3500.0 if code in INDICES else _base(code)
    price = base + 0.01 * (step * 7 % 20)
    shares = 1_000_000 + 12_300 * step + 84
    book = levels if code not in INDICES else 0
    return {
        "time": OPENED + step * 3000,
        "lastPrice": price,
        "open": base,
        "high": base + 0.01 * 19,
        "low": base,
        "lastClose": base - 0.03,
        "amount": base * shares + 100.0 * step,
        "volume": round(shares / 100),
        "pvolume": shares,
        "stockStatus": 3,
        "openInt": 13,
        "transactionNum": 100 + step,
        "lastSettlementPrice": base - 0.03,
        "settlementPrice": 0.0,
        "pe": 0.0,
        "askPrice": [price + 0.01 * (level + 1) for level in range(book)],
        "bidPrice": [price - 0.01 * level for level in range(book)],
        "askVol": [11 + level for level in range(book)],
        "bidVol": [21 + level for level in range(book)],
    }


def _future(code: str, step: int, levels: int) -> dict[str, Any]:
    base, grid = (4000.0, 0.2) if code.startswith("IF") else (3200.0, 1.0)
    price = base + grid * (step * 7 % 20)
    return {
        **tick("000001.SZ", step, 0),
        **{"lastPrice": price, "open": base, "high": base + grid * 19, "low": base, "lastClose": base - grid},
        **{"lastSettlementPrice": base - grid * 2, "volume": 50_000 + step, "pvolume": 50_000 + step, "openInt": 212_345 + step},
        **{"stockStatus": 0, "askPrice": [price + grid][:levels], "bidPrice": [price][:levels], "askVol": [3][:levels]},
        "bidVol": [5][:levels],
    }


def _moments(period: str) -> list[datetime.datetime]:
    """The end stamps of a period's bars."""
    if period == "1d":
        return [datetime.datetime.combine(day, datetime.time()) for day in DAYS]
    if period in ("1w", "1mon"):
        last = {(day.isocalendar()[:2] if period == "1w" else (day.year, day.month)): day for day in DAYS}
        return [datetime.datetime.combine(day, datetime.time()) for day in last.values()]
    length = MINUTES[period]
    days = DAYS[-3:] if length == 1 else DAYS[-20:]
    ends = [*range(570 + length, 691, length), *range(780 + length, 901, length)]
    return [datetime.datetime.combine(day, datetime.time(end // 60, end % 60)) for day in days for end in ends]


def milliseconds(moment: datetime.datetime) -> int:
    """A moment of Beijing's clock."""
    return int(moment.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=8))).timestamp() * 1000)


def bars(code: str, period: str) -> list[dict[str, Any]]:
    """All bars of a code; the volume is in lots, as the terminal counts."""
    base = _base(code)
    rows = []
    for number, moment in enumerate(_moments(period)):
        close = base + 0.01 * (number % 10)
        lots = 1000 + number
        row = {"stime": moment.strftime("%Y%m%d%H%M%S"), "time": milliseconds(moment), "open": base, "high": base + 0.1}
        row |= {"low": base, "close": close, "volume": lots, "amount": close * lots * 100, "settelementPrice": 0.0}
        rows.append({**row, "openInterest": 0, "preClose": base, "suspendFlag": 0})
    return rows


def detail(code: str, *, old: bool) -> dict[str, Any]:
    """An instrument's detail, with the vendor's words for "not set" and ``IsTrading`` False, as seen on a live stock."""
    symbol, market = code.split(".")
    number = "Volumn" if old else "Volume"
    return {
        "ExchangeID": market,
        "InstrumentID": symbol,
        "InstrumentName": NAMES.get(code, f"测试{symbol}"),
        "ProductID": "",
        "ProductName": "",
        "ProductType": 1.797e308,
        "ExchangeCode": symbol,
        "UniCode": symbol,
        "CreateDate": 0,
        "OpenDate": 19991110,
        "ExpireDate": 99999999,
        "TradingDay": 20250808,
        "PreClose": _base(code),
        "SettlementPrice": 1.797e308,
        "UpStopPrice": 1.797e308 if code in INDICES else _base(code) * 1.1,
        "DownStopPrice": 1.797e308 if code in INDICES else _base(code) * 0.9,
        f"Float{number}": 2.9e10,
        f"Total{number}": 2.9e10,
        "LongMarginRatio": 1.797e308,
        "ShortMarginRatio": 1.797e308,
        "PriceTick": {"IF": 0.2, "SF": 1.0}.get(market, 0.001 if code == FUND else 0.01),
        "VolumeMultiple": 1,
        "MainContract": 2147483647,
        "LastVolume": 2147483647,
        "InstrumentStatus": 0,
        "IsTrading": False,
        "IsRecent": False,
        "ExtendInfo": {"OptionType": -1, "ProductTradeQuota": 2147483647},
    }
