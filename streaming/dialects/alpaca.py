"""One Alpaca client's session without its I/O: Alpaca's messages onto our subscriptions, our answers in Alpaca's words.

Each of Alpaca's channels is one of our subscriptions, under the channel's name. Minute bars are events, which no frequency
holds back, while the forming bar, which Alpaca does not have, is asked for as seldom as can be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from argus.access.principal import Principal
from argus.errors import (
    BAD_JSON,
    FORBIDDEN,
    INVALID_ARGUMENT,
    NOT_AUTHENTICATED,
    NOT_SUPPORTED,
    UNKNOWN_ACTION,
    ArgusError,
)
from marketdata.compat.alpaca import FEEDS
from marketdata.compat.alpaca_key import key_among
from marketdata.types import DataType
from streaming import subscriptions
from streaming.dialects.alpaca_codec import Told
from streaming.protocol import AnyAction, Auth, Failure, Rejected, Subscribe, Unreadable, Unsubscribe
from streaming.selection import Frequency
from streaming.session import Effect, Reply, Session
from streaming.subscriptions import Book

CHANNELS: Final[Mapping[str, tuple[DataType, Frequency]]] = {
    "trades": (DataType.TRADE, Frequency.REALTIME),
    "quotes": (DataType.QUOTE, Frequency.REALTIME),
    "bars": (DataType.KLINE_1M, Frequency.M1),
    "updatedBars": (DataType.KLINE_1M, Frequency.M1),
    "dailyBars": (DataType.KLINE_1D, Frequency.M1),
    "statuses": (DataType.STATUS, Frequency.REALTIME),
}
WITH_TRADES: Final = ("corrections", "cancelErrors")
"""Channels that come with ``trades``, and never have anything to say: China's exchanges do not take trades back."""
ABSENT: Final = "lulds"
"""Shown in every answer, as Alpaca does; there is none."""
LONGEST_KEY: Final = 256


class Change(Struct, frozen=True, kw_only=True):
    """Subscribe to symbols of channels, or unsubscribe from them."""

    id: None = None
    add: bool
    channels: Mapping[str, list[str]]


class AlpacaSession(Session):
    """The state of one connection. ``feed`` is the last part of its address."""

    keeps = False
    feed: str = FEEDS[0]

    def read(self, data: str | bytes) -> AnyAction | Change | Unreadable:  # type: ignore[override]
        """The action in a message: text is JSON, and a binary message MessagePack, whatever the handshake said."""
        try:
            decode: Any = msgspec.msgpack.decode if isinstance(data, bytes) else msgspec.json.decode
            return _action(decode(data, type=dict[str, Any]))
        except ArgusError as error:
            return Unreadable(None, error)
        except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError) as error:
            return Unreadable(None, ArgusError(BAD_JSON, f"The message cannot be read: {str(error)[:200]}."))

    def handle(self, action: AnyAction | Change | Unreadable) -> list[Effect]:
        """What an action brings about."""
        if not isinstance(action, Change):
            return super().handle(action)
        try:
            if self.principal is None:
                raise ArgusError(NOT_AUTHENTICATED, "Send auth first.")
            return self._add(action, self.principal) if action.add else self._remove(action, self.principal)
        except ArgusError as error:
            return self.reject(error, id=None)

    def connected(self, principal: Principal | None, **about: Any) -> list[Effect]:
        """The welcome, and where the handshake has shown a key, that it is good."""
        super().connected(principal, **about)
        welcome: list[Effect] = [_success("connected")]
        return welcome if principal is None else welcome + self._authenticated()

    def accept(self, principal: Principal, **about: Any) -> list[Effect]:
        """The key of an ``Authenticate`` is good."""
        super().accept(principal, **about)
        return self._authenticated()

    def _authenticated(self) -> list[Effect]:
        if self.feed in FEEDS:
            return [_success("authenticated")]
        self.principal = None
        detail = f"There is no feed {self.feed[:40]!r} here; there is {' and '.join(FEEDS)}, which are the same."
        return self.refuse(ArgusError(FORBIDDEN, detail), id=None)

    def _add(self, action: Change, principal: Principal) -> list[Effect]:
        """All channels, or none where a limit stands against it. What is no symbol is told beside the rest's answer."""
        book = self.book
        rejected: list[Rejected] = []
        refusal: ArgusError | None = None
        for channel, symbols in action.channels.items():
            data_type, frequency = CHANNELS[channel]
            wanted = Subscribe(subscription=channel, symbols=symbols, data_types=[data_type], update_frequency=frequency)
            try:
                change = subscriptions.subscribe(book, wanted, principal, self._resolve)
            except ArgusError as error:
                if "rejected" not in error.params:
                    raise
                refusal = refusal or error
                rejected += error.params["rejected"]
            else:
                book = change.book
                rejected += change.rejected
        if refusal is not None and book is self.book:
            raise refusal
        effects = self._changed(book, principal)
        return [Reply(Failure(_of_rejected(rejected))), *effects] if rejected else effects

    def _remove(self, action: Change, principal: Principal) -> list[Effect]:
        """What is not subscribed need not be removed."""
        book = self.book
        for channel, symbols in action.channels.items():
            if channel not in book:
                continue
            try:
                book = subscriptions.unsubscribe(book, Unsubscribe(subscription=channel, symbols=symbols), self._resolve).book
            except ArgusError as error:
                if "rejected" not in error.params:
                    raise
        return self._changed(book, principal)

    def _changed(self, book: Book, principal: Principal) -> list[Effect]:
        self.book = book
        state = subscriptions.state(book, principal)
        told: dict[str, Any] = {channel: state[channel].symbols if channel in state else [] for channel in CHANNELS}
        told |= {ABSENT: [], **dict.fromkeys(WITH_TRADES, told["trades"])}
        return [Reply(Told(words={"T": "subscription", **told})), self._cover(principal)]


def _success(word: str) -> Reply:
    return Reply(Told(words={"T": "success", "msg": word}))


def _action(message: dict[str, Any]) -> AnyAction | Change:
    """Raises ``ArgusError``."""
    name = message.pop("action", None)
    if name == "auth":
        shown = [message.get(field) for field in ("key", "secret")]
        words = [word for word in shown if isinstance(word, str) and len(word) <= LONGEST_KEY]
        key = key_among(*words)
        if key is None or len(words) < sum(word is not None for word in shown):
            raise ArgusError(INVALID_ARGUMENT, "Send an Argus key as secret or as key: texts, both.", parameter="secret")
        return Auth(key=key)
    if name not in ("subscribe", "unsubscribe"):
        raise ArgusError(UNKNOWN_ACTION, "The action is auth, subscribe or unsubscribe.")
    channels = {}
    for channel, symbols in message.items():
        if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
            raise ArgusError(INVALID_ARGUMENT, f"{channel[:40]!r} is not a list of symbols.", parameter=channel[:40])
        if symbols and channel not in CHANNELS:
            detail = f"There is no channel {channel[:40]!r} here; there is {', '.join(CHANNELS)}."
            raise ArgusError(NOT_SUPPORTED, detail, parameter=channel[:40])
        if symbols:
            channels[channel] = symbols
    return Change(add=name == "subscribe", channels=channels)


def _of_rejected(rejected: list[Rejected]) -> ArgusError:
    first = rejected[0]
    more = f" and {len(rejected) - 1} more" if len(rejected) > 1 else ""
    return ArgusError(INVALID_ARGUMENT, f"{first.symbol!r}: {first.reason}{more}; the rest is subscribed.")
