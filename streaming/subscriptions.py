"""A connection's named subscriptions: an immutable book, which a request turns into the next one or leaves as it is.

Pure. Every function either returns a ``Change`` with the new book or raises ``ArgusError``; nothing is changed in place,
so that a refused request cannot leave anything behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, reduce
from operator import xor
from typing import Protocol
from zlib import crc32

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from argus.access.check import require_data_types, require_symbols
from argus.access.principal import Principal
from argus.errors import (
    AMBIGUOUS_SYMBOL,
    BY_NAME,
    INVALID_ARGUMENT,
    INVALID_SYMBOL,
    SUBSCRIPTION_LIMIT,
    SYMBOL_LIMIT,
    UNKNOWN_SUBSCRIPTION,
    ArgusError,
    Problem,
)
from marketdata.symbols import SymbolError, parse
from marketdata.types import EVENTS, DataType
from marketdata.universe import EVERYTHING, Resolution
from streaming.filters import FILTERED, Filter
from streaming.protocol import Position, Rejected, State, Subscribe, Unsubscribe, Update
from streaming.saved import Saved
from streaming.selection import Frequency, Selection

MAX_SUBSCRIPTIONS = 64
"""Named subscriptions on one connection."""
MAX_SYMBOLS_PER_MESSAGE = 6_000
"""Symbols named in one message: more than the A-share market has. Whoever wants more writes ``*`` or several messages."""
MAX_NAMED = 20_000
"""Symbols and groups named by all subscriptions of a connection together: every answer shows them all."""
MAX_REJECTED = 1_000
"""Symbols of one message that may be wrong before the rest is not looked at any more: each costs the service time."""
CHUNK = 500


class Resolve(Protocol):
    """What names and groups of symbols stand for at present (``marketdata.universe.resolve`` on the current universe)."""

    def __call__(self, words: Sequence[str], /) -> Resolution: ...


class Subscription(Struct, frozen=True, kw_only=True):
    """One named subscription: symbols by name, and groups with the members that they have at present."""

    names: frozenset[str]
    groups: tuple[str, ...] = ()
    members: frozenset[str] = frozenset()
    data_types: frozenset[DataType]
    frequency: Frequency
    filter: Filter | None = None
    ack: bool = False

    @property
    def everything(self) -> bool:
        """Whether it takes every symbol there is, now and later."""
        return EVERYTHING in self.groups

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols that names and groups stand for at present."""
        if not self.names or not self.members:
            return self.names or self.members
        return self.names | self.members


Book = Mapping[str, Subscription]


class Change(Struct, frozen=True, kw_only=True):
    """The next book, the symbols and groups that were taken in (or out), and those that were not."""

    book: Book
    symbols: list[str]
    rejected: list[Rejected]


def subscribe(book: Book, action: Subscribe, principal: Principal, resolve: Resolve) -> Change:
    """Make a subscription, or add symbols to the one of that name."""
    old = book.get(action.subscription)
    if old is None:
        if len(book) >= MAX_SUBSCRIPTIONS:
            detail = f"A connection may have {MAX_SUBSCRIPTIONS} subscriptions; add the symbols to one of them."
            raise ArgusError(SUBSCRIPTION_LIMIT, detail, limit=MAX_SUBSCRIPTIONS)
        data_types = _data_types([DataType.QUOTE] if isinstance(action.data_types, UnsetType) else action.data_types, principal)
        frequency = Frequency.REALTIME if isinstance(action.update_frequency, UnsetType) else action.update_frequency
        filter = None if isinstance(action.filters, UnsetType) else action.filters
        _require_filtered_types(filter, data_types)
        ack = action.ack is True
        _require_events(data_types, ack=ack)
        old = Subscription(names=frozenset(), data_types=data_types, frequency=frequency, filter=filter, ack=ack)
    else:
        _refuse_other_terms(old, action)
    added = _select(action.symbols, resolve)
    groups = tuple(dict.fromkeys(old.groups + added.groups))
    new = replace(old, names=old.names | added.names, groups=groups, members=old.members | added.members)
    return _change(book, action.subscription, new, principal, added)


def update(book: Book, action: Update, principal: Principal, resolve: Resolve) -> Change:
    """Replace what the request gives: symbols, data types, frequency, filter."""
    old = _find(book, action.subscription)
    if all(given is UNSET for given in (action.symbols, action.data_types, action.update_frequency, action.filters)):
        raise ArgusError(INVALID_ARGUMENT, "Give at least one of symbols, data_types, update_frequency and filters.")
    frequency = old.frequency if isinstance(action.update_frequency, UnsetType) else action.update_frequency
    data_types = old.data_types if isinstance(action.data_types, UnsetType) else _data_types(action.data_types, principal)
    filter = old.filter if isinstance(action.filters, UnsetType) else action.filters
    _require_filtered_types(filter, data_types)
    _require_events(data_types, ack=old.ack)
    new = replace(old, data_types=data_types, frequency=frequency, filter=filter)
    chosen = _Chosen()
    if not isinstance(action.symbols, UnsetType):
        chosen = _select(action.symbols, resolve)
        new = replace(new, names=chosen.names, groups=chosen.groups, members=chosen.members)
    return _change(book, action.subscription, new, principal, chosen)


def unsubscribe(book: Book, action: Unsubscribe, resolve: Resolve) -> Change:
    """Take the named symbols and groups out of a subscription; end it where none are named or none are left."""
    old = _find(book, action.subscription)
    rest = {name: subscription for name, subscription in book.items() if name != action.subscription}
    if isinstance(action.symbols, UnsetType):
        return Change(book=rest, symbols=_words(old), rejected=[])
    words = _bounded(action.symbols)
    groups = [word for word in words if word in old.groups]
    names: list[str] = []
    rejections = _Rejections()
    for word in words:
        if word in old.names:
            names.append(word)
        elif word not in old.groups and (symbol := _named(word, old, resolve, rejections)):
            names.append(symbol)
    if not names and not groups:
        raise rejections.error()
    left = tuple(group for group in old.groups if group not in groups)
    members = (frozenset(resolve(left).symbols) if left else frozenset()) if groups else old.members
    new = replace(old, names=old.names.difference(names), groups=left, members=members)
    if new.names or new.groups:
        rest = {**book, action.subscription: new}
    return Change(book=rest, symbols=[*dict.fromkeys(names), *groups], rejected=rejections.items)


def refresh(book: Book, resolve: Resolve) -> Book:
    """The book after the universe has changed: groups have the members of today, whatever a plan's limit says."""
    return {
        name: replace(item, members=frozenset(resolve(item.groups).symbols)) if item.groups else item
        for name, item in book.items()
    }


def selections(book: Book, principal: Principal) -> dict[str, Selection]:
    """What the hub is to serve: data types that the plan no longer includes are left out."""
    chosen = {}
    for name, item in book.items():
        data_types = frozenset(data_type for data_type in item.data_types if data_type in principal.limits.data_types)
        if data_types:
            symbols = None if item.everything else item.symbols
            chosen[name] = Selection(
                symbols=symbols, data_types=data_types, frequency=item.frequency, filter=item.filter, ack=item.ack
            )
    return chosen


def state(book: Book, principal: Principal) -> dict[str, State]:
    """The full state, as a client is shown it."""
    return {
        name: State(
            symbols=_words(item),
            count=len(item.symbols),
            data_types=[data_type for data_type in DataType if data_type in item.data_types & principal.limits.data_types],
            update_frequency=item.frequency,
            filters=item.filter,
            ack=item.ack,
        )
        for name, item in book.items()
    }


def saved(
    book: Book,
    before: Mapping[str, Saved],
    at: dict[str, Position],
    acked: Mapping[str, Mapping[str, tuple[int, int]]],
    allowed: frozenset[str],
) -> dict[str, Saved]:
    """What makes this book again. ``before``: what was saved until now, ``at``: how far each feed has come, ``acked``: how far
    each subscription was acknowledged, ``allowed``: the plan's data types."""
    result = {}
    for name, item in book.items():
        old = before.get(name)
        new = Saved(
            symbols=_words(item),
            data_types=sorted(item.data_types),
            update_frequency=item.frequency,
            filters=item.filter,
            ack=item.ack,
            acked={feed: Position(*position) for feed, position in acked.get(name, {}).items()},
            since=at if old is None else old.since,
            covers=_sum_of(item.data_types & allowed) ^ (0 if item.everything or not item.groups else _sum_of(item.symbols)),
        )
        result[name] = new if old is None or old == replace(new, acked=old.acked) else replace(new, since=at)
    return result


@lru_cache(64)
def _sum_of(names: frozenset[str]) -> int:
    """The same for the same names in all processes."""
    return reduce(xor, (crc32(name.encode()) for name in names), 0)


def count(book: Book) -> int:
    """How many symbols all subscriptions together stand for."""
    return len(frozenset[str]().union(*(item.symbols for item in book.values())))


class _Chosen(Struct, frozen=True, kw_only=True):
    names: frozenset[str] = frozenset()
    groups: tuple[str, ...] = ()
    members: frozenset[str] = frozenset()
    order: tuple[str, ...] = ()
    rejected: tuple[Rejected, ...] = ()


def _select(words: list[str], resolve: Resolve) -> _Chosen:
    """What a request's words stand for; refused where none of them stands for anything."""
    words = _bounded(words)
    rejections = _Rejections()
    names: dict[str, None] = {}
    named = [word for word in words if not _is_group(word)]
    for start in range(0, len(named), CHUNK):
        resolution = resolve(named[start : start + CHUNK])
        names |= dict.fromkeys(resolution.symbols)
        rejections.extend(resolution)
    groups = [word for word in words if _is_group(word)]
    by_group = resolve(groups)
    rejections.extend(by_group)
    refused = {item.word for item in by_group.rejected}
    taken = tuple(group for group in groups if group not in refused)
    if not names and not taken:
        raise rejections.error()
    return _Chosen(
        names=frozenset(names),
        groups=taken,
        members=frozenset(by_group.symbols),
        order=(*names, *taken),
        rejected=tuple(rejections.items),
    )


class _Rejections:
    """What a request asks for in vain; beyond ``MAX_REJECTED`` the request is refused as a whole."""

    def __init__(self) -> None:
        self.items: list[Rejected] = []

    def add(self, word: str, problem: Problem, reason: str) -> None:
        self.items.append(Rejected(symbol=word[:80], code=problem.code, name=problem.name, reason=reason))
        if len(self.items) >= MAX_REJECTED:
            raise self.error()

    def extend(self, resolution: Resolution) -> None:
        for item in resolution.rejected:
            self.add(item.word, item.problem, item.reason)

    def error(self) -> ArgusError:
        first = self.items[0]
        more = f" and {len(self.items) - 1} more" if len(self.items) > 1 else ""
        detail = f"{first.symbol!r}: {first.reason}{more}; nothing is changed."
        return ArgusError(BY_NAME[first.name], detail, rejected=self.items)


def _is_group(word: str) -> bool:
    return word == EVERYTHING or word.startswith(("market:", "sector:"))


def _bounded(words: list[str]) -> list[str]:
    if not words:
        raise ArgusError(INVALID_ARGUMENT, "The parameter 'symbols' names no symbol.", parameter="symbols")
    if len(words) > MAX_SYMBOLS_PER_MESSAGE:
        detail = f"{len(words)} symbols in one message; {MAX_SYMBOLS_PER_MESSAGE} are accepted."
        raise ArgusError(SYMBOL_LIMIT, detail, parameter="symbols", limit=MAX_SYMBOLS_PER_MESSAGE)
    return list(dict.fromkeys(word.strip() for word in words))


def _named(word: str, subscription: Subscription, resolve: Resolve, rejections: _Rejections) -> str | None:
    """The symbol that a word means; one that is no longer quoted can still be taken out."""
    if _is_group(word):
        rejections.add(word, UNKNOWN_SUBSCRIPTION, "this subscription does not name the group")
        return None
    resolution = resolve([word])
    try:
        symbol = resolution.symbols[0] if resolution.symbols else parse(word)
    except SymbolError as error:
        rejections.add(word, AMBIGUOUS_SYMBOL if error.kind == "ambiguous" else INVALID_SYMBOL, error.reason)
        return None
    if symbol not in subscription.names:
        rejections.add(word, UNKNOWN_SUBSCRIPTION, "this subscription does not name the symbol")
        return None
    return symbol


def _find(book: Book, name: str) -> Subscription:
    found = book.get(name)
    if found is None:
        known = ", ".join(sorted(book)) or "none"
        raise ArgusError(UNKNOWN_SUBSCRIPTION, f"There is no subscription {name!r} here. There are: {known}.")
    return found


def require_ack(book: Book, name: str) -> None:
    """Raise unless there is this subscription, and it is one to be acknowledged."""
    if not _find(book, name).ack:
        detail = f"The subscription {name!r} is not acknowledged; subscribe with ack to another."
        raise ArgusError(INVALID_ARGUMENT, detail, parameter="subscription")


def _require_events(data_types: frozenset[DataType], *, ack: bool) -> None:
    """What is acknowledged are events: each is sent until it is."""
    if ack and (states := data_types - EVENTS):
        detail = f"Only events can be acknowledged: {', '.join(sorted(EVENTS))}; not {', '.join(sorted(states))}."
        raise ArgusError(INVALID_ARGUMENT, detail, parameter="ack")


def _data_types(given: list[DataType], principal: Principal) -> frozenset[DataType]:
    if not given:
        raise ArgusError(INVALID_ARGUMENT, "The parameter 'data_types' names no data type.", parameter="data_types")
    chosen = frozenset(given)
    require_data_types(principal, chosen)
    return chosen


def _require_filtered_types(filter: Filter | None, data_types: frozenset[DataType]) -> None:
    if filter is not None and not data_types <= FILTERED:
        allowed = [data_type for data_type in DataType if data_type in FILTERED]
        others = ", ".join(data_type for data_type in DataType if data_type in data_types - FILTERED)
        detail = f"A filter goes with {', '.join(allowed)} alone; ask for {others} in another subscription."
        raise ArgusError(INVALID_ARGUMENT, detail, parameter="filters", allowed=allowed)


def _refuse_other_terms(old: Subscription, action: Subscribe) -> None:
    """Adding symbols never changes the terms: a client that asks for other ones means another subscription or ``update``."""
    for parameter, given, present in (
        ("data_types", UNSET if isinstance(action.data_types, UnsetType) else frozenset(action.data_types), old.data_types),
        ("update_frequency", action.update_frequency, old.frequency),
        ("filters", action.filters, old.filter),
        ("ack", action.ack, old.ack),
    ):
        if given is not UNSET and given != present:
            detail = f"The subscription {action.subscription!r} has another {parameter}: send update, or use another name."
            raise ArgusError(INVALID_ARGUMENT, detail, parameter=parameter)


def _change(book: Book, name: str, new: Subscription, principal: Principal, chosen: _Chosen) -> Change:
    """The book with ``new`` in it. A plan's limit stops growth alone: whoever is above a lowered one may still shrink."""
    changed = {**book, name: new}
    if sum(len(item.names) + len(item.groups) for item in changed.values()) > MAX_NAMED:
        detail = f"The subscriptions would name more than {MAX_NAMED} symbols together; name markets or sectors, or *."
        raise ArgusError(SYMBOL_LIMIT, detail, limit=MAX_NAMED)
    total = count(changed)
    if total > count(book):
        require_symbols(principal, total)
    return Change(book=changed, symbols=list(chosen.order), rejected=list(chosen.rejected))


def _words(item: Subscription) -> list[str]:
    return [*item.groups, *sorted(item.names)]
