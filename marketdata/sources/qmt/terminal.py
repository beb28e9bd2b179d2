"""One terminal through the vendor's client: connecting to it and to no other, and calling its functions.

Lives in the child process. The vendor's module is handed in; it is a singleton without a lock, so one thread alone calls it.
"""

from __future__ import annotations

import inspect
import re
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from marketdata.sources.base import Capability, SourceUnavailable, Unsupported
from marketdata.sources.qmt import childlog

NOT_REALIZED: Final = re.compile(r"function not reali[sz]ed?|ErrorID\W{0,4}300000\b", re.IGNORECASE)
"""How a terminal older than the package says that it does not have a function."""
NOT_REALIZED_ID: Final = 300000
PROBE_CODE: Final = "000001.SH"
"""Every terminal knows the Shanghai composite index."""
PROBE_STOCK: Final = "600000.SH"


class WrongPeer(SourceUnavailable):
    """The client is connected to another terminal than the one that was asked for."""


class Terminal:
    """The connection. ``generation`` counts the clients it has had: subscriptions die with theirs.

    ``asked`` is when the last call began (monotonic).
    """

    def __init__(self, xtdata: Any, address: str, on_status: Callable[[], None]) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(f"{address!r} is not HOST:PORT")
        self._xtdata = xtdata
        self._host, self._port = host, int(port)
        self._peer = ""
        self._client: Any = None
        self._on_status = on_status
        self.generation = 0
        self.asked = time.monotonic()
        xtdata.enable_hello = False
        # Before connecting: the client takes it over while it connects, and offers no other word of a lost connection.
        xtdata.watch_xtquant_status(self._status_changed)

    def _status_changed(self, _info: object) -> None:
        self._on_status()

    @property
    def connected(self) -> bool:
        """Whether the client that was verified is still connected."""
        return self._client is not None and self._current() is self._client and bool(self._client.is_connected())

    def _current(self) -> Any:
        return getattr(self._xtdata, "__client", None)

    def connect(self) -> None:
        """Connect anew and verify the peer. Raises ``SourceUnavailable``; after ``WrongPeer`` the process must end."""
        self._client = None
        try:
            host = socket.gethostbyname(self._host)
        except OSError as error:
            raise SourceUnavailable(f"{self._host} has no address: {error}") from error
        self._peer = f"{host}:{self._port}"
        try:
            # An explicit integer port: without one the vendor's module looks for any terminal of this machine. Its
            # connect() would keep a connection to another one; reconnect() does not.
            client = self._xtdata.reconnect(host, self._port)
        except Exception as error:
            raise SourceUnavailable(f"no terminal answers at {self._host}:{self._port}: {error}") from error
        self._adopt(client)

    def _adopt(self, client: Any) -> None:
        try:
            peer = str(client.get_peer_addr())
        except Exception as error:
            raise SourceUnavailable(f"the connection was lost: {error}") from error
        if peer != self._peer:
            self._xtdata.disconnect()
            raise WrongPeer(f"asked for {self._peer} and connected to {peer}")
        self._client = client
        self.generation += 1

    def ask(self, function: str, /, *arguments: Any, **named: Any) -> Any:
        """Call a function of the vendor's module. Raises ``Unsupported`` or ``SourceUnavailable``, and nothing else."""
        if not self.connected:
            # The vendor's module would connect by itself here, after a failed connect even to another terminal.
            raise SourceUnavailable("not connected")
        self.asked = time.monotonic()
        call = getattr(self._xtdata, function, None)
        if call is None:
            raise Unsupported(f"this xtquant has no {function}")
        try:
            answer = call(*arguments, **named)
        except Exception as error:
            if NOT_REALIZED.search(str(error)):
                raise Unsupported(f"this terminal does not have {function}") from error
            raise SourceUnavailable(f"{function}: {type(error).__name__}: {error}") from error
        if isinstance(answer, dict) and answer.get("ErrorID") == NOT_REALIZED_ID:
            raise Unsupported(f"this terminal does not have {function}")
        if self._current() is not self._client:
            self._replaced()
        return answer

    def _replaced(self) -> None:
        """The vendor's module has made itself a new client in the middle of a call."""
        client = self._current()
        self._client = None
        if client is None:
            raise SourceUnavailable("the connection was lost")
        self._adopt(client)

    def history(self, codes: list[str], period: str, start: str, end: str, count: int) -> dict[str, Any]:
        """K-lines as the vendor's frames, unadjusted, without filling and without subscribing."""
        named: dict[str, Any] = {"dividend_type": "none", "fill_data": False}
        call = getattr(self._xtdata, "get_market_data_ex", None)
        if call is not None and "subscribe" in inspect.signature(call).parameters:
            # Versions that have it subscribe by default, and the terminal's memory grows with every symbol ever asked.
            named["subscribe"] = False
        named |= {"field_list": [], "stock_list": codes, "period": period, "start_time": start, "end_time": end, "count": count}
        answer = self.ask("get_market_data_ex", **named)
        return dict(answer or {})

    def version(self) -> str:
        """What the terminal calls itself; empty where it is too old to say."""
        try:
            tag = self._xtdata._BSON_.BSON.decode(self._client.get_server_tag())
            return " ".join(str(tag[word]) for word in ("tag", "version") if tag.get(word))
        except Exception as error:  # noqa: BLE001 (the vendor raises bare Exception)
            childlog.write("info", "qmt_no_version", detail=str(error))
            return ""

    def probe(self) -> tuple[Capability, ...]:
        """Try each function once; what is not realized is a capability that this terminal does not have."""
        return tuple(capability for capability, attempt in _PROBES.items() if self._has(capability, attempt))

    def _has(self, capability: Capability, attempt: Callable[[Terminal], object]) -> bool:
        try:
            attempt(self)
        except WrongPeer:
            raise
        except Unsupported as error:
            childlog.write("info", "qmt_unsupported", capability=capability, detail=str(error))
            return False
        except SourceUnavailable as error:
            if not self.connected:
                raise
            # It exists and failed: later calls will say how.
            childlog.write("warning", "qmt_probe_failed", capability=capability, detail=str(error))
        return True

    def subscribe(self, codes: list[str], callback: Callable[[object], None]) -> tuple[int, ...]:
        """Subscribe to the newest ticks of codes; the subscription numbers. The callback runs on the client's threads."""
        try:
            number = self.ask("subscribe_whole_quote", codes, callback)
            if isinstance(number, int) and number > 0:
                return (number,)
            failure: SourceUnavailable | Unsupported = SourceUnavailable(f"subscribe_whole_quote answered {number}")
        except Unsupported as error:
            failure = error
        if len(codes) > SINGLE_SUBSCRIPTIONS:
            raise failure
        return self._subscribe_each(codes, callback, period="tick", count=0)

    def subscribe_bars(self, codes: list[str], period: str, since: str, callback: Callable[[object], None]) -> tuple[int, ...]:
        """Subscribe to bars of codes, ``SINGLE_SUBSCRIPTIONS`` of them at most, from a day (``YYYYMMDD``) on."""
        return self._subscribe_each(codes, callback, period=period, start_time=since, count=-1)

    def subscribe_trades(self, code: str, callback: Callable[[object], None]) -> tuple[int, ...]:
        """Subscribe to a code's Level-2 trades from now on."""
        return self._subscribe_each([code], callback, period="l2transaction", count=0)

    def _subscribe_each(self, codes: list[str], callback: Callable[[object], None], **named: Any) -> tuple[int, ...]:
        numbers = tuple(self.ask("subscribe_quote", code, callback=callback, **named) for code in codes)
        if not all(isinstance(number, int) and number > 0 for number in numbers):
            self.unsubscribe(tuple(number for number in numbers if isinstance(number, int) and number > 0))
            raise SourceUnavailable(f"subscribe_quote answered {numbers}")
        return numbers

    def unsubscribe(self, numbers: tuple[int, ...]) -> None:
        """End subscriptions, as far as the terminal still answers."""
        for number in numbers:
            self.ask("unsubscribe_quote", number)


SINGLE_SUBSCRIPTIONS: Final = 50
"""The most single subscriptions that the vendor recommends."""


def _subscribe_once(terminal: Terminal) -> None:
    terminal.unsubscribe(terminal.subscribe([PROBE_CODE], lambda _datas: None))


def _subscribe_trades_once(terminal: Terminal) -> None:
    try:
        terminal.unsubscribe(terminal.subscribe_trades(PROBE_STOCK, lambda _datas: None))
    except WrongPeer:
        raise
    except SourceUnavailable as error:
        if not terminal.connected:
            raise
        # A terminal without Level 2 may say so in any words.
        raise Unsupported(f"no Level 2: {error}") from error


_PROBES: Final[dict[Capability, Callable[[Terminal], object]]] = {
    Capability.QUOTES: lambda terminal: terminal.ask("get_full_tick", [PROBE_CODE]),
    Capability.TRADING_DATES: lambda terminal: terminal.ask("get_trading_dates", "SH", "", "", 1),
    Capability.SECTORS: lambda terminal: terminal.ask("get_sector_list"),
    Capability.INSTRUMENTS: lambda terminal: terminal.ask("get_instrument_detail", PROBE_CODE),
    Capability.BARS: lambda terminal: terminal.history([PROBE_CODE], "1d", "", "", 1),
    Capability.PUSH: _subscribe_once,
    Capability.TRADES: _subscribe_trades_once,
    Capability.DIVIDENDS: lambda terminal: terminal.ask("get_divid_factors", PROBE_STOCK),
    Capability.MAIN_CONTRACTS: lambda terminal: terminal.ask("get_main_contract", "IF00.IF"),
    Capability.INDEX_WEIGHTS: lambda terminal: terminal.ask("get_index_weight", "000300.SH"),
}
