"""The wire protocol, version 1: what a client may ask for, and what we say. ``docs/protocol.md`` is its reference.

How both look on the wire is the business of ``streaming.parsing`` and ``streaming.codecs``.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from argus.access.principal import Limits
from argus.errors import ArgusError
from marketdata.types import DataType
from streaming.filters import Filter
from streaming.selection import Frequency

VERSION = 1
MAIN = "main"
"""The subscription that is meant where a client names none."""

# A safe integer for JavaScript's numbers, so that what is echoed equals what was sent.
RequestId = Annotated[str, Meta(max_length=128)] | Annotated[int, Meta(ge=-(2**53), le=2**53)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]


class Action(Struct, frozen=True, kw_only=True, tag_field="action", forbid_unknown_fields=True):
    """What a client asks for; ``id`` is the client's own and is echoed in the answer."""

    id: RequestId | None = None


class Auth(Action, frozen=True, kw_only=True, tag="auth"):
    """Show the key, where no header and no ticket did."""

    key: Annotated[str, Meta(min_length=1, max_length=256)]


class Subscribe(Action, frozen=True, kw_only=True, tag="subscribe"):
    """Make a named subscription, or add symbols to one."""

    subscription: Name = MAIN
    symbols: list[str]
    data_types: list[DataType] | UnsetType = UNSET
    update_frequency: Frequency | UnsetType = UNSET
    filters: Filter | UnsetType | None = UNSET
    ack: bool | UnsetType = UNSET


class Update(Action, frozen=True, kw_only=True, tag="update"):
    """Replace the given fields of a subscription while it runs."""

    subscription: Name = MAIN
    symbols: list[str] | UnsetType = UNSET
    data_types: list[DataType] | UnsetType = UNSET
    update_frequency: Frequency | UnsetType = UNSET
    filters: Filter | UnsetType | None = UNSET


class Unsubscribe(Action, frozen=True, kw_only=True, tag="unsubscribe"):
    """Take symbols out of a subscription, or end it."""

    subscription: Name = MAIN
    symbols: list[str] | UnsetType = UNSET


class Subscriptions(Action, frozen=True, kw_only=True, tag="subscriptions"):
    """Ask for the full state."""


class Ping(Action, frozen=True, kw_only=True, tag="ping"):
    """Ask for a sign of life and the server's clock."""


class Position(Struct, frozen=True, order=True):
    """A message of a feed."""

    epoch: Annotated[int, Meta(ge=0, le=2**53)]
    seq: Annotated[int, Meta(ge=0, le=2**53)]


class Positioned(Action, frozen=True, kw_only=True):
    """An action about messages. ``epoch`` and ``seq`` stand for a position of the one feed there is, or of ``feed``."""

    streams: dict[str, Position] | UnsetType = UNSET
    feed: Annotated[str, Meta(min_length=1, max_length=64)] | UnsetType = UNSET
    epoch: Annotated[int, Meta(ge=0, le=2**53)] | UnsetType = UNSET
    seq: Annotated[int, Meta(ge=0, le=2**53)] | UnsetType = UNSET


class Resume(Positioned, frozen=True, kw_only=True, tag="resume"):
    """Ask for what was missed since the positions, and take up a session's subscriptions."""

    session: Annotated[str, Meta(min_length=1, max_length=128)] | UnsetType = UNSET


class Ack(Positioned, frozen=True, kw_only=True, tag="ack"):
    """Be done with all that a subscription was sent of these feeds, up to the positions."""

    subscription: Name = MAIN


AnyAction = Auth | Subscribe | Update | Unsubscribe | Subscriptions | Ping | Resume | Ack
ACTIONS = ("auth", "subscribe", "update", "unsubscribe", "subscriptions", "ping", "resume", "ack")


class Unreadable(Struct, frozen=True):
    """A message that is no action: what is wrong with it, and its id where that could be read."""

    id: str | int | None
    error: ArgusError


class LimitsView(Struct, frozen=True, kw_only=True):
    """A plan's limits as a client sees them."""

    requests_per_minute: int
    connections: int
    symbols: int
    data_types: list[str]
    subscriptions: int
    symbols_per_message: int
    key_subscriptions: int
    messages_per_second: int


class QuotaView(Struct, frozen=True, kw_only=True):
    """What is left of the requests of this minute."""

    limit: int
    remaining: int
    reset_seconds: int


class Rejected(Struct, frozen=True, kw_only=True):
    """A symbol, or a group of symbols, that was asked for in vain."""

    symbol: str
    code: int
    name: str
    reason: str


class State(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One subscription as it is now; ``count`` is the number of symbols that its names and groups stand for."""

    symbols: list[str]
    count: int
    data_types: list[str]
    update_frequency: str
    filters: Filter | None = None
    ack: bool = False


class Message(Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """What the server says; ``id`` is that of the action which is answered."""

    id: str | int | None = None


class Connected(Message, frozen=True, kw_only=True, tag="connected"):
    """The first message on every connection."""

    connection_id: str
    protocol: int
    authenticated: bool
    streams: dict[str, dict[str, int]]
    server_time: int
    heartbeat_interval: float
    stale: bool = False
    limits: LimitsView | None = None
    quota: QuotaView | None = None
    session: str = ""
    session_seconds: int = 0


class Authenticated(Message, frozen=True, kw_only=True, tag="authenticated"):
    """The key is good."""

    limits: LimitsView
    quota: QuotaView | None = None
    session: str = ""
    session_seconds: int = 0


class Subscribed(Message, frozen=True, kw_only=True, tag="subscribed"):
    """``symbols`` are those of the request that were taken, in canonical form."""

    subscription: str
    symbols: list[str]
    rejected: list[Rejected]
    subscriptions: dict[str, State]


class Updated(Message, frozen=True, kw_only=True, tag="updated"):
    """The subscription has changed as asked."""

    subscription: str
    rejected: list[Rejected]
    subscriptions: dict[str, State]


class Unsubscribed(Message, frozen=True, kw_only=True, tag="unsubscribed"):
    """``symbols`` are those that were taken out."""

    subscription: str
    symbols: list[str]
    rejected: list[Rejected]
    subscriptions: dict[str, State]


class SubscriptionsState(Message, frozen=True, kw_only=True, tag="subscriptions"):
    """The full state."""

    subscriptions: dict[str, State]


class LimitsChanged(Message, frozen=True, kw_only=True, tag="limits"):
    """The plan was edited while connected; the subscriptions are shown with the data types that are left."""

    limits: LimitsView
    subscriptions: dict[str, State]


class Gap(Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"from_": "from"}):
    """A gap certificate: what became of a feed's messages from one to another; where that lies before the first, of none.
    ``subscription``: it is about that one alone, which has a position of its own because it is acknowledged.

    ``filled``: every event among them, and the newest of every state that they changed, has been or will be sent. ``source``
    says where from: ``journal``, ``state`` where there are no events to look for, or where the gap is not filled ``snapshot``, or
    ``none`` where a subscription's events are missing.
    """

    feed: str
    from_: Position | None
    to: Position
    filled: bool
    source: str
    reason: str = ""
    subscription: str = ""


class Resumed(Message, frozen=True, kw_only=True, tag="resumed"):
    """What was missed follows: first the events, then the states that changed. ``recovered``: every gap is filled."""

    recovered: bool
    gaps: list[Gap]
    rejected: list[Rejected]
    subscriptions: dict[str, State]


class GapMessage(Message, frozen=True, kw_only=True, tag="gap"):
    """This server has missed messages of a feed, and the events among them cannot be found."""

    gap: Gap


class Acked(Message, frozen=True, kw_only=True, tag="acked"):
    """``pending``: how many events of the subscription were sent, or will be, and are not acknowledged."""

    subscription: str
    pending: int


class Pong(Message, frozen=True, kw_only=True, tag="pong"):
    """The answer to a ping."""

    server_time: int


class Heartbeat(Message, frozen=True, kw_only=True, tag="heartbeat"):
    """Sent at the interval that ``connected`` names; ``stale`` says that the source has been silent for too long."""

    server_time: int
    streams: dict[str, dict[str, int]]
    stale: bool


class Epoch(Message, frozen=True, kw_only=True, tag="epoch"):
    """Another publisher goes on with a feed, after what ``previous`` names; without a reason nothing in between is missing."""

    feed: str
    epoch: int
    seq: int
    previous: dict[str, int]
    recovered: bool
    reason: str = ""


class Goodbye(Message, frozen=True, kw_only=True, tag="goodbye"):
    """The server is about to close; come back after ``reconnect_after_ms``."""

    reason: str
    reconnect_after_ms: int


class Finished(Message, frozen=True, kw_only=True, tag="finished"):
    """A replay has come to the end of its recording; ``time`` is the market's time of its last message."""

    time: int


class Failure(Struct, frozen=True):
    """An ``error`` message: an action was refused, or the connection ends."""

    error: ArgusError
    id: str | int | None = None


def limits_view(limits: Limits, *, subscriptions: int, symbols_per_message: int) -> LimitsView:
    """A plan's limits, with those that hold for every connection."""
    return LimitsView(
        requests_per_minute=limits.requests_per_minute,
        connections=limits.connections,
        symbols=limits.symbols,
        data_types=sorted(limits.data_types),
        subscriptions=subscriptions,
        symbols_per_message=symbols_per_message,
        key_subscriptions=limits.subscriptions,
        messages_per_second=limits.messages_per_second,
    )


def quota_view(quota: Any) -> QuotaView:
    """What the limiter said, as a client sees it."""
    return QuotaView(limit=quota.limit, remaining=quota.remaining, reset_seconds=round(quota.reset_seconds))
