"""One Massive client's session without its I/O: Massive's messages onto our subscriptions, our answers as its statuses.

Each of Massive's channels is one of our subscriptions, under the channel's name. Minute bars are events, which no frequency
holds back, while the forming bar, which Massive does not have, is asked for as seldom as can be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from django.utils.translation import override
from msgspec import Struct

from argus.access.principal import Principal
from argus.errors import BAD_JSON, INVALID_ARGUMENT, NOT_AUTHENTICATED, NOT_TEXT, UNKNOWN_ACTION, ArgusError
from marketdata.types import DataType
from marketdata.universe import EVERYTHING
from streaming import subscriptions
from streaming.dialects.massive_codec import Status, Told, told
from streaming.protocol import AnyAction, Auth, Subscribe, Unreadable, Unsubscribe
from streaming.selection import Frequency
from streaming.session import Effect, Reply, Session
from streaming.subscriptions import Book

CHANNELS: Final[Mapping[str, tuple[DataType, Frequency]]] = {
    "T": (DataType.TRADE, Frequency.REALTIME),
    "Q": (DataType.QUOTE, Frequency.REALTIME),
    "AM": (DataType.KLINE_1M, Frequency.M1),
}
ABSENT: Final[Mapping[str, str]] = {
    "A": "there are no aggregates of a second; AM has those of a minute",
    "LULD": "limit up and limit down are not told here",
    "FMV": "there is no fair market value here",
    "NOI": "there are no imbalances here",
    "LV": "there is no launchpad here",
}
"""Massive's other channels of stocks, and why they cannot be had."""
SHOWN: Final = 5
"""Parameters that are named in a refusal of many."""


class Change(Struct, frozen=True, kw_only=True):
    """Subscribe to parameters, or unsubscribe from them."""

    id: None = None
    add: bool
    parameters: tuple[str, ...]


class _Message(Struct):
    action: str
    params: str = ""


_decode = msgspec.json.Decoder(_Message).decode


class MassiveSession(Session):
    """The state of one connection."""

    keeps = False

    def read(self, data: str | bytes) -> AnyAction | Change | Unreadable:  # type: ignore[override]
        """The action in a message."""
        if isinstance(data, bytes):
            return Unreadable(None, ArgusError(NOT_TEXT))
        try:
            return _action(_decode(data))
        except ArgusError as error:
            return Unreadable(None, error)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            detail = f'The message is not {{"action": ..., "params": ...}}, both texts: {str(error)[:200]}.'
            return Unreadable(None, ArgusError(BAD_JSON, detail))

    def handle(self, action: AnyAction | Change | Unreadable) -> list[Effect]:
        """What an action brings about."""
        if isinstance(action, Auth) and self.principal is not None:
            # The handshake's header has shown a key; the client sends one all the same, and waits for this answer.
            return [Reply(told("auth_success", "authenticated already"))]
        if not isinstance(action, Change):
            return super().handle(action)
        if self.principal is None:
            return self.reject(ArgusError(NOT_AUTHENTICATED, "Send auth first."), id=None)
        return self._change(action, self.principal)

    def connected(self, principal: Principal | None, **about: Any) -> list[Effect]:
        """The welcome."""
        super().connected(principal, **about)
        return [Reply(told("connected", "Connected Successfully"))]

    def accept(self, principal: Principal, **about: Any) -> list[Effect]:
        """The key of an ``Authenticate`` is good."""
        super().accept(principal, **about)
        return [Reply(told("auth_success", "authenticated"))]

    def _change(self, action: Change, principal: Principal) -> list[Effect]:
        """Each channel as far as it can be had, and a word about each parameter, in the order asked."""
        statuses, by_channel = _sorted(action.parameters)
        book = self.book
        for channel, names in by_channel.items():
            try:
                if action.add:
                    book, rejected = self._add(book, channel, names, principal)
                else:
                    book, rejected = self._remove(book, channel, names)
            except ArgusError as error:
                statuses |= _refused(channel, names, error)
            else:
                done = "subscribed to" if action.add else "unsubscribed to"
                statuses |= {
                    f"{channel}.{name}": _failed(f"{channel}.{name[:80]}: {rejected[name[:80]]}")
                    if name[:80] in rejected
                    else Status(status="success", message=f"{done}: {channel}.{name}")
                    for name in names
                }
        reply = Reply(Told(statuses=tuple(status for status in statuses.values() if status is not None)))
        if book is self.book:
            return [reply]
        self.book = book
        return [reply, self._cover(principal)]

    def _add(self, book: Book, channel: str, names: list[str], principal: Principal) -> tuple[Book, dict[str, str]]:
        data_type, frequency = CHANNELS[channel]
        wanted = Subscribe(subscription=channel, symbols=names, data_types=[data_type], update_frequency=frequency)
        change = subscriptions.subscribe(book, wanted, principal, self._resolve)
        return change.book, {item.symbol: item.reason for item in change.rejected}

    def _remove(self, book: Book, channel: str, names: list[str]) -> tuple[Book, dict[str, str]]:
        """``*`` takes itself out where it was asked for, else all of the channel: so Massive's own clients mean it."""
        subscription = book.get(channel)
        if EVERYTHING in names and subscription is not None and not subscription.everything:
            return subscriptions.unsubscribe(book, Unsubscribe(subscription=channel), self._resolve).book, {}
        change = subscriptions.unsubscribe(book, Unsubscribe(subscription=channel, symbols=names), self._resolve)
        return change.book, {item.symbol: item.reason for item in change.rejected}


def _action(message: _Message) -> AnyAction | Change:
    """Raises ``ArgusError``."""
    if message.action == "auth":
        return Auth(key=message.params.strip())
    if message.action not in ("subscribe", "unsubscribe"):
        raise ArgusError(UNKNOWN_ACTION, f"There is no action {message.action[:40]!r}; there is auth, subscribe, unsubscribe.")
    parameters = tuple(dict.fromkeys(word for part in message.params.split(",") if (word := part.strip())))
    if not parameters:
        raise ArgusError(INVALID_ARGUMENT, "params names nothing: write T.600519.SH,Q.*", parameter="params")
    return Change(add=message.action == "subscribe", parameters=parameters)


def _sorted(parameters: Iterable[str]) -> tuple[dict[str, Status | None], dict[str, list[str]]]:
    """The statuses of the parameters, in order, as far as they are known already, and the names of each channel."""
    statuses: dict[str, Status | None] = {}
    by_channel: dict[str, list[str]] = {}
    for parameter in parameters:
        # A channel has no dot, our symbols have one.
        channel, _, name = (part.strip() for part in parameter.partition("."))
        plain = f"{channel}.{name}"
        if channel not in CHANNELS:
            why = ABSENT.get(channel, f"there is no channel {channel[:20]!r}; there is {', '.join(CHANNELS)}")
            statuses[plain] = _failed(f"{parameter[:80]}: {why}")
        elif not name:
            statuses[plain] = _failed(f"{parameter[:80]}: write {channel}.600519.SH or {channel}.*")
        elif plain not in statuses:
            statuses[plain] = None
            by_channel.setdefault(channel, []).append(name)
    return statuses, by_channel


def _refused(channel: str, names: list[str], error: ArgusError) -> dict[str, Status]:
    """What a channel's refusal is to its parameters: each one's own reason where there is one, else one word for all of them."""
    rejected = {item.symbol: item.reason for item in error.params.get("rejected", ())}
    found = {
        f"{channel}.{name}": _failed(f"{channel}.{name[:80]}: {rejected[name[:80]]}") for name in names if name[:80] in rejected
    }
    rest = [f"{channel}.{name}" for name in names if name[:80] not in rejected]
    if rest:
        with override("en"):
            message = error.message
        more = f" and {len(rest) - SHOWN} more" if len(rest) > SHOWN else ""
        found[rest[0]] = _failed(f"{', '.join(word[:80] for word in rest[:SHOWN])}{more}: {message}")
    return found


def _failed(message: str) -> Status:
    return Status(status="error", message=message)
