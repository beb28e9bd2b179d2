"""Stands for the vendor's compiled module: the same surface, talking to an emulated terminal over TCP.

Loaded as ``xtquant.datacenter`` by ``site/sitecustomize.py``. Signatures, return types and the threads on which callbacks
run follow the surface that ``xtdata.py`` of wheel 250807.1.2 uses. A call waits 150 s, as ``xtdata.ini`` says.
"""

from __future__ import annotations

import configparser
import contextlib
import ctypes
import os
import queue
import socket
import struct
import threading
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np

_spec = spec_from_file_location("emulator_bson", Path(__file__).with_name("bson.py"))
assert _spec is not None
assert _spec.loader is not None
bson: Any = module_from_spec(_spec)
_spec.loader.exec_module(bson)

REQUEST_TIMEOUT = 150.0
CONNECT_TIMEOUT = 3.0
LOCAL_SERVER_PORT = "EMULATOR_LOCAL_SERVER_PORT"
"""The port of a quote server inside this process, as the token mode would start one: what ``connect()`` without a port finds."""

TICK = [
    *(("time", "<i8"), ("lastPrice", "<f8"), ("open", "<f8"), ("high", "<f8"), ("low", "<f8"), ("lastClose", "<f8")),
    *(("amount", "<f8"), ("volume", "<i8"), ("pvolume", "<i8"), ("stockStatus", "<i4"), ("openInt", "<i4")),
    *(("transactionNum", "<i8"), ("lastSettlementPrice", "<f8"), ("settlementPrice", "<f8"), ("pe", "<f8")),
]
BOOK = ("askPrice", "bidPrice", "askVol", "bidVol")
BAR = {
    **{"time": "<i8", "open": "<f8", "high": "<f8", "low": "<f8", "close": "<f8", "volume": "<i8", "amount": "<f8"},
    **{"settelementPrice": "<f8", "openInterest": "<i8", "preClose": "<f8", "suspendFlag": "<i4"},
}

_create_nparray: Callable[..., Any] | None = None


def rpc_init(config_dir: str) -> int:
    return 0


def get_local_server_port() -> int:
    return int(os.environ.get(LOCAL_SERVER_PORT, "0"))


def register_create_nparray(function: Callable[..., Any]) -> bool:
    global _create_nparray
    _create_nparray = function
    return True


def _abort() -> None:
    """What a fault in compiled code does; without leaving a core file behind."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except ImportError:
        pass
    os.abort()


def _array(rows: list[dict[str, Any]]) -> Any:
    """A structured array made by the function that the vendor's Python registered, out of memory that is ours."""
    assert _create_nparray is not None
    data = np.array([tuple(row[name] for name, _ in TICK) for row in rows], dtype=TICK)
    memory = ctypes.create_string_buffer(data.tobytes(), max(data.nbytes, 1))
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    array = _create_nparray((len(rows),), TICK, new(ctypes.addressof(memory), None, None), data.dtype.itemsize)
    return array.copy()


def _columns_of(answer: dict[str, Any]) -> dict[str, Any]:
    """The arrays of one code's bars."""
    return {name: np.frombuffer(column["bytes"], column["type"]) for name, column in answer.items()}


class IPythonApiClient:
    """One connection. Frames: 4 bytes of length and BSON."""

    def __init__(self) -> None:
        self._address = ""
        self._peer = ""
        self._socket: socket.socket | None = None
        self._connected = False
        self._sending = threading.Lock()
        self._number = 0
        self._waiting: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._callbacks: dict[int, Any] = {}
        self._topics: dict[str, Any] = {}
        self._events: queue.SimpleQueue[tuple[Any, bytes] | None] = queue.SimpleQueue()

    def init(self) -> int:
        return 0

    def load_config(self, path: str, section: str) -> int:
        config = configparser.ConfigParser()
        return 0 if config.read(path, encoding="utf-8") and config.has_section(section) else -1

    def set_config_addr(self, address: str) -> None:
        self._address = address

    def get_config_addr(self) -> str:
        return self._address

    def connect(self) -> tuple[int, str]:
        host, port = self._address.split(":")
        try:
            self._socket = socket.create_connection((host, int(port)), CONNECT_TIMEOUT)
        except OSError as error:
            return -1, str(error)
        self._socket.settimeout(None)
        self._connected = True
        threading.Thread(target=self._read, daemon=True, name="xt-net").start()
        threading.Thread(target=self._dispatch, daemon=True, name="xt-dispatcher").start()
        self._peer = self._call("hello") or self._address
        self._status("connected")
        return 0, "success"

    def is_connected(self) -> bool:
        return self._connected

    def shutdown(self) -> None:
        self._connected = False
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()

    def get_peer_addr(self) -> str:
        return self._peer

    def _status(self, status: str) -> None:
        if callback := self._topics.get("watchxtquantstatus"):
            self._events.put((callback, bson.encode({"address": self._address, "status": status})))

    def _read(self) -> None:
        assert self._socket is not None
        stream = self._socket.makefile("rb")
        try:
            while len(header := stream.read(4)) == 4:
                frame = bson.decode(header + stream.read(struct.unpack("<i", header)[0] - 4))
                if frame["k"] == "push":
                    self._events.put((self._callbacks.get(frame["seq"]), frame["raw"]))
                elif frame["k"] == "crash":
                    _abort()
                elif frame["k"] == "print":
                    os.write(1, frame["text"].encode())
                elif waiting := self._waiting.pop(frame["id"], None):
                    waiting.put(frame)
        except (OSError, ValueError):
            pass  # Reset, or closed by shutdown().
        self._connected = False
        for waiting in list(self._waiting.values()):
            waiting.put({"e": "disconnected"})
        self._status("disconnected")
        self._events.put(None)

    def _dispatch(self) -> None:
        """Callbacks run here, on a thread of the client's own."""
        while event := self._events.get():
            callback, raw = event
            if callback is not None:
                callback(raw)

    def _call(self, method: str, *arguments: Any) -> Any:
        if not self._connected or self._socket is None:
            raise RuntimeError("disconnected")
        waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        with self._sending:
            self._number += 1
            number = self._number
            self._waiting[number] = waiting
            self._socket.sendall(bson.encode({"k": "call", "id": number, "m": method, "a": list(arguments)}))
        try:
            frame = waiting.get(timeout=REQUEST_TIMEOUT)
        except queue.Empty:
            raise RuntimeError("request timeout") from None
        if "e" in frame:
            raise RuntimeError(frame["e"])
        return frame["r"]

    def get_server_tag(self) -> bytes:
        return bytes(self._call("get_server_tag"))

    def get_data_dir(self) -> str:
        return str(self._call("get_data_dir"))

    def get_app_dir(self) -> str:
        return "."

    def get_full_tick(self, codes: list[str]) -> str:
        return str(self._call("get_full_tick", list(codes)))

    def get_stock_list_in_sector(self, name: str, moment: int) -> list[str]:
        return list(self._call("get_stock_list_in_sector", name, moment))

    def get_sector_list(self) -> list[str]:
        return list(self._call("get_sector_list"))

    def get_trading_dates_by_market(self, market: str, start: str, end: str, count: int) -> list[int]:
        return list(self._call("get_trading_dates_by_market", market, start, end, count))

    def get_market_last_trade_date(self, market: str) -> int:
        return int(self._call("get_market_last_trade_date", market))

    def get_holidays(self) -> list[int]:
        return list(self._call("get_holidays"))

    def get_instrument_detail(self, code: str) -> bytes:
        return bytes(self._call("get_instrument_detail", code))

    def get_stock_type(self, code: str) -> dict[str, bool]:
        return dict(self._call("get_stock_type", code))

    def is_stock_type(self, code: str, tag: int) -> bool:
        return bool(self._call("is_stock_type", code, tag))

    def get_main_contract(self, code: str) -> str:
        return str(self._call("get_main_contract", code))

    def get_weight_in_index(self, code: str) -> dict[str, float]:
        return dict(self._call("get_weight_in_index", code))

    def down_index_weight(self) -> None:
        self._call("down_index_weight")

    def get_divid_factors(self, code: str, start: str = "", end: str = "") -> dict[str, Any]:
        return dict(self._call("get_divid_factors", code, start, end))

    def commonControl(self, function: str, parameters: bytes) -> bytes:
        return bytes(self._call("commonControl", function, bytes(parameters)))

    def registerCommonControlCallback(self, topic: str, callback: Any) -> bool:
        self._topics[topic] = callback
        return True

    def supply_history_data(self, code: str, period: str, start: str, end: str) -> bool:
        return bool(self._call("supply_history_data2", [code], period, start, end)["done"])

    def supply_history_data2(self, codes: list[str], period: str, start: str, end: str, parameters: bytes, callback: Any) -> bool:
        """False: in progress. The callback gets dicts, the last of them with the result as BSON; or nothing, ever."""
        answer = self._call("supply_history_data2", list(codes), period, start, end)

        def progress() -> None:
            names = list(codes) or [""]
            for done, code in enumerate(names, 1):
                state: dict[str, Any] = {"finished": done, "total": len(names), "stockcode": code, "message": ""}
                if done == len(names):
                    result = {code: {"start_time": 1751299200000, "end_time": 1754582400000} for code in codes}
                    state["result"] = bson.encode(result)
                if callback(state):
                    return

        if answer["done"]:
            threading.Thread(target=progress, daemon=True, name="xt-download").start()
        return False

    def stop_supply_history_data2(self) -> bool:
        return True

    def subscribe_quote(self, meta: bytes, region: bytes, parameters: bytes, callback: Any) -> int:
        asked = bson.decode(bytes(meta))
        return self._subscribe("subscribe_quote", [asked["stockCode"]], callback, asked["period"])

    def subscribe_whole_quote(self, codes: list[str], parameters: bytes, callback: Any) -> int:
        return self._subscribe("subscribe_whole_quote", list(codes), callback)

    def _subscribe(self, method: str, codes: list[str], callback: Any, *period: str) -> int:
        # The number is the client's, so that no push can come before its callback is known.
        with self._sending:
            self._number += 1
            number = self._number
        self._callbacks[number] = callback
        if self._call(method, number, codes, *period) < 0:
            del self._callbacks[number]
            return -1
        return number

    def unsubscribe_quote(self, number: int) -> None:
        self._callbacks.pop(number, None)
        self._call("unsubscribe_quote", number)

    def get_market_data3(
        self,
        fields: list[str],
        codes: list[str],
        period: str,
        start: str | int,
        end: str | int,
        count: int,
        dividend: str,
        fill: bool,
        version: str,
        from_local: bool,
        from_server: bool,
        debug: int,
        data_dir: str,
    ) -> Any:
        if type(start) is not type(end):
            raise TypeError("get_market_data3(): incompatible function arguments. The following argument types are supported")
        rows = self._call("get_market_data3", list(codes), period, str(start), str(end), count, version, fill)
        bars = period not in ("tick", "l2quote", "l2order", "l2transaction")
        if bars:
            rows = {code: _columns_of(found) for code, found in rows.items()}
        if version == "v4":
            wanted = [field for field in (fields or BAR) if field in BAR]
            return [(code, *_columns(found, wanted, period)) for code, found in rows.items()]
        if version == "v2" and bars:
            return _matrix(rows, [field for field in (fields or BAR) if field in BAR])
        if version == "v3":
            return {code: [{name: row[name] for name in (*dict(TICK), *BOOK)} for row in found] for code, found in rows.items()}
        if version in ("v2", ""):
            return {code: _array(found) for code, found in rows.items()}
        raise NotImplementedError(f"get_market_data3 {version}: Arrow is not emulated")


def _columns(found: dict[str, Any], fields: list[str], period: str) -> tuple[list[str], list[tuple[str, str, bytes]]]:
    times = [str(time)[:8] if period in ("1d", "1w", "1mon") else str(time) for time in found.get("stime", ())]
    columns = ((field, found.get(field, np.empty(0, BAR[field]))) for field in fields)
    return times, [(field, column.dtype.str, column.tobytes()) for field, column in columns]


def _matrix(rows: dict[str, dict[str, Any]], fields: list[str]) -> Any:
    times = sorted({time for found in rows.values() for time in found["stime"].tolist()})
    by_time = {code: {time: index for index, time in enumerate(found["stime"].tolist())} for code, found in rows.items()}
    cells = {
        field: [
            [rows[code][field][at] if (at := by_time[code].get(time)) is not None else np.nan for time in times] for code in rows
        ]
        for field in fields
    }
    return [list(rows), [str(time) for time in times]], {field: np.array(cell) for field, cell in cells.items()}
