"""What is known of the exchanges: their names, which codes they hand out, and the grids that their prices stand on.

Sources: SSE "证券代码段分配指南" (业务指南第 4 号, 2nd revision of 2024); SZSE "证券代码区间" and its bond code notices; BSE
"证券代码、证券简称编制指引" (2021) and notice 北证公告〔2023〕103 (920 codes); price grids: SSE and SZSE trading rules 2023
(3.3: A shares 0.01 CNY, funds 0.001 CNY, B shares 0.001 USD in Shanghai and 0.01 HKD in Shenzhen), BSE trading rules
(0.01 CNY), the bond and convertible-bond rules of 2022 (0.001 CNY, repo 0.005), option trading rules (0.0001 CNY) and the
contract specifications of the futures exchanges. Where a grid has changed over time the finer common one stands here:
rounding to it keeps both.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What sort of instrument a code names."""

    STOCK = "stock"
    B_SHARE = "b_share"
    PREFERRED = "preferred"
    INDEX = "index"
    FUND = "fund"
    CONVERTIBLE = "convertible"
    BOND = "bond"
    REPO = "repo"
    FUTURE = "future"
    OPTION = "option"
    CRYPTO = "crypto"


MARKETS: dict[str, tuple[str, ...]] = {
    "SH": ("SSE", "SHSE", "XSHG", "SS"),
    "SZ": ("SZSE", "XSHE"),
    "BJ": ("BSE", "BJSE", "XBSE"),
    "HK": ("HKEX", "SEHK", "XHKG"),
    "HGT": (),
    "SGT": (),
    "IF": ("CFFEX", "CFE", "CCFX", "CFX"),
    "SF": ("SHFE", "SHF", "XSGE"),
    "DF": ("DCE", "XDCE"),
    "ZF": ("CZCE", "ZCE", "CZC", "XZCE"),
    "GF": ("GFEX", "GFE"),
    "INE": ("XINE", "XSIE"),
    "SHO": (),
    "SZO": (),
    "BKZS": (),
    "BINANCE": ("BINANCESPOT",),
    "BINANCEUM": ("BINANCEUSDM", "BINANCEFUTURES"),
}
"""QMT's market code -> other names for it. HGT and SGT: Hong Kong through Shanghai and Shenzhen; BKZS: QMT's own board
indices; BINANCEUM: Binance's USD-M futures, as distinct from its spot market."""

MARKET_OF_NAME: dict[str, str] = {name: market for market, aliases in MARKETS.items() for name in (market, *aliases)}


class Range(NamedTuple):
    """Codes that begin with one of ``prefixes``.

    ``wholesale`` ranges are bonds that institutions trade among themselves (asset-backed, privately placed, local
    government): their codes count with their exchange given only, so that a bare 159915 is the fund that people mean.
    ``limit`` is the daily price limit as a fraction; None: none, or not to be known from the code alone (a fund in
    Shenzhen has that of its index's board).
    """

    market: str
    prefixes: tuple[str, ...]
    kind: Kind
    tick: float
    limit: float | None = None
    wholesale: bool = False


RANGES: tuple[Range, ...] = (
    Range("SH", ("600", "601", "603", "605"), Kind.STOCK, 0.01, 0.10),
    Range("SH", ("688", "689"), Kind.STOCK, 0.01, 0.20),
    Range("SH", ("900",), Kind.B_SHARE, 0.001, 0.10),
    Range("SH", ("330", "360"), Kind.PREFERRED, 0.01, 0.10),
    # Indices are published to 0.0001 although most screens show two digits.
    Range("SH", ("000",), Kind.INDEX, 0.0001),
    Range("SH", ("588", "589"), Kind.FUND, 0.001, 0.20),
    Range("SH", ("50", "51", "52", "53", "55", "56"), Kind.FUND, 0.001, 0.10),
    Range("SH", ("100", "110", "111", "113", "118", "132"), Kind.CONVERTIBLE, 0.001, 0.20),
    Range("SH", ("009", "010", "018", "019", "020"), Kind.BOND, 0.001),
    Range("SH", ("115", "120", "122", "124", "126", "127", "129", "136", "137", "138"), Kind.BOND, 0.001),
    Range("SH", ("143", "155", "163", "175", "185", "188", "240", "241", "242", "243", "244"), Kind.BOND, 0.001),
    Range("SH", ("204",), Kind.REPO, 0.005),
    Range("SH", ("1", "25", "26", "27"), Kind.BOND, 0.001, wholesale=True),
    Range("SZ", ("000", "001", "002", "003", "004"), Kind.STOCK, 0.01, 0.10),
    Range("SZ", ("300", "301", "302", "303", "304", "305", "306", "307", "308", "309"), Kind.STOCK, 0.01, 0.20),
    Range("SZ", ("200", "201"), Kind.B_SHARE, 0.01, 0.10),
    Range("SZ", ("140",), Kind.PREFERRED, 0.01, 0.10),
    Range("SZ", ("399", "970", "980"), Kind.INDEX, 0.0001),
    Range("SZ", ("150", "159", "16", "18"), Kind.FUND, 0.001),
    Range("SZ", ("120", "123", "125", "126", "127", "128", "129"), Kind.CONVERTIBLE, 0.001, 0.20),
    Range("SZ", ("100", "101", "102", "103", "104", "105", "106", "107", "108"), Kind.BOND, 0.001),
    Range("SZ", ("111", "112", "148", "149"), Kind.BOND, 0.001),
    Range("SZ", ("131",), Kind.REPO, 0.001),
    Range("SZ", ("109", "114", "116", "117", "118", "119", "124"), Kind.BOND, 0.001, wholesale=True),
    Range(
        "SZ", ("133", "134", "135", "138", "139", "143", "144", "145", "146", "147", "19", "52"), Kind.BOND, 0.001, wholesale=True
    ),
    Range("BJ", ("920", "43", "83", "87", "88"), Kind.STOCK, 0.01, 0.30),
    Range("BJ", ("82",), Kind.PREFERRED, 0.01, 0.30),
    Range("BJ", ("81",), Kind.CONVERTIBLE, 0.001),
    Range("BJ", ("899",), Kind.INDEX, 0.0001),
)

FUTURES: dict[str, dict[str, float]] = {
    "IF": {"IF": 0.2, "IH": 0.2, "IC": 0.2, "IM": 0.2, "T": 0.005, "TF": 0.005, "TS": 0.001, "TL": 0.01},
    "SF": {
        "cu": 10,
        "al": 5,
        "zn": 5,
        "pb": 5,
        "ni": 10,
        "sn": 10,
        "au": 0.02,
        "ag": 1,
        "rb": 1,
        "wr": 1,
        "hc": 1,
        "ss": 5,
        "fu": 1,
        "bu": 1,
        "ru": 5,
        "br": 5,
        "sp": 2,
        "ao": 1,
        "ad": 5,
        "op": 2,
    },
    "INE": {"sc": 0.1, "lu": 1, "nr": 5, "bc": 10, "ec": 0.1},
    "DF": {
        "a": 1,
        "b": 1,
        "c": 1,
        "cs": 1,
        "m": 1,
        "y": 2,
        "p": 2,
        "jd": 1,
        "l": 1,
        "v": 1,
        "pp": 1,
        "j": 0.5,
        "jm": 0.5,
        "i": 0.5,
        "eg": 1,
        "eb": 1,
        "pg": 1,
        "rr": 1,
        "fb": 0.5,
        "bb": 0.05,
        "lh": 5,
        "lg": 0.5,
        "bz": 1,
    },
    "ZF": {
        "WH": 1,
        "PM": 1,
        "CF": 5,
        "SR": 1,
        "OI": 1,
        "RI": 1,
        "RS": 1,
        "RM": 1,
        "JR": 1,
        "LR": 1,
        "SF": 2,
        "SM": 2,
        "TA": 2,
        "MA": 1,
        "FG": 1,
        "ZC": 0.2,
        "CY": 5,
        "AP": 1,
        "CJ": 5,
        "UR": 1,
        "SA": 1,
        "PF": 2,
        "PK": 2,
        "SH": 1,
        "PX": 2,
        "PR": 2,
        "PL": 1,
    },
    "GF": {"si": 5, "lc": 10, "ps": 5, "pt": 0.05, "pd": 0.05},
}
"""Market -> product, in the exchange's own spelling -> price tick. TS moved from 0.005 to 0.002, lc from 50 to 20."""

INDEX_OPTIONS: dict[str, float] = {"IO": 0.2, "MO": 0.2, "HO": 0.2}
"""CFFEX index options -> price tick."""

LOWER_CASE = frozenset({"SF", "DF", "GF", "INE"})
"""Futures exchanges that write their products in lower case; the others write them in upper case."""

HYPHENATED_OPTIONS = frozenset({"IF", "DF", "GF"})
"""Futures exchanges that write m2509-C-3000; the others write cu2509C80000."""

FUTURE_MARKET_OF_PRODUCT: dict[str, str] = {
    **{product.upper(): market for market, products in FUTURES.items() for product in products},
    **dict.fromkeys(INDEX_OPTIONS, "IF"),
}
