"""Many clients of the stream on a thread of their own: each keeps the newest that it was told, and what happened, and comes back
when it is cut off.

Whatever contradicts what it has heard before is noted.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from marketdata.batch import without_seq
from tests.e2e.relay import RESET

T = TypeVar("T")
COME_BACK = 0.3
"""Seconds before a client that was cut off comes back, and as many again at random."""


class Piece(msgspec.Struct):
    """What a fragment says of itself."""

    type: str
    symbol: str
    time: int
    closed: bool = False

    @property
    def happened(self) -> bool:
        """Whether it is an event."""
        return self.closed or self.type in ("trade", "status")


class Happened(NamedTuple):
    """An event in its line: of each symbol's bars, of all trades, and of all changes of status. In a line all come in order, each
    once; but a bar that has closed may be said again as it was, so that its epoch and seq make no other one of it."""

    line: str
    epoch: int
    fragment: bytes

    @classmethod
    def of(cls, epoch: int, type: str, symbol: str, fragment: bytes) -> Happened:
        """The event that a fragment of a message tells."""
        return cls(f"{type} {symbol}", 0, without_seq(fragment)) if type == "kline" else cls(type, epoch, fragment)


class Said(msgspec.Struct):
    """A message of the server's, as far as it is looked at."""

    type: str
    feed: str = ""
    epoch: int = 0
    seq: int = 0
    snapshot: bool = False
    more: bool = False
    session: str = ""
    name: str = ""
    message: str = ""
    retryable: bool = False
    recovered: bool = True
    data: list[msgspec.Raw] = []


_said = msgspec.json.Decoder(Said)
_piece = msgspec.json.Decoder(Piece)


class Client:
    """One client. With ``resumes`` it asks for what it missed instead of subscribing anew, where it was given a session."""

    def __init__(self, port: int, key: str, terms: dict[str, Any], *, resumes: bool, stays: bool) -> None:
        self.port = port
        self.key = key
        self.terms = terms
        self.resumes = resumes
        self.stays = stays
        self.newest: dict[str, tuple[int, bytes]] = {}
        """Symbol -> the time of its newest quote, and the quote."""
        self.position: dict[str, tuple[int, int]] = {}
        """Feed -> epoch and seq of the last data message after which nothing of it was still to come."""
        self.happened: dict[Happened, int] = {}
        """Every event, in order -> the number of the stretch that it belongs to: a new one begins where the client was told that
        something may be missing."""
        self.stretches = 0
        self.repeated = 0
        """Events that came again."""
        self.goodbyes = 0
        self.resumed: list[bool] = []
        """What each answer to a resume said of whether all was recovered."""
        self.messages = 0
        self.connected = 0
        self.subscribed = False
        self.contradictions: list[str] = []
        self._session = ""
        self._opened: dict[str, Any] = {}
        """What this connection began with."""
        self._socket: ClientConnection | None = None
        self._heard: dict[str, tuple[int, int]] = {}

    async def run(self) -> None:
        """Until cancelled, or until it is cut off where it does not come back."""
        while True:
            with contextlib.suppress(OSError, TimeoutError, WebSocketException):
                await self._follow()
            self.subscribed = False
            if not self.stays:
                return
            await asyncio.sleep(COME_BACK * (1 + random.random()))

    def reset(self) -> None:
        """End the connection at once and without a word, as a machine that loses its network card would."""
        if self._socket is not None:
            with contextlib.suppress(OSError, AttributeError):
                self._socket.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._socket.transport.abort()

    async def say(self, **message: Any) -> None:
        """Send something, unless the connection has just ended."""
        if self._socket is not None:
            with contextlib.suppress(WebSocketException):
                await self._socket.send(msgspec.json.encode(message).decode())

    def _opening(self) -> dict[str, Any]:
        if self.resumes and self._session and self.position:
            streams = {feed: {"epoch": epoch, "seq": seq} for feed, (epoch, seq) in self.position.items()}
            return {"action": "resume", "session": self._session, "streams": streams}
        return {"action": "subscribe", **self.terms}

    async def _follow(self) -> None:
        headers = {"X-API-Key": self.key}
        url = f"ws://127.0.0.1:{self.port}/ws"
        async with connect(
            url, additional_headers=headers, compression=None, max_size=None, proxy=None, close_timeout=1
        ) as connection:
            self._socket = connection
            self._heard = {}
            self.connected += 1
            try:
                async for message in connection:
                    try:
                        said = _said.decode(message)
                    except msgspec.MsgspecError as error:
                        self.contradictions.append(f"{error}: {message!r}"[:500])
                        return
                    await self._hear(said)
            finally:
                self._socket = None

    async def _hear(self, said: Said) -> None:
        self.messages += 1
        if said.type == "connected":
            self._opened = self._opening()
            self._session = said.session or self._session
            await self.say(**self._opened)
        elif said.type in ("subscribed", "resumed"):
            if said.type == "resumed":
                self.resumed.append(said.recovered)
            if said.type == "subscribed" or not said.recovered:
                self.stretches += 1
            self.subscribed = True
        elif said.type == "gap" or (said.type == "epoch" and not said.recovered):
            self.stretches += 1
        elif said.type == "goodbye":
            self.goodbyes += 1
        elif said.name == "session_unknown":
            await self.say(action="subscribe", **self.terms)
        elif said.retryable:
            await asyncio.sleep(COME_BACK)
            await self.say(**self._opened)
        elif said.type == "error":
            self._session = ""
            self.contradictions.append(f"{said.name}: {said.message}")
        elif said.type == "data":
            self._take(said)

    def _take(self, said: Said) -> None:
        position = (said.epoch, said.seq)
        # Events that were looked for come after states of later messages, all of which say that more is to come.
        heard = (0, 0) if said.more else self._heard.get(said.feed, (0, 0))
        if position < heard or position < self.position.get(said.feed, (0, 0)):
            self.contradictions.append(f"{position} after {heard}, known {self.position.get(said.feed)}")
        self._heard[said.feed] = max(position, heard)
        if not said.more:
            self.position[said.feed] = position
        for raw in said.data:
            piece = _piece.decode(raw)
            if piece.happened:
                # The last bar of a symbol is part of the state; its snapshot brings it where nobody here knew one before.
                if not said.snapshot or piece.type == "kline":
                    self._happen(Happened.of(said.epoch, piece.type, piece.symbol, bytes(raw)))
                continue
            if piece.type != "quote":
                continue
            known = self.newest.get(piece.symbol)
            if known is not None and piece.time < known[0]:
                self.contradictions.append(f"{bytes(raw)!r} after {known[1]!r}")
            self.newest[piece.symbol] = (piece.time, bytes(raw))

    def _happen(self, event: Happened) -> None:
        if event in self.happened:
            self.repeated += 1
        else:
            self.happened[event] = self.stretches


class Crowd:
    """Clients of one service."""

    def __init__(self, port: int, key: str) -> None:
        self.port = port
        self.key = key
        self.clients: list[Client] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="crowd", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.leave()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def join(self, terms: Iterable[dict[str, Any]], *, resumes: bool = False, stays: bool = True) -> list[Client]:
        """A client more for each of these subscriptions."""
        joined = [Client(self.port, self.key, one, resumes=resumes, stays=stays) for one in terms]

        async def start() -> None:
            self._tasks += [asyncio.create_task(client.run()) for client in joined]

        self.do(start())
        self.clients += joined
        return joined

    def leave(self) -> None:
        """All go, in an orderly way."""

        async def end() -> None:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._tasks.clear()

        self.do(end(), 30)
        self.clients.clear()

    def reset(self, clients: Iterable[Client]) -> None:
        """Cut these off."""
        self.call(lambda: [client.reset() for client in clients])

    def call(self, step: Callable[[], T]) -> T:
        """Do something on the clients' own thread."""

        async def run() -> T:
            return step()

        return self.do(run())

    def do(self, step: Coroutine[Any, Any, T], seconds: float = 10) -> T:
        """Wait for something that is done on the clients' own thread."""
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(seconds)

    def contradictions(self) -> list[str]:
        """What any of them was told that cannot be."""
        return [text for client in self.clients for text in client.contradictions]
