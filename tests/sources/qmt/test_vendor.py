"""The vendor's unmodified module on the emulated terminal: what it does that we must live with; the emulation is whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.emulator import EmulatedTerminal

Vendor = Callable[..., Any]


def test_connect_keeps_another_connection_and_reconnect_does_not(vendor: Vendor, terminal: EmulatedTerminal) -> None:
    with EmulatedTerminal(name="other") as other:
        script = f"""
xtdata.connect(port={terminal.port}); tags = [tag()]
xtdata.connect(port={other.port}); tags.append(tag())
xtdata.reconnect(port={other.port}); tags.append(tag())
show(tags)
"""
        assert vendor(script)[0] == ["emulated", "emulated", "other"]


def test_start_and_end_of_mixed_types_are_a_type_error(vendor: Vendor, terminal: EmulatedTerminal) -> None:
    script = f"""
import datetime
xtdata.connect(port={terminal.port})
try:
    xtdata.get_market_data_ex([], ["600000.SH"], "1d", start_time=datetime.datetime(2025, 8, 1))
except TypeError as error:
    show(type(error).__name__)
"""
    assert vendor(script)[0] == "TypeError"


def test_what_a_callback_raises_is_swallowed_and_printed(vendor: Vendor, terminal: EmulatedTerminal) -> None:
    script = f"""
import threading
called = threading.Event()
def callback(datas):
    called.set()
    raise RuntimeError("lost")
xtdata.connect(port={terminal.port})
xtdata.subscribe_whole_quote(["600000.SH"], callback)
assert called.wait(10)
show(len(xtdata.get_full_tick(["600000.SH"])))
"""
    outcome, printed = vendor(script)
    assert outcome == 1, "nobody was told"
    assert "RuntimeError: lost" in printed


def test_the_status_callback_must_be_set_before_connecting(vendor: Vendor, terminal: EmulatedTerminal) -> None:
    script = """
import threading
def told(before):
    heard = []
    watch = lambda: xtdata.watch_xtquant_status(lambda info: heard.append(info["status"]))
    if before: watch()
    client = xtdata.reconnect(port=PORT)
    if not before: watch()
    client.shutdown()
    for thread in threading.enumerate():
        if thread.name.startswith("xt-"): thread.join(10)
    xtdata.watch_xtquant_status(None)
    return heard
show([told(False), told(True)])
""".replace("PORT", str(terminal.port))
    assert vendor(script)[0] == [[], ["connected", "disconnected"]]


def test_the_vendors_functions_find_what_they_need(vendor: Vendor, terminal: EmulatedTerminal) -> None:
    script = f"""
xtdata.connect(port={terminal.port})
codes = ["600000.SH", "000001.SZ"]
found = {{
    "bars": list(xtdata.get_market_data_ex(["close"], codes, "1d", count=3)["600000.SH"].shape),
    "local": list(xtdata.get_local_data([], codes, "1d", count=3)["600000.SH"].shape),
    "matrix": list(xtdata.get_market_data(["close"], codes, "1d", count=3)["close"].shape),
    "ticks": float(xtdata.get_market_data_ex([], codes, "tick")["600000.SH"]["lastPrice"].iloc[0]),
    "array": float(xtdata.get_market_data([], codes, "tick")["600000.SH"]["lastPrice"][0]),
    "level2": float(xtdata.get_l2_quote([], "600000.SH")["lastPrice"][0]),
    "dates": len(xtdata.get_trading_dates("SH", count=2)),
    "calendar": xtdata.get_trading_calendar("SH", "20250801", "20250831")[-1],
    "holidays": xtdata.get_holidays(),
    "last": xtdata.get_market_last_trade_date("SH"),
    "sectors": len(xtdata.get_sector_list()),
    "constituents": len(xtdata.get_stock_list_in_sector("沪深A股")),
    "detail": xtdata.get_instrument_detail("600000.SH")["InstrumentName"],
    "unknown": xtdata.get_instrument_detail("600999.SH"),
    "type": xtdata.get_instrument_type("600000.SH"),
    "dividends": list(xtdata.get_divid_factors("600000.SH").shape),
    "contract": xtdata.get_main_contract("IF00.IF"),
    "weight": xtdata.get_index_weight("000300.SH"),
    "kline": float(xtdata.get_full_kline(["close"], ["600000.SH"])["close"].iloc[0, 0]),
    "servers": list(xtdata.get_quote_server_status()),
    "periods": len(xtdata.get_period_list()),
    "subscribed": xtdata.get_all_sub_info(),
    "downloaded": list(xtdata.download_history_data2(codes, "1d")),
    "one": list(xtdata.download_history_data("600000.SH", "1d")),
}}
show(found)
"""
    found, _ = vendor(script)
    assert found == {
        "bars": [3, 1],
        "local": [3, 11],
        "matrix": [2, 3],
        "ticks": 10.0,
        "array": 10.0,
        "level2": 10.0,
        "dates": 2,
        "calendar": "20250829",
        "holidays": ["20250602", "20251001"],
        "last": 1754582400000,
        "sectors": 12,
        "constituents": 11,
        "detail": "浦发银行",
        "unknown": None,
        "type": {"stock": True},
        "dividends": [2, 8],
        "contract": "IF2509.IF",
        "weight": {"600000.SH": 50.0, "600001.SH": 30.0, "600002.SH": 20.0},
        "kline": 10.1,
        "servers": ["0_SH_L1"],
        "periods": 3,
        "subscribed": [],
        "downloaded": ["600000.SH", "000001.SZ"],
        "one": ["600000.SH"],
    }


def test_old_terminals_are_read_with_their_own_spelling(vendor: Vendor, terminal: EmulatedTerminal) -> None:
    terminal.set_mode(old=True)
    script = f"xtdata.connect(port={terminal.port}); show(xtdata.get_instrument_detail('600000.SH')['FloatVolume'])"
    assert vendor(script)[0] == 2.9e10
