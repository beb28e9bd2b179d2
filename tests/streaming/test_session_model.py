"""A session held against a much simpler model of it, over any sequence of requests."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from marketdata.universe import Universe, resolve
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
ALLOWED = {"quote", "price"}

good_words = st.sampled_from([*SYMBOLS, *GROUPS])
any_words = st.lists(good_words | st.sampled_from(["999999.SH", "nonsense", "sector:none", "000001"]), max_size=5)
names = st.sampled_from(["main", "x", "y"])
types = st.none() | st.lists(st.sampled_from(["quote", "price", "orderbook"]), max_size=3)
frequencies = st.sampled_from([None, "realtime", "1s"])


def members(words: set[str]) -> set[str]:
    return set().union(*(GROUPS.get(word, {word}) for word in words)) if words else set()


class SessionAgainstModel(RuleBasedStateMachine):
    """``model``: name -> (words, data types, frequency)."""

    def __init__(self) -> None:
        super().__init__()
        self.session = Session(lambda words: resolve(words, UNIVERSE), lambda: 0)
        self.session.accept(principal(symbols=LIMIT, data_types=tuple(ALLOWED)), id=None, quota=None)
        self.model: dict[str, tuple[set[str], set[str], str]] = {}
        self.covered: dict[str, Any] = {}

    def ask(self, action: str, **fields: Any) -> dict[str, Any]:
        given = {name: value for name, value in fields.items() if value is not None}
        effects = self.session.receive(json.dumps({"action": action, **given}))
        (message,) = [json.loads(effect.message) for effect in effects if isinstance(effect, Reply)]
        covers = [effect for effect in effects if isinstance(effect, Cover)]
        assert bool(covers) == (message["type"] != "error")
        for cover in covers:
            self.covered = dict(cover.selections)
        return message

    def expect(self, message: dict[str, Any], after: dict[str, tuple[set[str], set[str], str]] | None) -> None:
        """The session took the request exactly where the model does."""
        assert (message["type"] != "error") == (after is not None), message
        if after is not None:
            self.model = after

    def allowed(self, name: str, entry: tuple[set[str], set[str], str]) -> dict[str, tuple[set[str], set[str], str]] | None:
        """The model with the entry in it, if the plan allows that."""
        after = {**self.model, name: entry}
        before, total = (len(members(set().union(*(words for words, _, _ in m.values())))) for m in (self.model, after))
        return after if total <= LIMIT or total <= before else None

    @rule(name=names, words=any_words, types=types, frequency=frequencies)
    def subscribe(self, name: str, words: list[str], types: list[str] | None, frequency: str | None) -> None:
        message = self.ask("subscribe", subscription=name, symbols=words, data_types=types, update_frequency=frequency)
        taken = {word for word in words if word in SYMBOLS or word in GROUPS}
        old_words, old_types, old_frequency = self.model.get(name, (set(), None, None))
        new_types = set(types) if types is not None else old_types or {"quote"}
        new_frequency = frequency or old_frequency or "realtime"
        same_terms = name not in self.model or (new_types, new_frequency) == (old_types, old_frequency)
        if not taken or not new_types or not new_types <= ALLOWED or not same_terms:
            self.expect(message, None)
        else:
            self.expect(message, self.allowed(name, (old_words | taken, new_types, new_frequency)))

    @rule(name=names, words=st.none() | any_words, types=types, frequency=frequencies)
    def update(self, name: str, words: list[str] | None, types: list[str] | None, frequency: str | None) -> None:
        message = self.ask("update", subscription=name, symbols=words, data_types=types, update_frequency=frequency)
        taken = {word for word in words or () if word in SYMBOLS or word in GROUPS}
        nothing = words is None and types is None and frequency is None
        wrong_types = types is not None and (not types or not set(types) <= ALLOWED)
        if name not in self.model or nothing or (words is not None and not taken) or wrong_types:
            self.expect(message, None)
        else:
            old_words, old_types, old_frequency = self.model[name]
            entry = (taken or old_words, set(types) if types else old_types, frequency or old_frequency)
            self.expect(message, self.allowed(name, entry))

    @rule(name=names, words=st.none() | any_words)
    def unsubscribe(self, name: str, words: list[str] | None) -> None:
        message = self.ask("unsubscribe", subscription=name, symbols=words)
        if name not in self.model or (words is not None and not self.model[name][0] & set(words)):
            self.expect(message, None)
            return
        old_words, old_types, old_frequency = self.model[name]
        left = old_words - set(words) if words is not None else set()
        rest = {key: value for key, value in self.model.items() if key != name}
        self.expect(message, {**rest, name: (left, old_types, old_frequency)} if left else rest)

    @rule()
    def ping(self) -> None:
        assert json.loads(self.session.receive('{"action":"ping"}')[0].message)["type"] == "pong"  # type: ignore[union-attr]

    @invariant()
    def the_full_state_is_the_models(self) -> None:
        (effect,) = self.session.receive('{"action":"subscriptions"}')
        assert isinstance(effect, Reply)
        shown = {
            name: (set(entry["symbols"]), set(entry["data_types"]), entry["update_frequency"], entry["count"])
            for name, entry in json.loads(effect.message)["subscriptions"].items()
        }
        assert shown == {name: (*entry, len(members(entry[0]))) for name, entry in self.model.items()}

    @invariant()
    def what_is_covered_is_the_models(self) -> None:
        assert {name: (item.symbols, set(item.data_types), item.frequency) for name, item in self.covered.items()} == {
            name: (None if "*" in words else members(words), types, frequency)
            for name, (words, types, frequency) in self.model.items()
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
        "filters": st.none() | st.dictionaries(st.text(), st.integers(), max_size=2),
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
        replies = [json.loads(effect.message) for effect in effects if isinstance(effect, Reply)]
        if any(reply["type"] == "error" for reply in replies):
            assert session.book is before
            assert not any(isinstance(effect, Cover) for effect in effects)
