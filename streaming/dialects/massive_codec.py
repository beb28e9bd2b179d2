"""How Massive's stream writes: JSON arrays of objects with an ``ev``; whatever is not data is one of ``status``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from django.utils.translation import override
from msgspec import Struct

from argus import errors
from argus.errors import ArgusError
from marketdata.compat import massive
from marketdata.types import DataType
from streaming.dialects.json_arrays import JsonArrays
from streaming.frame import Frame
from streaming.protocol import Failure, Finished, Goodbye, Message

STATUSES: Final[Mapping[str, str]] = {
    problem.name: status
    for status, problems in {
        "auth_failed": (
            errors.NOT_AUTHENTICATED,
            errors.KEY_INVALID,
            errors.KEY_EXPIRED,
            errors.KEY_REVOKED,
            errors.KEY_IN_URL,
            errors.TICKET_INVALID,
            errors.FORBIDDEN,
            errors.ADDRESS_NOT_ALLOWED,
        ),
        "auth_timeout": (errors.AUTH_TIMEOUT,),
        "max_connections": (errors.CONNECTION_LIMIT, errors.ADDRESS_LIMIT, errors.REPLAY_LIMIT),
        "slow_consumer": (errors.SLOW_CLIENT, errors.EVENT_OVERFLOW),
        "force_disconnect": (errors.DISCONNECTED, errors.OVERLOADED),
    }.items()
    for problem in problems
}
"""Our error's name -> Massive's status; whatever else may happen is ``error``."""


class Status(Struct, frozen=True, kw_only=True, tag_field="ev", tag="status"):
    """A word about the connection or about one parameter of a request."""

    status: str
    message: str


class Told(Message, frozen=True, kw_only=True, tag="massive"):
    """Statuses that travel in one array."""

    statuses: tuple[Status, ...]


def told(status: str, message: str) -> Told:
    """One status."""
    return Told(statuses=(Status(status=status, message=message),))


def refusal(error: ArgusError) -> Status:
    """What an error is here."""
    with override("en"):
        return Status(status=STATUSES.get(error.problem.name, "error"), message=error.message)


_EVENTS: Final[Mapping[DataType, Callable[[bytes], bytes | None]]] = {
    DataType.QUOTE: massive.quote_event,
    DataType.TRADE: massive.trade_event,
    DataType.KLINE_1M: massive.minute_event,
}
"""Data type -> how one of our JSON objects is told; others are not asked for here."""


class MassiveJson(JsonArrays):
    """Text."""

    name = "massive.json"

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder().encode

    def encode(self, message: Message | Failure) -> Frame | None:
        """See ``Codec``. Heartbeats, epochs and limits have no words here: Massive's clients take silence for health."""
        statuses: tuple[Status, ...]
        if isinstance(message, Failure):
            statuses = (refusal(message.error),)
        elif isinstance(message, Told):
            statuses = message.statuses
        elif isinstance(message, Goodbye):
            statuses = (Status(status="force_disconnect", message=f"{message.reason}: reconnect"),)
        elif isinstance(message, Finished):
            statuses = (Status(status="success", message="the replay has come to its end"),)
        else:
            return None
        return Frame(self._encode(statuses))

    def fragment(self, data_type: DataType, fragment: bytes) -> bytes | None:
        """See ``Codec``."""
        return _EVENTS[data_type](fragment)


JSON: Final = MassiveJson()
