"""The pushes that are wanted, kept alive in the child: subscribed, found again after a restart, watched for silence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from marketdata.sources.base import SourceError, Unsupported
from marketdata.sources.qmt import childlog
from marketdata.sources.qmt.mailbox import BOUND, Mailbox
from marketdata.sources.qmt.parse import Limits, parse_ticks
from marketdata.sources.qmt.terminal import Terminal, WrongPeer
from marketdata.types import Parsed

CHUNK: Final = 499
"""Symbols in one call or subscription: calls with 500 and more have timed out."""
RETRY: Final = 5.0
"""Seconds until a subscription that failed is tried again."""

Deliver = Callable[[int, Parsed], None]
RawTick = tuple[str, Any]
"""A code and what the terminal says of it."""
NO_CODE: Final = ""
"""Stands for the code where a push had another shape than any known one."""


def chunks(codes: Sequence[str]) -> list[list[str]]:
    """The codes in lists of fewer than 500."""
    return [list(codes[first : first + CHUNK]) for first in range(0, len(codes), CHUNK)]


@dataclass
class _Chunk:
    """One subscription at the terminal. ``newest`` and ``heard`` are written on the vendor's threads."""

    codes: list[str]
    mailbox: Mailbox[RawTick]
    numbers: tuple[int, ...] = ()
    heard: float = field(default_factory=time.monotonic)
    checked: float = field(default_factory=time.monotonic)
    mute: int = 0
    ended: bool = False
    newest: dict[str, float] = field(default_factory=dict)

    def arrived(self, datas: object) -> None:
        """A push: ``{code: tick}`` of a whole-quote subscription, ``{code: [tick, ...]}`` of a single one.

        Runs on the vendor's threads, where exceptions are swallowed: so it raises none, parses nothing and asks nothing.
        """
        if self.ended:
            return
        if not isinstance(datas, Mapping):
            self.leave([(NO_CODE, [datas])])
            return
        ticks: list[RawTick] = []
        for code, value in datas.items():
            for tick in (value or [{}]) if isinstance(value, list) else [value]:
                ticks.append((str(code), tick))
        if self.saw(ticks):
            self.heard, self.mute = time.monotonic(), 0
        self.leave(ticks)

    def leave(self, ticks: Sequence[RawTick]) -> None:
        """Put raw ticks where the thread that parses finds them."""
        # Where they are merged, an empty tick stays beside a full one, and neither hides the other.
        self.mailbox.put((code if tick else f"{code} {{}}", (code, tick)) for code, tick in ticks)

    def saw(self, ticks: Sequence[RawTick]) -> bool:
        """Remember the times of ticks; whether one of them is newer than what was seen before."""
        newer = False
        for code, tick in ticks:
            moment = tick.get("time") if isinstance(tick, Mapping) else None
            if isinstance(moment, int | float) and moment > self.newest.get(code, 0):
                self.newest[code] = moment
                newer = True
        return newer


class _Push:
    """One wanted push: its mailbox, the thread that parses and delivers what lies there, its chunks."""

    def __init__(self, number: int, symbols: tuple[str, ...] | None, deliver: Deliver, limits: Mapping[str, Limits]) -> None:
        self.number = number
        self.symbols = symbols
        self.mailbox: Mailbox[RawTick] = Mailbox(BOUND)
        self.chunks: list[_Chunk] = []
        self.codes: tuple[str, ...] | None = None
        self.retry_at = 0.0
        self._deliver = deliver
        self._limits = limits
        threading.Thread(target=self._run, name=f"push-{number}", daemon=True).start()

    def _run(self) -> None:
        while not self.mailbox.closed:
            ticks = self.mailbox.take()
            if ticks:
                self._deliver(self.number, parse_ticks(ticks, int(time.time() * 1000), self._limits))


class Pushes:
    """All of them. Everything but the vendor's callbacks runs on the one thread that calls the terminal."""

    def __init__(
        self,
        terminal: Terminal,
        universe: Callable[[], tuple[str, ...]],
        deliver: Deliver,
        limits: Mapping[str, Limits],
        silence: float,
    ) -> None:
        self._terminal = terminal
        self._universe = universe
        self._deliver = deliver
        self._silence = silence
        self._limits = limits
        self._pushes: dict[int, _Push] = {}
        self._generation = 0
        self._closed_merged = 0
        self.supported = True
        self.remade = 0
        """How often a subscription was lost or silent and had to be made again."""

    @property
    def merged(self) -> int:
        """Ticks that newer ones replaced before they were delivered."""
        # Asked on another thread, hence the copy.
        return self._closed_merged + sum(push.mailbox.merged for push in list(self._pushes.values()))

    @property
    def codes(self) -> set[str]:
        """Everything that is pushed."""
        return {code for push in self._pushes.values() for code in push.codes or ()}

    def want(self, subscriptions: Mapping[int, tuple[str, ...] | None]) -> None:
        """What is wanted from now on; ``keep`` makes it so."""
        for number in self._pushes.keys() - subscriptions.keys():
            push = self._pushes.pop(number)
            self._closed_merged += push.mailbox.merged
            push.mailbox.close()
            self._unsubscribe(push.chunks)
        for number, symbols in subscriptions.items():
            if number not in self._pushes:
                self._pushes[number] = _Push(number, symbols, self._deliver, self._limits)

    def keep(self) -> None:
        """Subscribe what is not subscribed, and look into what is silent. The terminal is connected."""
        if self._generation != self._terminal.generation:
            # Subscriptions are lost with the client that made them.
            self._generation = self._terminal.generation
            for push in self._pushes.values():
                self.remade += bool(push.chunks)
                for chunk in push.chunks:
                    chunk.ended = True
                push.chunks, push.codes, push.retry_at = [], None, 0.0
        for push in self._pushes.values():
            if not self.supported or time.monotonic() < push.retry_at:
                continue
            try:
                self._keep(push)
            except WrongPeer:
                raise
            except Unsupported as error:
                self.supported = False
                childlog.write("warning", "qmt_push_unsupported", detail=str(error))
            except SourceError as error:
                push.retry_at = time.monotonic() + min(self._silence, RETRY)
                childlog.write("warning", "qmt_push_failed", push=push.number, detail=str(error))

    def _keep(self, push: _Push) -> None:
        codes = self._universe() if push.symbols is None else push.symbols
        if codes != push.codes:
            self.remade += bool(push.chunks)
            self._unsubscribe(push.chunks)
            push.chunks = [_Chunk(part, push.mailbox) for part in chunks(codes)]
            push.codes = codes
            for chunk in push.chunks:
                self._subscribe(chunk)
            childlog.write("info", "qmt_subscribed", push=push.number, symbols=len(codes), chunks=len(push.chunks))
        for place, chunk in enumerate(push.chunks):
            if time.monotonic() - max(chunk.heard, chunk.checked) >= self._silence:
                push.chunks[place] = self._look_into(chunk)

    def _subscribe(self, chunk: _Chunk) -> None:
        # The current state first, so that a terminal that sends none on its own does not leave a hole.
        ticks = self._state(chunk)
        chunk.saw(ticks)
        chunk.leave(ticks)
        chunk.numbers = self._terminal.subscribe(chunk.codes, chunk.arrived)

    def _state(self, chunk: _Chunk) -> list[RawTick]:
        ticks = self._terminal.ask("get_full_tick", chunk.codes)
        return list(ticks.items()) if isinstance(ticks, dict) else []

    def _look_into(self, chunk: _Chunk) -> _Chunk:
        """Nothing was pushed for a while: does the terminal know something newer? It knows the calendar and the phase best."""
        chunk.checked = time.monotonic()
        if chunk.numbers and not chunk.saw(self._state(chunk)):
            return chunk
        chunk.mute += 1
        childlog.write("warning", "qmt_mute", silence=self._silence, symbols=len(chunk.codes), times=chunk.mute)
        if chunk.mute > 1:
            # Subscribing again did not help.
            self._terminal.connect()
            return chunk
        self.remade += 1
        # What the old subscription still brings must not come after the newer state.
        self._unsubscribe([chunk])
        again = _Chunk(chunk.codes, chunk.mailbox, mute=chunk.mute)
        self._subscribe(again)
        return again

    def _unsubscribe(self, parts: list[_Chunk]) -> None:
        for chunk in parts:
            chunk.ended = True
            numbers, chunk.numbers = chunk.numbers, ()
            try:
                self._terminal.unsubscribe(numbers)
            except WrongPeer:
                raise
            except SourceError as error:
                childlog.write("info", "qmt_unsubscribe_failed", detail=str(error))
