"""A session held against a much simpler model of it, over any sequence of requests."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from marketdata.universe import Universe, resolve
from streaming.codecs import JSON
from streaming.filters import FILTERED, Filter
from streaming.protocol import Pong
from streaming.session import Cover, Reply, Session
from tests.streaming.principals import principal

SECTORS = {"a": ("600000.SH", "600519.SH"), "b": ("600519.SH", "000001.SZ", "000002.SZ")}
SYMBOLS = ("000001.SZ", "000002.SZ", "300750.SZ", "600000.SH", "600519.SH")
UNIVERSE = Universe(symbols=SYMBOLS, sectors=SECTORS)
GROUPS = {
    "*": set(SYMBOLS),
    "sector:a": set(SECTORS["a"]),
    "sector:b": set(SECTORS["b"]),
    "market:SH": {"600000.SH", "600519.SH"},
}
LIMIT = 4
ALLOWED = {"quote", "price", "status"}

good_words = st.sampled_from([*SYMBOLS, *GROUPS])
any_words = st.lists(good_words | st.sampled_from(["999999.SH", "nonsense", "sector:none", "000001"]), max_size=5)
names = st.sampled_from(["main", "x", "y"])
types = st.none() | st.lists(st.sampled_from(["quote", "price", "status", "orderbook"]), max_size=3)
frequencies = st.sampled_from([None, "realtime", "1s"])
LEAVE_OUT = "leave it out"
GOOD_FILTERS = [None, {"min_price": 5.0}, {"min_price": 5.0, "max_price": 7.5}, {"only_changed": ["price", "volume"]}]
filters = st.sampled_from([LEAVE_OUT, LEAVE_OUT, *GOOD_FILTERS, {"max_price": 1.0, "min_price": 2.0}, {}])

Entry = tuple[set[str], set[str], str, dict[str, Any] | None]
Model = dict[str, Entry]


def members(words: set[str]) -> set[str]:
    return set().union(*(GROUPS.get(word, {word}) for word in words)) if words else set()


def possible(terms: list[Any]) -> bool:
    """Whether a subscription may have these data types (with this frequency) and filters."""
    types, _, filters = terms
    return bool(types) and types <= ALLOWED and filters in GOOD_FILTERS and (filters is None or types <= {*FILTERED})


class SessionAgainstModel(RuleBasedStateMachine):
    """``model``: name -> (words, data types, frequency, filters)."""

    def __init__(self) -> None:
        super().__init__()
        self.session = Session(lambda words: resolve(words, UNIVERSE), lambda: 0)
        self.session.accept(principal(symbols=LIMIT, data_types=tuple(ALLOWED)), id=None, quota=None)
        self.model: Model = {}
        self.covered: dict[str, Any] = {}

    def ask(self, action: str, **fields: Any) -> dict[str, Any]:
        given = {name: value for name, value in fields.items() if value is not None or name == "filters"}
        if given.get("filters") == LEAVE_OUT:
            del given["filters"]
        effects = self.session.receive(json.dumps({"action": action, **given}))
        (message,) = [json.loads(JSON.text(effect.message)) for effect in effects if isinstance(effect, Reply)]
        covers = [effect for effect in effects if isinstance(effect, Cover)]
        assert bool(covers) == (message["type"] != "error")
        for cover in covers:
            self.covered = dict(cover.selections)
        return message

    def expect(self, message: dict[str, Any], after: Model | None) -> None:
        """The session took the request exactly where the model does."""
        assert (message["type"] != "error") == (after is not None), message
        if after is not None:
            self.model = after

    def allowed(self, name: str, entry: Entry) -> Model | None:
        """The model with the entry in it, if the plan allows that."""
        after = {**self.model, name: entry}
        before, total = (len(members(set().union(*(words for words, *_ in m.values())))) for m in (self.model, after))
        return after if total <= LIMIT or total <= before else None

    @rule(name=names, words=any_words, types=types, frequency=frequencies, filters=filters)
    def subscribe(self, name: str, words: list[str], types: list[str] | None, frequency: str | None, filters: Any) -> None:
        message = self.ask(
            "subscribe", subscription=name, symbols=words, data_types=types, update_frequency=frequency, filters=filters
        )
        taken = {word for word in words if word in SYMBOLS or word in GROUPS}
        old_words, *old_terms = self.model.get(name, (set(), {"quote"}, "realtime", None))
        terms = [
            set(types) if types is not None else old_terms[0],
            frequency or old_terms[1],
            old_terms[2] if filters == LEAVE_OUT else filters,
        ]
        same_terms = name not in self.model or terms == old_terms
        if not taken or not possible(terms) or not same_terms:
            self.expect(message, None)
        else:
            self.expect(message, self.allowed(name, (old_words | taken, *terms)))

    @rule(name=names, words=st.none() | any_words, types=types, frequency=frequencies, filters=filters)
    def update(self, name: str, words: list[str] | None, types: list[str] | None, frequency: str | None, filters: Any) -> None:
        message = self.ask(
            "update", subscription=name, symbols=words, data_types=types, update_frequency=frequency, filters=filters
        )
        taken = {word for word in words or () if word in SYMBOLS or word in GROUPS}
        nothing = words is None and types is None and frequency is None and filters == LEAVE_OUT
        if name not in self.model or nothing or (words is not None and not taken):
            self.expect(message, None)
            return
        old_words, old_types, old_frequency, old_filters = self.model[name]
        terms = [
            set(types) if types is not None else old_types,
            frequency or old_frequency,
            old_filters if filters == LEAVE_OUT else filters,
        ]
        self.expect(message, self.allowed(name, (taken or old_words, *terms)) if possible(terms) else None)

    @rule(name=names, words=st.none() | any_words)
    def unsubscribe(self, name: str, words: list[str] | None) -> None:
        message = self.ask("unsubscribe", subscription=name, symbols=words)
        if name not in self.model or (words is not None and not self.model[name][0] & set(words)):
            self.expect(message, None)
            return
        old_words, *terms = self.model[name]
        left = old_words - set(words) if words is not None else set()
        rest = {key: value for key, value in self.model.items() if key != name}
        self.expect(message, {**rest, name: (left, *terms)} if left else rest)

    @rule()
    def ping(self) -> None:
        (effect,) = self.session.receive('{"action":"ping"}')
        assert isinstance(effect, Reply)
        assert isinstance(effect.message, Pong)

    @invariant()
    def the_full_state_is_the_models(self) -> None:
        (effect,) = self.session.receive('{"action":"subscriptions"}')
        assert isinstance(effect, Reply)
        shown = {
            name: (
                set(entry["symbols"]),
                set(entry["data_types"]),
                entry["update_frequency"],
                entry.get("filters"),
                entry["count"],
            )
            for name, entry in json.loads(JSON.text(effect.message))["subscriptions"].items()
        }
        assert shown == {name: (*entry, len(members(entry[0]))) for name, entry in self.model.items()}

    @invariant()
    def what_is_covered_is_the_models(self) -> None:
        covered = {name: (item.symbols, set(item.data_types), item.frequency, item.filter) for name, item in self.covered.items()}
        assert covered == {
            name: (None if "*" in words else members(words), types, frequency, filters and msgspec.convert(filters, Filter))
            for name, (words, types, frequency, filters) in self.model.items()
        }


TestSessionAgainstModel = SessionAgainstModel.TestCase
SessionAgainstModel.TestCase.settings = settings(max_examples=150, stateful_step_count=15, deadline=None)


fields = st.fixed_dictionaries(
    {"action": st.sampled_from(["subscribe", "update", "unsubscribe", "subscriptions", "ping", "resume", "auth", "fly"])},
    optional={
        "id": st.integers() | st.text(max_size=5) | st.none() | st.lists(st.integers(), max_size=1),
        "subscription": names | st.integers() | st.text(max_size=70),
        "symbols": any_words | st.lists(st.text() | st.integers(), max_size=3) | st.text() | st.none(),
        "data_types": types | st.text(),
        "update_frequency": frequencies | st.integers(),
        "filters": st.none()
        | st.dictionaries(
            st.sampled_from(["min_price", "max_price", "min_volume", "only_changed"]) | st.text(),
            st.integers() | types,
            max_size=2,
        ),
        "key": st.text(max_size=3),
        "more": st.none(),
    },
)


@given(st.lists(fields.map(json.dumps) | st.text() | st.binary(), max_size=8), st.booleans())
def test_every_message_has_an_effect_and_a_refused_one_changes_nothing(messages: list[str | bytes], authenticated: bool) -> None:
    session = Session(lambda words: resolve(words, UNIVERSE), lambda: 0)
    if authenticated:
        session.accept(principal(symbols=LIMIT), id=None, quota=None)
    for message in messages:
        before = session.book
        effects = session.receive(message)
        assert effects
        replies = [json.loads(JSON.text(effect.message)) for effect in effects if isinstance(effect, Reply)]
        if any(reply["type"] == "error" for reply in replies):
            assert session.book is before
            assert not any(isinstance(effect, Cover) for effect in effects)
