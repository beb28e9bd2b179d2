"""A feed with its journal, and a client that comes back."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any, NamedTuple

import msgspec

from marketdata import events, journal
from marketdata.batch import Term
from marketdata.events import Event
from marketdata.journal import Entry
from marketdata.types import DataType
from streaming import saved
from tests.streaming.server import Client, Feed, Server, client, until


def trade(symbol: str, index: int) -> Event:
    body = {"type": "trade", "symbol": symbol, "time": 1_700_000_000_000 + index, "index": index, "price": 10.0, "volume": 100}
    return Event(DataType.TRADE, symbol, msgspec.json.encode(body))


class Source(Feed):
    """A feed that writes its journal, as the publisher does."""

    async def tell(
        self, *quotes: Any, happened: Iterable[Event] = (), term: Term | None = None, heard: bool = True, kept: bool = True
    ) -> None:
        """One message, which no hub hears, or the journal does not keep, where the test says so."""
        seq = self.seq + 1
        found = events.numbered(happened, b',"seq":%d}' % seq)
        if kept:
            journal.journal().append("main", Entry(self.epoch, seq, found, term))
        if heard:
            await self.publish(*quotes, events=found, term=term)
        else:
            self.seq = seq


class Left(NamedTuple):
    """What a client remembers of its last connection."""

    token: str
    streams: dict[str, dict[str, int]]


class Returning:
    """A client that reads its data and remembers how far it has come."""

    def __init__(self, one: Client, token: str) -> None:
        self.client = one
        self.token = token
        self.streams: dict[str, dict[str, int]] = {}
        self.messages: list[dict[str, Any]] = []
        self.pieces: list[dict[str, Any]] = []

    async def read(self, fragments: int) -> list[dict[str, Any]]:
        """The next so many fragments."""
        found: list[dict[str, Any]] = []
        while len(found) < fragments:
            message = await self.client.receive("data")
            self.messages.append(message)
            found += message["data"]
            if "more" not in message:
                self.streams[message["feed"]] = {"epoch": message["epoch"], "seq": message["seq"]}
        self.pieces += found
        return found

    @property
    def left(self) -> Left:
        return Left(self.token, dict(self.streams))


@contextlib.asynccontextmanager
async def first(server: Server, key: str, *symbols: str, **options: Any) -> AsyncIterator[Returning]:
    """A client that subscribes."""
    async with client(server, key) as one:
        token = (await one.receive("connected"))["session"]
        answer = await one.ask("subscribe", symbols=symbols, **options)
        assert answer["type"] == "subscribed", answer
        yield Returning(one, token)
    await until(lambda: not server.connections, "the connection to end")


@contextlib.asynccontextmanager
async def again(server: Server, left: Left, key: str | None = None) -> AsyncIterator[tuple[Returning, dict[str, Any]]]:
    """The same client on a new connection, with one message; and the answer to it."""
    await until(lambda: saved.cache.get(saved._name(left.token)), "the session to be kept")
    async with client(server, key) as one:
        token = (await one.receive("connected")).get("session")
        await one.send("resume", id=1, session=left.token, streams=left.streams)
        if key is None:
            token = (await one.receive("authenticated"))["session"]
        answer = await one.receive()
        yield Returning(one, token or ""), answer
