"""The market that an emulated terminal shows: a function of the code and of a step, so that every run is the same."""

from __future__ import annotations

from typing import Any, Final

from tests.emulator import history
from tests.emulator.history import DAYS, MIDNIGHT, base

__all__ = [
    "CLOSE",
    "DAYS",
    "FUND",
    "FUTURES",
    "INDICES",
    "MIDNIGHT",
    "OPENED",
    "OPTIONS",
    "bars",
    "detail",
    "stocks",
    "tick",
    "trades",
]

OPENED: Final = MIDNIGHT + (9 * 60 + 30) * 60_000
CLOSE: Final = 15 * 3_600_000
"""Since midnight."""

INDICES: Final = ["000001.SH", "000300.SH", "399001.SZ", "399006.SZ"]
FUTURES: Final = ["IF2509.IF", "rb2510.SF"]
FUND: Final = "510300.SH"
OPTIONS: Final = {
    "10008800.SHO": {"OptionType": 0, "OptUndlCode": FUND[:6], "OptUndlMarket": "SH", "OptExercisePrice": 4.1},
    "10008801.SHO": {"OptionType": 1, "OptUndlCode": FUND[:6], "OptUndlMarket": "SH", "OptExercisePrice": 4.1},
    "IO2509-C-4000.IF": {"OptionType": 0, "OptUndlCode": "000300", "OptUndlMarket": "SH", "OptExercisePrice": 4000.0},
    "rb2510C3200.SF": {"OptionType": 0, "OptUndlCode": "rb2510", "OptUndlMarket": "SF", "OptExercisePrice": 3200.0},
}
"""Code -> what the vendor's ``ExtendInfo`` says of it. They have details and neither ticks nor bars."""
MULTIPLES: Final = {"IF": 300, "SF": 10, "SHO": 10000}
NAMES: Final = {
    **{"600000.SH": "浦发银行", "000001.SZ": "平安银行", "000001.SH": "上证指数", "510300.SH": "沪深300ETF"},
    **{"000300.SH": "沪深300", "10008800.SHO": "300ETF购9月4100", "10008801.SHO": "300ETF沽9月4100"},
}


def stocks(count: int) -> list[str]:
    """Codes of the three exchanges, in about the proportion of the real market."""
    shanghai, beijing = max(1, count * 42 // 100), max(1, count * 6 // 100)
    codes = [f"{600000 + number}.SH" for number in range(min(shanghai, 2000))]
    codes += [f"{688000 + number}.SH" for number in range(shanghai - len(codes))]
    codes += [f"{920000 + number}.BJ" for number in range(beijing)]
    return codes + [f"{number + 1:06d}.SZ" for number in range(count - len(codes))]


def tick(code: str, step: int, levels: int = 5) -> dict[str, Any]:
    """The tick of a step, in raw doubles as the vendor sends them; time, volume and amount grow with the step."""
    if code in FUTURES:
        return _future(code, step, levels)
    opened, shares, moved = base(code), history.shares_of(step), min(step, history.LAST_STEP)
    price = opened + 0.01 * (moved * 7 % 20)
    book = levels if code not in INDICES else 0
    return {
        "time": OPENED + history.since_open(step),
        "lastPrice": price,
        "open": opened,
        "high": opened + 0.01 * 19,
        "low": opened,
        "lastClose": opened - 0.03,
        "amount": opened * shares + 100.0 * moved,
        "volume": round(shares / 100),
        "pvolume": shares,
        "stockStatus": 3,
        "openInt": 13,
        "transactionNum": 100 + moved,
        "lastSettlementPrice": opened - 0.03,
        "settlementPrice": 0.0,
        "pe": 0.0,
        "askPrice": [price + 0.01 * (level + 1) for level in range(book)],
        "bidPrice": [price - 0.01 * level for level in range(book)],
        "askVol": [11 + level for level in range(book)],
        "bidVol": [21 + level for level in range(book)],
    }


def trades(code: str, step: int) -> list[dict[str, Any]]:
    """The Level-2 trades between the step before and this one, in shares: all that the ticks' volume grew by, and of Shenzhen a
    cancel among them. Only stocks have any."""
    if code in FUTURES or code in INDICES or code == FUND or not 0 < step <= history.LAST_STEP:
        return []
    price, time = base(code) + 0.01 * (step * 7 % 20), OPENED + history.since_open(step)
    rows = [(2, price, 300), (1, price, 8_000), (1, price, 4_000)]
    if code.endswith(".SZ"):
        rows.insert(1, (3, 0.0, 700))
    return [
        {
            "time": time - 1500 + 300 * place,
            "price": at,
            "volume": size,
            "amount": at * size,
            "tradeIndex": 10 * step + place,
            "buyNo": 1000 * step + place,
            "sellNo": 1000 * step + 500 + place,
            "tradeType": 0,
            "tradeFlag": flag,
        }
        for place, (flag, at, size) in enumerate(rows)
    ]


def _future(code: str, step: int, levels: int) -> dict[str, Any]:
    opened, grid, moved = base(code), history.grid(code), min(step, history.LAST_STEP)
    price = opened + grid * (moved * 7 % 20)
    return {
        **tick("000001.SZ", step, 0),
        **{"lastPrice": price, "open": opened, "high": opened + grid * 19, "low": opened, "lastClose": opened - grid},
        **{"lastSettlementPrice": opened - grid * 2, "volume": 50_000 + moved, "pvolume": 50_000 + moved},
        **{"openInt": 212_345 + moved, "stockStatus": 0, "askPrice": [price + grid][:levels], "bidPrice": [price][:levels]},
        **{"askVol": [3][:levels], "bidVol": [5][:levels]},
    }


def bars(code: str, period: str) -> list[dict[str, Any]]:
    """All bars of a code as rows, today's whole day included; the volume is in lots, as the terminal counts."""
    return history.rows(code, period)


def detail(code: str, *, old: bool) -> dict[str, Any]:
    """An instrument's detail, with the vendor's words for "not set" and ``IsTrading`` False, as seen on a live stock."""
    symbol, market = code.split(".")
    number = "Volumn" if old else "Volume"
    return {
        "ExchangeID": market,
        "InstrumentID": symbol,
        "InstrumentName": NAMES.get(code, f"测试{symbol}"),
        "ProductID": "rb_o" if code.startswith("rb2510C") else "",
        "ProductName": "",
        "ProductType": 1.797e308,
        "ExchangeCode": symbol,
        "UniCode": symbol,
        "CreateDate": 0,
        "OpenDate": 19991110,
        "ExpireDate": 20250915 if code in FUTURES or code in OPTIONS else 99999999,
        "TradingDay": 20250808,
        "PreClose": base(code),
        "SettlementPrice": 1.797e308,
        "UpStopPrice": 1.797e308 if code in INDICES else base(code) * 1.1,
        "DownStopPrice": 1.797e308 if code in INDICES else base(code) * 0.9,
        f"Float{number}": 2.9e10,
        f"Total{number}": 2.9e10,
        "LongMarginRatio": 1.797e308,
        "ShortMarginRatio": 1.797e308,
        "PriceTick": {"IF": 0.2, "SF": 1.0, "SHO": 0.0001}.get(market, 0.001 if code == FUND else 0.01),
        "VolumeMultiple": MULTIPLES.get(market, 1),
        "MainContract": 2147483647,
        "LastVolume": 2147483647,
        "InstrumentStatus": 0,
        "IsTrading": False,
        "IsRecent": False,
        "ExtendInfo": {"OptionType": -1, "ProductTradeQuota": 2147483647, **OPTIONS.get(code, {})},
    }
