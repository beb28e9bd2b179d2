"""What people type finds what they mean, the best fit first."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from marketdata.reference import pinyin, search


@pytest.mark.parametrize(
    ("name", "whole", "initials"),
    [
        ("平安银行", "pinganyinhang", "payh"),
        ("长江电力", "changjiangdianli", "cjdl"),
        ("重庆啤酒", "chongqingpijiu", "cqpj"),
        ("厦门银行", "xiamenyinhang", "xmyh"),
        ("*ST 万 科Ａ", "stwankea", "stwka"),
        ("TCL科技", "tclkeji", "tclkj"),
        ("沪深300", "hushen300", "hs300"),
        ("绿地控股", "lvdikonggu", "ldkg"),
        ("BTC/USDT", "btcusdt", "btcusdt"),
        ("行" * 300, "xing" * 50, "x" * 50),
        ("", "", ""),
    ],
)
def test_names_are_spelt_as_people_type_them(name: str, whole: str, initials: str) -> None:
    assert pinyin.spell(name) == (whole, initials)


def symbols(text: str, **filters: object) -> list[str]:
    return [row.symbol for row in search.find(text, limit=20, **filters).rows]  # type: ignore[arg-type]


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("text", "best"),
    [
        ("payh", "000001.SZ"),
        ("PAYH", "000001.SZ"),
        ("pay", "000001.SZ"),
        ("pinganyin", "000001.SZ"),
        ("平安银行", "000001.SZ"),
        ("平安银", "000001.SZ"),
        ("安银", "000001.SZ"),
        ("changjiang", "600900.SH"),
        ("万科A", "000002.SZ"),
        ("wka", "000002.SZ"),
        ("ST平安", "600001.SH"),
        ("*ST 平安", "600001.SH"),
        ("600900", "600900.SH"),
        ("sh600900", "600900.SH"),
        ("600900.XSHG", "600900.SH"),
        ("6009", "600900.SH"),
        ("0900", "600900.SH"),
        ("rb2701", "rb2701.SF"),
        ("RB27", "rb2701.SF"),
        ("１５９９１５", "159915.SZ"),
    ],
)
def test_codes_names_pinyin_and_initials_find_an_instrument(text: str, best: str) -> None:
    assert symbols(text)[0] == best


@pytest.mark.usefixtures("stored")
def test_the_best_fit_comes_first_and_what_is_quoted_before_what_is_not() -> None:
    assert symbols("000001") == ["000001.SH", "000001.SZ", "10000001.SHO"]
    assert symbols("平安") == ["000001.SZ", "600001.SH"]
    assert symbols("hs300")[0] == "000300.SH"


@pytest.mark.usefixtures("stored")
def test_filters_narrow_a_search() -> None:
    assert symbols("300", kinds=["option"]) == ["10000001.SHO", "10008800.SHO", "10008801.SHO"]
    assert symbols("", markets=["IF"]) == ["IF2001.IF", "IF2611.IF", "IF2612.IF"]
    assert symbols("00000", quoted=False) == ["10000001.SHO"]


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("text", ["%", "_", "'", '"', "\\", "a%' OR 1=1 --", "[0-9]"])
def test_nothing_that_is_typed_is_a_pattern_or_sql(text: str) -> None:
    assert symbols(text) == []


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("text", ["", "0", "yh"])
def test_pages_neither_repeat_nor_skip(text: str) -> None:
    whole = [row.symbol for row in search.find(text, limit=1000).rows]
    pages: list[str] = []
    after = None
    while True:
        found = search.find(text, limit=2, after=after)
        pages += [row.symbol for row in found.rows]
        if (after := found.after) is None:
            break
    assert pages == whole


@pytest.mark.usefixtures("stored")
def test_a_search_is_one_query() -> None:
    with CaptureQueriesContext(
        connection,
    ) as queries:
        search.find("payh", limit=10)
    assert len(queries) == 1
