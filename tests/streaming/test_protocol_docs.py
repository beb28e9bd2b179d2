"""The protocol's reference shows what the protocol does: its examples are read and written by the code itself."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from marketdata import events
from marketdata.events import Event
from marketdata.types import KLINES, DataType, Trade
from streaming import acknowledged, protocol
from streaming.codecs import JSON
from streaming.outbox import EVENT_LIMIT
from streaming.parsing import parse
from streaming.protocol import ACTIONS, Message, Unreadable
from streaming.subscriptions import MAX_NAMED, MAX_REJECTED, MAX_SUBSCRIPTIONS, MAX_SYMBOLS_PER_MESSAGE
from streaming.tickets import SECONDS
from tests.hub.market import bar, changes
from tests.streaming.server import SYMBOLS, Server, quote, subscriber

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]
REQUESTS = [example for example in EXAMPLES if "action" in example]
MESSAGES = [example for example in EXAMPLES if "type" in example]
# Dialects have words of their own.
TYPES = {cls.__struct_config__.tag: cls for cls in Message.__subclasses__() if cls.__module__ == protocol.__name__}


def named(value: dict[str, Any]) -> str:
    return str(value.get("action") or value.get("type"))


@pytest.mark.parametrize("request_", REQUESTS, ids=named)
def test_every_example_of_a_request_is_one(request_: dict[str, Any]) -> None:
    action = parse(json.dumps(request_))
    assert not isinstance(action, Unreadable), action.error


@pytest.mark.parametrize("message", [m for m in MESSAGES if m["type"] not in ("data", "error")], ids=named)
def test_every_example_of_a_message_is_what_the_service_would_write(message: dict[str, Any]) -> None:
    cls = TYPES[message["type"]]
    read = msgspec.convert(message, cls)
    assert json.loads(JSON.text(read)) == message


def test_every_request_and_every_message_has_an_example() -> None:
    assert {named(request) for request in REQUESTS} == set(ACTIONS)
    assert {named(message) for message in MESSAGES} == {*TYPES, "data", "error"}


def test_the_numbers_are_those_of_the_code() -> None:
    for number in (MAX_REJECTED, MAX_NAMED, EVENT_LIMIT, acknowledged.MOST):
        assert f"{number:,}" in TEXT
    assert f'"subscriptions": {MAX_SUBSCRIPTIONS}, "symbols_per_message": {MAX_SYMBOLS_PER_MESSAGE}' in TEXT
    assert f'"expires_in":{SECONDS}' in TEXT


async def test_every_field_of_every_data_type_is_documented(server: Server, key: str) -> None:
    async with subscriber(server, key, SYMBOLS[0], data_types=[*DataType]) as one:
        value = quote()
        trade = Trade(symbol=value.symbol, time=value.time, index=1, price=10.0, volume=100, source="test")
        trades = [Event(DataType.TRADE, value.symbol, msgspec.json.encode(trade))]
        happened = events.numbered(trades, b',"seq":1}') | changes([value], 1)
        await server.feed.publish(value, bars=[bar(SYMBOLS[0], 1)], events=happened)
        sent: dict[str, set[str]] = {}
        while len(sent) < len(DataType) - len(KLINES) + 1:
            sent |= {fragment["type"]: set(fragment) for fragment in (await one.receive("data"))["data"]}
    for data_type, fields in sent.items():
        section = TEXT.split(f"\n### {data_type}\n", 1)[1].split("\n#", 1)[0]
        assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == fields, data_type
