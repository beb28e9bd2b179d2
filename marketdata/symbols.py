"""Symbols: every form that people write becomes one canonical ``CODE.MARKET``, and what the code alone tells.

Canonical is what QMT writes: ``600000.SH``, ``00700.HK``, ``IF2508.IF``, ``rb2510.SF``, ``SR509.ZF``, ``BTCUSDT.BINANCE``.
A code without its exchange is read by the exchanges' code ranges; one that several exchanges hand out is refused with
the candidates named, never guessed.
"""

from __future__ import annotations

import math
import re
import unicodedata
from decimal import Decimal
from functools import lru_cache
from typing import Literal

from marketdata.exchanges import (
    FUTURE_MARKET_OF_PRODUCT,
    FUTURES,
    HYPHENATED_OPTIONS,
    INDEX_OPTIONS,
    LOWER_CASE,
    MARKET_OF_NAME,
    RANGES,
    Kind,
    Range,
)

LONGEST = 64
"""Characters; longer texts are refused unread."""


class SymbolError(ValueError):
    """A text that does not name one instrument. ``candidates`` are the canonical symbols it may mean."""

    def __init__(self, kind: Literal["invalid", "ambiguous"], reason: str, candidates: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.candidates = candidates


_DIGITS = {"SH": 6, "SZ": 6, "BJ": 6, "BKZS": 6, "HK": 5, "HGT": 5, "SGT": 5, "SHO": 8, "SZO": 8}
_CRYPTO = frozenset({"BINANCE", "BINANCEUM"})
_PREFIXED = tuple(sorted((name for name, market in MARKET_OF_NAME.items() if market in ("SH", "SZ", "BJ", "HK")), key=len)[::-1])
_GLUED = re.compile(rf"(?P<before>{'|'.join(_PREFIXED)})?(?P<code>[0-9]{{5,6}})(?P<after>{'|'.join(_PREFIXED)})?")
_FUTURE = re.compile(r"(?P<product>[A-Z]{1,2})(?P<month>[0-9]{2,4})(?P<average>F?)")
_OPTION = re.compile(r"(?P<product>[A-Z]{1,2})(?P<month>[0-9]{3,4})-?(?P<series>(?:MS)?)-?(?P<side>[CP])-?(?P<strike>[0-9]{1,7})")
_PAIR = re.compile(r"[A-Z0-9]{2,20}(?:_[0-9]{6})?")
_BARE_PAIR = re.compile(r"[A-Z0-9]{2,10}(?:USDT|USDC|FDUSD)")
_BY_PREFIX: dict[tuple[str, str], Range] = {(item.market, prefix): item for item in RANGES for prefix in item.prefixes}


def parse(text: str) -> str:
    """The canonical symbol of a text. Raises ``SymbolError`` and nothing else.

    >>> parse("sz000001"), parse("SHSE.600000"), parse("600519"), parse("RB2510")
    ('000001.SZ', '600000.SH', '600519.SH', 'rb2510.SF')
    """
    if not isinstance(text, str):
        raise SymbolError("invalid", "a symbol is a text")
    if len(text) > LONGEST:
        raise SymbolError("invalid", f"longer than {LONGEST} characters")
    return _parse(text)


@lru_cache(maxsize=65536)
def _parse(text: str) -> str:
    plain = "".join(unicodedata.normalize("NFKC", text).split()).upper()
    if not plain or not plain.isascii():
        raise SymbolError("invalid", "not a code: letters and digits, and . between code and exchange")
    parts = re.split(r"[.:]", plain)
    if len(parts) == 1:
        return _without_market(plain)
    if len(parts) > 2:
        raise SymbolError("invalid", "more than one dot")
    left, right = parts
    if right in MARKET_OF_NAME:
        return _in_market(left, MARKET_OF_NAME[right])
    if left in MARKET_OF_NAME:
        return _in_market(right, MARKET_OF_NAME[left])
    raise SymbolError("invalid", f"neither {left!r} nor {right!r} is an exchange")


def _in_market(code: str, market: str) -> str:
    if width := _DIGITS.get(market):
        if market in ("HK", "HGT", "SGT"):
            code = code.zfill(width)
        if len(code) != width or not code.isdigit():
            raise SymbolError("invalid", f"a code of {market} has {width} digits")
        return f"{code}.{market}"
    if market in _CRYPTO:
        code = code.replace("/", "").replace("-", "")
        if not _PAIR.fullmatch(code):
            raise SymbolError("invalid", f"a code of {market} is a pair such as BTCUSDT")
        return f"{code}.{market}"
    return f"{_contract(code, market)}.{market}"


def _contract(code: str, market: str) -> str:
    """A future's or an option's code in the exchange's own spelling."""
    future, option = _FUTURE.fullmatch(code), _OPTION.fullmatch(code)
    match = future or option
    if match is None:
        raise SymbolError("invalid", f"{code!r} is not a contract of {market}")
    product, month = match["product"], match["month"]
    if market in LOWER_CASE:
        product = product.lower()
    if market == "ZF" and len(month) == 4:
        # The exchange writes one digit of the year; vendors with two are brought to it.
        month = month[1:]
    if future:
        return f"{product}{month}{future['average']}"
    assert option is not None
    hyphen = "-" if market in HYPHENATED_OPTIONS else ""
    return hyphen.join(part for part in (f"{product}{month}", option["series"], option["side"], option["strike"]) if part)


def _without_market(text: str) -> str:
    glued = _GLUED.fullmatch(text)
    if glued and bool(glued["before"]) != bool(glued["after"]):
        return _in_market(glued["code"], MARKET_OF_NAME[glued["before"] or glued["after"]])
    if text.isdigit():
        return _only(text, _numeric_candidates(text))
    if match := _FUTURE.fullmatch(text) or _OPTION.fullmatch(text):
        market = FUTURE_MARKET_OF_PRODUCT.get(match["product"])
        if market is not None:
            return _in_market(text, market)
    if _BARE_PAIR.fullmatch(text):
        return _only(text, (f"{text}.BINANCE", f"{text}.BINANCEUM"))
    raise SymbolError("invalid", "not a code of a known exchange; write CODE.EXCHANGE, such as 600000.SH")


def _numeric_candidates(code: str) -> tuple[str, ...]:
    if len(code) == 5:
        return (f"{code}.HK",)
    if len(code) == 8:
        # SSE option contracts count up from 10000001, SZSE's from 90000001.
        return tuple(f"{code}.{market}" for first, market in (("1", "SHO"), ("9", "SZO")) if code[0] == first)
    if len(code) != 6:
        return ()
    found = (range_of(f"{code}.{market}") for market in ("SH", "SZ", "BJ"))
    return tuple(f"{code}.{item.market}" for item in found if item is not None and not item.wholesale)


def _only(text: str, candidates: tuple[str, ...]) -> str:
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = " or ".join(f"{symbol} ({kind(symbol)})" for symbol in candidates)
        raise SymbolError("ambiguous", f"{text} may be {names}", candidates)
    raise SymbolError("invalid", f"no exchange is known to hand out the code {text}; add the exchange")


@lru_cache(maxsize=65536)
def range_of(symbol: str) -> Range | None:
    """The code range of a canonical symbol of SH, SZ or BJ: the one with the longest prefix that fits."""
    code, _, market = symbol.rpartition(".")
    fitting = (_BY_PREFIX.get((market, code[:length])) for length in (3, 2, 1))
    return next((item for item in fitting if item is not None), None)


def market_of(symbol: str) -> str:
    """The market of a canonical symbol."""
    return symbol.rpartition(".")[2]


def kind(symbol: str) -> Kind | None:
    """What sort of instrument a canonical symbol names, as far as its code tells."""
    code, _, market = symbol.rpartition(".")
    if item := range_of(symbol):
        return item.kind
    if market in FUTURES:
        return Kind.OPTION if _OPTION.fullmatch(code.upper()) else Kind.FUTURE
    by_market = {"HK": Kind.STOCK, "HGT": Kind.STOCK, "SGT": Kind.STOCK, "SHO": Kind.OPTION, "SZO": Kind.OPTION}
    by_market |= {"BKZS": Kind.INDEX, "BINANCE": Kind.CRYPTO, "BINANCEUM": Kind.CRYPTO}
    return by_market.get(market)


@lru_cache(maxsize=65536)
def price_tick(symbol: str) -> float | None:
    """The grid on which a canonical symbol's prices stand; None where its code does not tell (sources: ``exchanges``)."""
    code, _, market = symbol.rpartition(".")
    if item := range_of(symbol):
        return item.tick
    if market in ("SHO", "SZO"):
        return 0.0001
    if market == "BKZS":
        return 0.0001
    if market not in FUTURES:
        return None
    if future := _FUTURE.fullmatch(code.upper()):
        product = future["product"]
        return FUTURES[market].get(product.lower() if market in LOWER_CASE else product)
    option = _OPTION.fullmatch(code.upper())
    return INDEX_OPTIONS.get(option["product"]) if option and market == "IF" else None


def board_limit(symbol: str) -> float | None:
    """The daily price limit by board, as a fraction of the last close (0.10, 0.20, 0.30); None: none or not known.

    SSE trading rules 2023, 3.3.15; SZSE trading rules 2023, 3.3.15; BSE trading rules, 3.3.10. By the code alone: special
    treatment, first days after listing and delisting periods have other limits.
    """
    item = range_of(symbol)
    return item.limit if item else None


@lru_cache(maxsize=256)
def grid(tick: float) -> tuple[int, int]:
    """A price tick as ``step / scale`` in whole numbers. Raises ``ValueError`` where it is none."""
    sign, digits, exponent = Decimal(repr(tick)).as_tuple()
    if sign or not isinstance(exponent, int) or not any(digits):
        raise ValueError(f"{tick!r} is not a price tick")
    whole = int("".join(map(str, digits)))
    return (whole, 10**-exponent) if exponent < 0 else (whole * 10**exponent, 1)


def round_price(value: float, tick: float | None) -> float:
    """The multiple of ``tick`` nearest to ``value``, as the float that prints shortest (11.370000000000001 -> 11.37).

    The one place where prices are rounded. A half, to a millionth of a tick, goes away from zero, as the exchanges round
    limit prices (SSE trading rules 2023, 3.3.16). The last step divides whole numbers, so the result is the float
    nearest to the decimal. Where the tick is not known, 12 significant digits are kept, which drops the noise of binary
    fractions alone. Raises ``ValueError`` for infinities and NaN.
    """
    step, scale = (1, 1) if tick is None else grid(tick)
    steps = abs(value) * scale / step
    if not math.isfinite(steps):
        raise ValueError(f"{value!r} is not a price")
    if tick is None:
        return float(f"{value:.12g}")
    rounded = math.floor(steps + 0.500001) * step / scale
    return -rounded if value < 0 and rounded else rounded
