"""A real server in the test's own process and loop, real keys, a feed into the real channel layer, and real clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import msgspec
import uvicorn
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from argus.access import services
from argus.access.models import APIKey, Plan
from argus.access.principal import DATA_TYPES
from argus.asgi import application
from marketdata import klines
from marketdata.batch import Batch, Events, Term, encode
from marketdata.builder import LiveBar
from marketdata.publish import MESSAGE_TYPE, group_name
from marketdata.types import Quote
from marketdata.universe import Universe
from streaming import runtime
from streaming.connection import Connection
from streaming.servers.uvicorn import uvicorn_config

SYMBOLS = tuple(f"{code:06}.SZ" for code in range(1, 201))
UNIVERSE = Universe(symbols=SYMBOLS, sectors={"few": SYMBOLS[:3]})


async def until(condition: Callable[[], Any], what: str, seconds: float = 10) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
        await asyncio.sleep(0.01)
    return value


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The test's process keeps its signals."""
        yield


class Feed:
    """What a publisher sends."""

    def __init__(self) -> None:
        self.epoch = 1
        self.seq = 0

    async def publish(
        self, *quotes: Quote, bars: Iterable[LiveBar] = (), term: Term | None = None, events: Events | None = None
    ) -> None:
        """One message into the feed's group."""
        self.seq += 1
        tail = b',"seq":%d}' % self.seq
        forming, closed = klines.numbered(klines.group(bars), tail)
        batch = Batch(
            feed="main",
            epoch=self.epoch,
            seq=self.seq,
            published=time.time_ns() // 1_000_000,
            source="test",
            canary=time.time_ns() // 1_000_000,
            clock=None,
            snapshot=False,
            symbols=[quote.symbol for quote in quotes],
            fragments=[msgspec.json.encode(quote)[:-1] + tail for quote in quotes],
            bars=forming,
            term=term,
            events=closed | dict(events or {}),
        )
        layer: Any = get_channel_layer()
        await layer.group_send(group_name("main"), {"type": MESSAGE_TYPE, "blob": encode(batch)})

    async def take_over(self, *pending: Quote, known: Iterable[Quote] = ()) -> None:
        """Go on as another publisher that lost nothing: what its predecessor had not sent, and then the rest of what it knows."""
        end = (self.epoch, self.seq)
        self.epoch, self.seq = self.epoch + 1, 0
        await self.publish()
        await self.publish(*pending)
        await self.publish(*known, term=Term(*end, recovered=True))


class Server:
    """One running server; ``connections`` are those of its hub."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"ws://127.0.0.1:{port}"
        self.feed = Feed()

    @property
    def connections(self) -> dict[str, Connection]:
        current = runtime.current()
        assert current is not None
        return current.hub.connections


@contextlib.asynccontextmanager
async def serve() -> AsyncIterator[Server]:
    """Argus under uvicorn on a free port."""
    server = _Quiet(uvicorn_config(application, host="127.0.0.1", port=0))
    serving = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started or serving.done(), "the server to start")
        yield Server(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, 15)


class Client:
    """A client of the stream."""

    def __init__(self, connection: ClientConnection) -> None:
        self.ws = connection

    async def receive(self, type: str | None = None) -> dict[str, Any]:
        """The next message, of this type if given."""
        while True:
            message: dict[str, Any] = json.loads(await asyncio.wait_for(self.ws.recv(), 10))
            if type is None or message["type"] == type:
                return message

    async def send(self, action: str, **fields: Any) -> None:
        await self.ws.send(json.dumps({"action": action, **fields}))

    async def ask(self, action: str, **fields: Any) -> dict[str, Any]:
        """Send an action; its answer, whatever comes before it."""
        await self.send(action, id="ask", **fields)
        return await self.answer("ask")

    async def answer(self, id: str | int | None) -> dict[str, Any]:
        while True:
            message = await self.receive()
            if message.get("id") == id and message["type"] not in ("data", "epoch", "heartbeat"):
                return message

    async def closed(self) -> int:
        """Read on until the server closes; its close code."""
        try:
            async with asyncio.timeout(10):
                while True:
                    await self.ws.recv()
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 1006


@contextlib.asynccontextmanager
async def client(
    server: Server, key: str | None = None, *, path: str = "/ws", headers: dict[str, str] | None = None, **options: Any
) -> AsyncIterator[Client]:
    """A connected client, which shows its key in a header."""
    headers = (headers or {}) | ({"X-API-Key": key} if key else {})
    async with connect(server.url + path, additional_headers=headers, max_size=None, proxy=None, **options) as connection:
        yield Client(connection)


@contextlib.asynccontextmanager
async def subscriber(server: Server, key: str, *symbols: str, **options: Any) -> AsyncIterator[Client]:
    """A client that is subscribed already."""
    async with client(server, key) as one:
        await one.receive("connected")
        answer = await one.ask("subscribe", symbols=symbols, **options)
        assert answer["type"] == "subscribed", answer
        yield one


@sync_to_async
def new_key(
    *,
    symbols: int = 10_000,
    requests: int = 10_000,
    connections: int = 100,
    data_types: tuple[str, ...] = DATA_TYPES,
    **options: Any,
) -> tuple[APIKey, str]:
    """A key on a plan of its own, and its text."""
    plan = Plan.objects.create(
        name=f"plan {Plan.objects.count()}",
        symbols=symbols,
        requests_per_minute=requests,
        connections=connections,
        data_types=list(data_types),
    )
    key, secret = services.create_key(name="test", plan=plan, **options)
    return key, secret.text


def quote(symbol: str = SYMBOLS[0], *, time: int = 1_700_000_000_000, price: float = 10.0, **fields: Any) -> Quote:
    return Quote(symbol=symbol, time=time, price=price, source="test", **fields)
