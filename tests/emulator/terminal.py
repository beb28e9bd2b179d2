"""An emulated QMT terminal: a process that answers the client's calls over TCP, and a test's orders on a second port.

``python -m tests.emulator.terminal --port 0`` prints ``{"port": ..., "control": ...}`` and lives until its standard
input closes. With ``--interval`` its market moves by itself; with ``--replay`` it shows a recorded session, in step with
every other terminal that was given the same ``--anchor``, ``--from`` and ``--speed``.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import struct
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.emulator import bson, history, market
from tests.emulator.replay import Pace, Replay, of_day
from tests.emulator.replay import Session as Recorded

L2 = "l2transaction"
NOT_REALIZED = '{"ErrorID": 300000, "ErrorMsg": "function not realize"}'


@dataclass
class Modes:
    """How the terminal behaves. Each can be set while it runs."""

    frozen: bool = False
    """Accepts connections and calls, and answers nothing."""
    latency: float = 0.0
    """Seconds before each answer."""
    missing: list[str] = field(default_factory=list)
    """Functions, names of commonControl and pairs such as "subscribe_quote l2transaction", that answer "function not realize"."""
    failing: list[str] = field(default_factory=list)
    """The same that answer an error of another kind."""
    freeze_on: list[str] = field(default_factory=list)
    """Functions that are never answered, while all others are."""
    levels: int = 5
    empty: list[str] = field(default_factory=list)
    """Codes whose tick is ``{}``."""
    zero_fill: list[str] = field(default_factory=list)
    """Codes whose bars come zero-filled, all but the last before today (one report: 163 of 164)."""
    pad: list[str] = field(default_factory=list)
    """Codes whose bars are padded: flat rows without volume on the days between the trading dates."""
    free_today: bool = False
    """Today's bars come without a subscription."""
    hang_downloads: bool = False
    mute: bool = False
    """Connected, answering, and pushing nothing."""
    peer: str = ""
    """What the client says it is connected to, if not the truth."""
    old: bool = False
    """Instrument details spelled ``FloatVolumn``, no tag."""
    no_sectors: bool = False


class Terminal:
    """The state: modes, market, connections, and a record of what was called."""

    def __init__(self, name: str, symbols: int, replay: Replay | None = None) -> None:
        self.name = name
        self.modes = Modes()
        self.stocks = replay.session.codes if replay else market.stocks(symbols)
        self.codes = self.stocks if replay else [*self.stocks, *market.INDICES, *market.FUTURES, market.FUND]
        self.replay = replay
        self.step = 0
        self.weights = True
        """Whether the table of index weights has been downloaded."""
        self.ticks: dict[str, dict[str, Any]] = {**replay.beginning} if replay else {}
        self.bars: dict[str, dict[str, history.Columns]] = {}
        self.sessions: set[Session] = set()
        self.calls: deque[dict[str, Any]] = deque(maxlen=20_000)

    def tick(self, code: str) -> dict[str, Any]:
        """The newest tick: the scripted or recorded one, else the market's."""
        if code in self.modes.empty or (self.replay and code not in self.ticks):
            return {}
        return self.ticks.get(code) or market.tick(code, self.step, self.modes.levels)

    def expand(self, names: list[str]) -> list[str]:
        """Codes that the terminal knows; a market's token is all of the market."""
        tokens = {name for name in names if "." not in name}
        if tokens:
            return [code for code in self.codes if code in names or code.rpartition(".")[2] in tokens]
        known = self.codes if len(names) > 50 else [*self.codes, *self.ticks]
        return [name for name in names if name in set(known) or name in self.ticks]

    def advance(self, steps: int) -> None:
        """The market moves on, and every subscriber is told."""
        for _ in range(steps):
            self.step += 1
            self.ticks.clear()
            for session in self.sessions:
                session.push_all()
                traded = {code for number in session.periods for code in session.subscriptions[number][1]}
                session.push_trades({code: market.trades(code, self.step) for code in traded})

    def push(self, ticks: dict[str, dict[str, Any]]) -> None:
        """Scripted ticks become the newest ones and are pushed as they are."""
        self.ticks.update({code: tick for code, tick in ticks.items() if tick})
        for session in self.sessions:
            session.push(ticks)

    def push_trades(self, rows: dict[str, list[dict[str, Any]]]) -> None:
        """Scripted or recorded Level-2 rows are pushed as they are."""
        for session in self.sessions:
            session.push_trades(rows)

    def traded(self) -> list[str]:
        """The codes whose trades are subscribed, by any client."""
        periods = ((session, number) for session in self.sessions for number, period in session.periods.items() if period == L2)
        return sorted(code for session, number in periods for code in session.subscriptions[number][1])

    def clients(self) -> dict[str, Any]:
        """Who is here: the sizes of all subscriptions, and how many connections there are."""
        subscriptions = [len(codes) for session in self.sessions for _, codes in session.subscriptions.values()]
        return {"subscriptions": subscriptions, "connections": len(self.sessions)}

    def stats(self) -> dict[str, Any]:
        """What a test may want to know."""
        return {"calls": list(self.calls), "step": self.step, "trades": self.traded(), **self.clients()}


class Session:
    """One client."""

    def __init__(self, terminal: Terminal, writer: asyncio.StreamWriter) -> None:
        self.terminal = terminal
        self.writer = writer
        self.subscriptions: dict[int, tuple[bool, set[str]]] = {}
        """Number -> whether it is a whole-quote subscription, and its codes."""
        self.periods: dict[int, str] = {}
        """Number of a subscription to bars or to Level-2 trades -> their period."""

    def send(self, frame: dict[str, Any]) -> None:
        if not self.writer.is_closing():
            self.writer.write(bson.encode(frame))

    def push_all(self) -> None:
        """Every subscription's current ticks."""
        for number, (whole, codes) in self.subscriptions.items():
            if self.periods.get(number) != L2:
                self._push(number, whole, {code: self.terminal.tick(code) for code in codes})

    def push_trades(self, rows: dict[str, list[dict[str, Any]]]) -> None:
        """These rows, to the subscriptions that have them: each code has its own."""
        modes = self.terminal.modes
        for number, period in self.periods.items():
            _, codes = self.subscriptions[number]
            wanted = {code: rows[code] for code in codes if rows.get(code)} if period == L2 else {}
            if wanted and not (modes.mute or modes.frozen):
                self.send({"k": "push", "seq": number, "raw": bson.encode(wanted)})

    def push(self, ticks: dict[str, dict[str, Any]]) -> None:
        """These ticks, to the subscriptions that have them."""
        for number, (whole, codes) in self.subscriptions.items():
            if self.periods.get(number) == L2:
                continue
            if wanted := {code: tick for code, tick in ticks.items() if code in codes}:
                self._push(number, whole, wanted)

    def _push(self, number: int, whole: bool, ticks: dict[str, dict[str, Any]]) -> None:
        modes = self.terminal.modes
        if modes.mute or modes.frozen:
            return
        if period := self.periods.get(number):
            for code in ticks:
                newest = history.rows(code, period, self.terminal.step)[-1:]
                self.send({"k": "push", "seq": number, "raw": bson.encode({code: newest})})
            return
        extra = {"volRatio": 0.0, "speed1Min": 0.0, "speed5Min": 0.0}
        pushed = {code: {**tick, **extra} if tick else {} for code, tick in ticks.items()}
        raw = bson.encode(pushed if whole else {code: [tick] for code, tick in pushed.items()})
        self.send({"k": "push", "seq": number, "raw": raw})

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Answer calls until the client is gone."""
        while True:
            header = await reader.readexactly(4)
            frame = bson.decode(header + await reader.readexactly(struct.unpack("<i", header)[0] - 4))
            modes, method = self.terminal.modes, frame["m"]
            arguments = frame["a"]
            self.terminal.calls.append(_record(method, arguments))
            name = arguments[0] if method == "commonControl" else method
            names = {name, " ".join([name, *(word for word in arguments if isinstance(word, str))])}
            if modes.frozen or name in modes.freeze_on:
                continue
            if modes.latency:
                await asyncio.sleep(modes.latency)
            if names.intersection(modes.missing):
                self.send({"k": "error", "id": frame["id"], "e": NOT_REALIZED})
            elif names.intersection(modes.failing):
                self.send({"k": "error", "id": frame["id"], "e": "the quote server does not answer"})
            else:
                self.send({"k": "reply", "id": frame["id"], "r": self._answer(method, arguments)})
            await self.writer.drain()

    def _answer(self, method: str, arguments: list[Any]) -> Any:
        match method, arguments:
            case "subscribe_whole_quote" | "subscribe_quote", [number, codes, *period]:
                whole = method == "subscribe_whole_quote"
                known = set(self.terminal.expand(codes))
                self.subscriptions[number] = (whole, known)
                named = period != [] and period[0] != "tick"
                if named:
                    self.periods[number] = period[0]
                if (whole or named) and period[:1] != [L2]:
                    self._push(number, whole, {code: self.terminal.tick(code) for code in known})
                return number
            case "unsubscribe_quote", [number]:
                self.subscriptions.pop(number, None)
                self.periods.pop(number, None)
                return None
            case "get_market_data3", [codes, period, *rest]:
                live = {
                    code
                    for number, (_, known) in self.subscriptions.items()
                    if self.periods.get(number) == period
                    for code in known
                }
                return _market_data(self.terminal, live, codes, period, *rest)
        return answer(self.terminal, method, arguments)


def _record(method: str, arguments: list[Any]) -> dict[str, Any]:
    codes = next((argument for argument in arguments if isinstance(argument, list)), None)
    shown = [argument for argument in arguments if isinstance(argument, str | int)]
    return {
        "method": method,
        "codes": None if codes is None else len(codes),
        "first": codes[:3] if codes else [],
        "arguments": shown,
    }


def _full_tick(terminal: Terminal, codes: list[str]) -> str:
    ticks = {code: terminal.tick(code) for code in terminal.expand(codes)}
    return json.dumps(
        {code: {**tick, "timetag": "20250808 09:30:00", "tickvol": 0} if tick else {} for code, tick in ticks.items()}
    )


def _sector(terminal: Terminal, name: str, _moment: int = -1) -> list[str]:
    if terminal.modes.no_sectors:
        return []
    stocks, indices = terminal.stocks, market.INDICES
    futures = {
        market_: [code for code in (*market.FUTURES, *market.OPTIONS) if code.endswith(market_)] for market_ in ("IF", "SF")
    }
    known: dict[str, list[str]] = {
        "沪深A股": [code for code in stocks if not code.endswith(".BJ")],
        "上证A股": [code for code in stocks if code.endswith(".SH")],
        "深证A股": [code for code in stocks if code.endswith(".SZ")],
        "京市A股": [code for code in stocks if code.endswith(".BJ")],
        "沪深300": stocks[:3],
        "沪市指数": [code for code in indices if code.endswith(".SH")],
        "深市指数": [code for code in indices if code.endswith(".SZ")],
        "沪市ETF": [market.FUND],
        "上证期权": [code for code in market.OPTIONS if code.endswith(".SHO")],
        # The terminal's continuous series stand among the contracts.
        "中金所": ["IF00.IF", *futures["IF"]],
        "上期所": ["rb00.SF", *futures["SF"]],
    }
    return known.get(name, [])


def _market_data(
    terminal: Terminal, live: set[str], codes: list[str], period: str, start: str, end: str, count: int, *_: Any
) -> Any:
    if period in ("tick", "l2quote"):
        return {code: [terminal.tick(code)] for code in terminal.expand(codes)}
    return {code: _bars(terminal, code in live, code, period, start, end, count) for code in codes}


def _bars(terminal: Terminal, live: bool, code: str, period: str, start: str, end: str, count: int) -> dict[str, Any]:
    """Columns on the wire: field -> the type of its array and its bytes."""
    modes = terminal.modes
    scripted = terminal.bars.get(code, {}).get(period)
    if scripted is not None:
        found = scripted
    elif code in terminal.codes:
        found = history.columns(code, period, terminal.step)
    else:
        return {}
    keep = np.ones(len(found["stime"]), bool)
    if scripted is None and not live and not modes.free_today:
        # The terminal has today's bars of what is subscribed alone.
        keep &= found["time"] < history.MIDNIGHT
    if code in modes.zero_fill:
        found = history.zero_filled(found)
    if code in modes.pad:
        found, keep = history.padded(found), np.append(keep, np.ones(len(history.padded(found)["stime"]) - len(keep), bool))
    if start:
        keep &= found["stime"] >= int(start.ljust(14, "0"))
    if end:
        # A date as the end means all of its day.
        keep &= found["stime"] <= int(end if len(end) == 14 else f"{end}235959")
    chosen = np.flatnonzero(keep)
    chosen = chosen[-count:] if count > 0 else chosen
    columns = {name: column[chosen] for name, column in found.items()}
    return {name: {"type": column.dtype.str, "bytes": column.tobytes()} for name, column in columns.items()}


def _weights(terminal: Terminal, code: str) -> dict[str, float]:
    if code != "000300.SH" or not terminal.weights:
        return {}
    stocks = terminal.stocks[:3]
    return dict(zip(stocks, (50.0, 30.0, 20.0), strict=False))


def _load_weights(terminal: Terminal) -> None:
    terminal.weights = True


def _main_contract(_terminal: Terminal, code: str) -> str:
    """Nothing of a product that is not traded here; the client's Python appends the market."""
    return {"IF00.IF": "IF2509", "rb00.SF": "rb2510"}.get(code, "")


def _detail(terminal: Terminal, code: str) -> bytes:
    if code not in terminal.codes and code not in market.OPTIONS:
        return b""
    found = market.detail(code, old=terminal.modes.old)
    if terminal.replay:
        close = terminal.tick(code).get("lastClose", 0.0)
        found |= {"TradingDay": terminal.replay.session.day, "PreClose": close}
        found |= {"UpStopPrice": close * 1.1, "DownStopPrice": close * 0.9}
    return bson.encode(found)


def _trading_dates(_terminal: Terminal, name: str, _start: str, _end: str, count: int) -> list[int]:
    if name not in ("SH", "SZ", "IF", "SF"):
        return []
    midnights = [history.milliseconds(datetime.datetime.combine(day, datetime.time())) for day in market.DAYS]
    return midnights[-count:] if count > 0 else midnights


def _server_tag(terminal: Terminal) -> bytes:
    return bson.encode({} if terminal.modes.old else {"tag": terminal.name, "version": "emulated 1.0"})


def _common(_terminal: Terminal, function: str, _parameters: bytes) -> bytes:
    answers: dict[str, dict[str, Any]] = {
        "getapiversion": {"downloadversion": 1},
        "getquoteserverstatus": {"result": [{"key": "0_SH_L1", "info": {"ip": "192.0.2.1", "port": 55300}}]},
        "getperiodlist": {"result": [{"name": "1m", "desc": "1分钟"}]},
        "getfullkline": {"result": {"close": [[10.1]]}, "stock": ["600000.SH"], "stime": ["20250808150000"]},
    }
    return bson.encode(answers.get(function, {"result": []}))


ANSWERS: dict[str, Callable[..., Any]] = {
    "hello": lambda terminal: terminal.modes.peer,
    "get_server_tag": _server_tag,
    "get_data_dir": lambda terminal: f"/emulated/{terminal.name}",
    "get_full_tick": _full_tick,
    "get_stock_list_in_sector": _sector,
    "get_sector_list": lambda _terminal: [
        *("沪深A股", "上证A股", "深证A股", "京市A股", "沪深300", "过期板块", "沪市指数", "深市指数", "沪市ETF", "上证期权"),
        *("中金所", "上期所"),
    ],
    "get_trading_dates_by_market": _trading_dates,
    "get_market_last_trade_date": lambda _terminal, _market: market.MIDNIGHT,
    "get_holidays": lambda _terminal: [20250602, 20251001],
    "get_instrument_detail": _detail,
    "get_stock_type": lambda _terminal, _code: {"stock": True, "index": False, "fund": False, "etf": False},
    "is_stock_type": lambda _terminal, _code, _tag: True,
    "get_main_contract": _main_contract,
    "get_weight_in_index": _weights,
    "down_index_weight": _load_weights,
    "get_divid_factors": lambda terminal, code, *_: history.dividends(code) if code in terminal.codes else {},
    "supply_history_data2": lambda terminal, *_: {"done": not terminal.modes.hang_downloads},
    "commonControl": _common,
}


def answer(terminal: Terminal, method: str, arguments: list[Any]) -> Any:
    """The answer to a call that is no subscription."""
    return ANSWERS[method](terminal, *arguments)


def obey(terminal: Terminal, order: dict[str, Any]) -> dict[str, Any]:
    """One order of a test."""
    match order:
        case {"set": modes}:
            terminal.modes = Modes(**{**asdict(terminal.modes), **modes})
        case {"push": ticks}:
            terminal.push(ticks)
        case {"trades": rows}:
            terminal.push_trades(rows)
        case {"place": ticks}:
            terminal.ticks.update(ticks)
        case {"bars": bars}:
            for code, periods in bars.items():
                terminal.bars[code] = {period: history.from_rows(rows) for period, rows in periods.items()}
        case {"step": step}:
            terminal.step = step
            terminal.ticks.clear()
        case {"forget_weights": _}:
            terminal.weights = False
        case {"advance": steps}:
            terminal.advance(steps)
        case {"stocks": count}:
            terminal.stocks = market.stocks(count)
            terminal.codes = [*terminal.stocks, *market.INDICES, *market.FUTURES, market.FUND]
        case {"drop": _}:
            for session in terminal.sessions:
                session.writer.transport.abort()
        case {"crash": _}:
            for session in terminal.sessions:
                session.send({"k": "crash"})
        case {"print": text}:
            for session in terminal.sessions:
                session.send({"k": "print", "text": text})
        case {"clients": _}:
            return terminal.clients()
    return terminal.stats() if "stats" in order else {}


async def main(arguments: argparse.Namespace) -> None:
    """Serve clients and tests until standard input closes."""
    terminal = Terminal(arguments.name, arguments.symbols, _replay(arguments))

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(terminal, writer)
        terminal.sessions.add(session)
        try:
            await session.serve(reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # The client has gone.
        finally:
            terminal.sessions.discard(session)
            writer.close()

    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(json.dumps(obey(terminal, json.loads(line))).encode() + b"\n")
            await writer.drain()
        writer.close()

    served = await asyncio.start_server(client, "127.0.0.1", arguments.port)
    controlled = await asyncio.start_server(control, "127.0.0.1", 0, limit=64 * 1024 * 1024)
    ports = {"port": served.sockets[0].getsockname()[1], "control": controlled.sockets[0].getsockname()[1]}
    print(json.dumps(ports), flush=True)  # noqa: T201 (what whoever started this reads)
    loop = asyncio.get_running_loop()
    moving = asyncio.ensure_future(_play(terminal, terminal.replay) if terminal.replay else _move(terminal, arguments.interval))
    await loop.run_in_executor(None, sys.stdin.read)
    moving.cancel()


async def _move(terminal: Terminal, interval: float) -> None:
    while interval:
        await asyncio.sleep(interval)
        terminal.advance(1)


def _replay(arguments: argparse.Namespace) -> Replay | None:
    if not arguments.replay:
        return None
    session = Recorded(arguments.replay)
    return Replay(session, Pace(arguments.anchor, of_day(session, arguments.start), arguments.speed))


async def _play(terminal: Terminal, replay: Replay) -> None:
    while (wait := replay.wait) is not None:
        await asyncio.sleep(wait)
        # Before the snapshots that count them.
        terminal.push_trades(replay.due_trades())
        for ticks in replay.due():
            terminal.push(dict(ticks))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="the port for clients; 0: any free one")
    parser.add_argument("--name", default="emulated", help="what the terminal calls itself")
    parser.add_argument("--symbols", type=int, default=12, help="how many stocks it knows")
    parser.add_argument("--interval", type=float, default=0.0, help="seconds between two steps of its market; 0: on order only")
    parser.add_argument("--replay", type=Path, nargs="*", default=[], help="recorded files of one day to show")
    parser.add_argument("--anchor", type=float, default=0.0, help="seconds since 1970 at which the replay stands at --from")
    parser.add_argument("--from", dest="start", default="09:30:00", help="a time of the recorded day")
    parser.add_argument("--speed", type=float, default=1.0, help="how many times as fast as it was")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(_arguments()))
