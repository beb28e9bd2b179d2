"""Coming back to a process that has not been there for long: it waits until it knows as much as the client does."""

from __future__ import annotations

import asyncio

import pytest

from argus.errors import NOT_READY, ArgusError
from marketdata.universe import Universe
from streaming import runtime
from streaming.consumers import resolve
from streaming.protocol import Position
from streaming.saved import Saved
from streaming.selection import Frequency
from streaming.session import Session
from tests.streaming.principals import principal
from tests.streaming.returning import Left, Source, again, first, trade
from tests.streaming.server import SYMBOLS, UNIVERSE, Server, quote

A = SYMBOLS[0]


async def test_nothing_is_answered_before_this_process_has_heard_what_the_client_has(
    server: Server, source: Source, key: str
) -> None:
    async with first(server, key, A, data_types=["trade", "quote"]) as one:
        await source.tell(quote(A, price=1), happened=[trade(A, 1)])
        await one.read(2)
    # The process that the client was on had heard the next message, too.
    left = Left(one.token, {"main": {"epoch": 1, "seq": 2}})
    later = asyncio.create_task(_tell_later(source))
    async with again(server, left, key) as (back, answer):
        (gap,) = answer["gaps"]
        assert answer["recovered"] is True and gap["to"]["seq"] >= 2
        found = await back.read(2)
        assert [(piece["type"], piece["seq"]) for piece in found] == [("trade", 3), ("quote", 3)]
    await later


async def _tell_later(source: Source) -> None:
    await asyncio.sleep(0.3)
    await source.tell(quote(A, price=2), happened=[trade(A, 2)])
    await source.tell(quote(A, price=3), happened=[trade(A, 3)])


async def test_a_feed_of_which_nothing_has_come_is_said_to_be_unknown(
    server: Server, source: Source, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "CATCH_UP", 0.2)
    async with first(server, key, A, data_types=["trade"]) as one:
        pass
    async with again(server, Left(one.token, {"gone": {"epoch": 3, "seq": 7}}), key) as (_, answer):
        assert answer["recovered"] is False
        (gap,) = answer["gaps"]
        assert (gap["feed"], gap["filled"], gap["reason"]) == ("gone", False, "unknown_feed")


def test_a_universe_that_is_not_known_yet_takes_no_subscription_away() -> None:
    known = Universe()
    session = Session(lambda words: resolve(words, known), lambda: 0)
    session.principal = principal()
    at = {"main": Position(1, 1)}
    saved = {
        name: Saved(symbols=[word], data_types=["quote"], update_frequency=Frequency.REALTIME, since=at)
        for name, word in (("one", A), ("few", "sector:few"))
    }
    with pytest.raises(ArgusError) as refused:
        session.restore(saved)
    assert refused.value.problem is NOT_READY and session.book == {}
    known = UNIVERSE
    assert session.restore(saved) == []
    assert session.book.keys() == {"one", "few"}
