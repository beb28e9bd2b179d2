"""What crosses between Argus and a terminal's child process: msgpack frames, each one typed message."""

from __future__ import annotations

import contextlib
import hmac
import socket
import struct
import threading
from typing import Final

import msgspec
import numpy as np

from marketdata.exchanges import Kind
from marketdata.series import TYPES, Series
from marketdata.sources.base import Capability
from marketdata.types import Parsed, ParsedTrades, Period

MAX_FRAME: Final = 256 * 1024 * 1024
"""Bytes; the largest real one, a sweep of 5,500 quotes, has 2 MB."""


class Setup(msgspec.Struct, frozen=True):
    """What the child is told on its standard input, as JSON, before anything else. ``port`` is where it calls back."""

    port: int
    secret: str
    address: str
    silence: float
    """Seconds without a push after which the child asks the terminal itself whether there is something newer."""


class FetchQuotes(msgspec.Struct, frozen=True, tag=True):
    """The newest tick of each symbol; None: of the universe. Answer: ``Parsed``."""

    symbols: tuple[str, ...] | None


class FetchBars(msgspec.Struct, frozen=True, tag=True):
    """Bars of a chunk of symbols, downloaded first. Answer: ``Bars``."""

    symbols: tuple[str, ...]
    period: Period
    start: int | None
    end: int | None
    count: int | None


class FetchInstruments(msgspec.Struct, frozen=True, tag=True):
    """Details of a chunk of symbols. Answer: ``tuple[Instrument, ...]``."""

    symbols: tuple[str, ...]


class FetchSectorNames(msgspec.Struct, frozen=True, tag=True):
    """Answer: ``tuple[str, ...]``."""


class FetchSectors(msgspec.Struct, frozen=True, tag=True):
    """Constituents of a chunk of sectors. Answer: ``dict[str, tuple[str, ...]]``."""

    names: tuple[str, ...]


class FetchTradingDates(msgspec.Struct, frozen=True, tag=True):
    """Answer: ``tuple[str, ...]``."""

    market: str


class FetchUniverse(msgspec.Struct, frozen=True, tag=True):
    """Answer: ``tuple[str, ...]``."""


class FetchDividends(msgspec.Struct, frozen=True, tag=True):
    """Of a chunk of symbols. Answer: ``dict[str, tuple[Dividend, ...]]``."""

    symbols: tuple[str, ...]


class FetchCodes(msgspec.Struct, frozen=True, tag=True):
    """Answer: ``tuple[str, ...]``."""

    kind: Kind


class FetchMainContracts(msgspec.Struct, frozen=True, tag=True):
    """Of a chunk of products such as ``IF.IF``. Answer: ``dict[str, str]``."""

    products: tuple[str, ...]


class FetchIndexWeights(msgspec.Struct, frozen=True, tag=True):
    """Answer: ``dict[str, float]``."""

    index: str


Request = (
    FetchQuotes
    | FetchBars
    | FetchInstruments
    | FetchSectorNames
    | FetchSectors
    | FetchTradingDates
    | FetchUniverse
    | FetchDividends
    | FetchCodes
    | FetchMainContracts
    | FetchIndexWeights
)


class Call(msgspec.Struct, frozen=True, tag=True):
    """A request; there is one at a time. ``request_id`` is for the log."""

    number: int
    request_id: str
    request: Request


class Ping(msgspec.Struct, frozen=True, tag=True):
    """Sent every second. A child that hears none for long ends itself."""


class Wanted(msgspec.Struct, frozen=True, tag=True):
    """All that is to be pushed from now on: the number of each subscription to quotes -> symbols (None: the universe), and the
    symbols whose trades are wanted."""

    subscriptions: dict[int, tuple[str, ...] | None] = {}
    trades: tuple[str, ...] | None = ()


ToChild = Call | Ping | Wanted


class Answer(msgspec.Struct, frozen=True, tag=True):
    """The answer to a call, itself msgpack."""

    number: int
    body: bytes


class Failure(msgspec.Struct, frozen=True, tag=True):
    """A call that the terminal did not answer. ``unsupported``: it does not have the function."""

    number: int
    unsupported: bool
    detail: str


class Hello(msgspec.Struct, frozen=True, tag=True):
    """The child's first word."""

    secret: str


class Report(msgspec.Struct, frozen=True, tag=True):
    """How the child stands with its terminal. ``fatal``: starting it again cannot help."""

    up: bool
    starting: bool = False
    detail: str = ""
    version: str = ""
    capabilities: tuple[Capability, ...] = ()
    fatal: bool = False


class Pushed(msgspec.Struct, frozen=True, tag=True):
    """A push, parsed: msgpack of ``Parsed``."""

    subscription: int
    body: bytes


class PushedTrades(msgspec.Struct, frozen=True, tag=True):
    """Trades as they came, parsed: msgpack of ``ParsedTrades``."""

    body: bytes


class Pong(msgspec.Struct, frozen=True, tag=True):
    """The answer to a ping. ``busy`` is for how many seconds the child's own work (connecting, subscribing) has been
    waiting for the same answer; ``dropped`` ticks were replaced by newer ones or were trades without room, and
    ``interruptions`` is how often something may have been missed: subscriptions made again, trades dropped."""

    busy: float
    dropped: int
    interruptions: int
    time: int | None


FromChild = Answer | Failure | Hello | Report | Pushed | PushedTrades | Pong


Packed = tuple[bytes, ...]
"""The columns of a ``Series`` as the bytes of their arrays: a year of minutes crosses in milliseconds."""


class Bars(msgspec.Struct, frozen=True):
    """Bars by symbol, and how many rows were refused by reason."""

    bars: dict[str, Packed]
    refused: dict[str, int]


def pack(series: Series) -> Packed:
    """A series for the way."""
    return tuple(getattr(series, name).tobytes() for name in TYPES)


def unpack(packed: Packed) -> Series:
    """A series from the way; its arrays are read-only views of the bytes."""
    return Series(*(np.frombuffer(body, kind) for body, kind in zip(packed, TYPES.values(), strict=True)))


to_child: Final = msgspec.msgpack.Decoder(ToChild)
from_child: Final = msgspec.msgpack.Decoder(FromChild)
parsed: Final = msgspec.msgpack.Decoder(Parsed)
parsed_trades: Final = msgspec.msgpack.Decoder(ParsedTrades)


def encode(value: object) -> bytes:
    """The msgpack of a message or of an answer."""
    return msgspec.msgpack.encode(value)


class Channel:
    """A connected socket on which both sides send length-prefixed frames. Any thread may send, one receives."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._sending = threading.Lock()

    def send(self, message: ToChild | FromChild) -> None:
        """Send one message. Raises ``OSError`` when the other side is gone."""
        frame = encode(message)
        with self._sending:
            self._socket.sendall(struct.pack("<I", len(frame)) + frame)

    def receive(self) -> bytes | None:
        """The next frame; None when the other side is gone."""
        try:
            header = self._read(4)
            (length,) = struct.unpack("<I", header) if header else (0,)
            return self._read(length) if header and length <= MAX_FRAME else None
        except OSError:
            return None

    def _read(self, size: int) -> bytes | None:
        parts: list[bytes] = []
        while size and (part := self._socket.recv(min(size, 1 << 20))):
            parts.append(part)
            size -= len(part)
        return None if size else b"".join(parts)

    def hang_up(self) -> None:
        """Let both sides' ``receive`` return None."""
        # An error: the other side was faster.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up and free the socket; only for the one who receives."""
        self.hang_up()
        self._socket.close()


def is_hello(frame: bytes | None, secret: str) -> bool:
    """Whether this is the child that was started, and not another program of this machine."""
    try:
        message = from_child.decode(frame or b"")
    except msgspec.MsgspecError:
        return False
    return isinstance(message, Hello) and hmac.compare_digest(message.secret.encode(), secret.encode())
