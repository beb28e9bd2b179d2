"""A session held against a much simpler model of it, over any sequence of requests."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from argus.access.principal import Principal
from marketdata.types import EVENTS
from marketdata.universe import Resolution, Universe, resolve
from streaming import subscriptions
from streaming.codecs import JSON
from streaming.filters import FILTERED, Filter
from streaming.protocol import ACTIONS, Pong, Position
from streaming.saved import Record
from streaming.session import Acknowledge, Cover, Effect, Reply, Restore, Session
from tests.streaming.principals import principal

SYMBOLS = ("000001.SZ", "000002.SZ", "300750.SZ", "600000.SH", "600519.SH")
UNIVERSES = (
    Universe(symbols=SYMBOLS, sectors={"a": ("600000.SH", "600519.SH"), "b": ("600519.SH", "000001.SZ", "000002.SZ")}),
    Universe(symbols=SYMBOLS[:3], sectors={"a": ("300750.SZ",)}),
    Universe(symbols=(*SYMBOLS[2:], "600036.SH"), sectors={"a": ("600000.SH",), "b": ("600036.SH", "300750.SZ")}),
)
WORDS = (*SYMBOLS, "*", "sector:a", "sector:b", "market:SH")
"""Symbols and groups; of each something is missing in some universe."""


class Terms(NamedTuple):
    """A plan."""

    symbols: int
    types: frozenset[str]

    @property
    def principal(self) -> Principal:
        return principal(symbols=self.symbols, data_types=tuple(self.types))


TYPES = ("quote", "price", "status", "trade")
PLANS = (
    Terms(6, frozenset(TYPES)),
    Terms(4, frozenset(TYPES)),
    Terms(6, frozenset({"quote", "price", "status"})),
    Terms(2, frozenset({"quote", "price", "trade"})),
    Terms(6, frozenset({"quote", "trade"})),
)

good_words = st.sampled_from(WORDS)
any_words = st.lists(good_words, min_size=1, max_size=3) | st.lists(
    good_words | st.sampled_from(["999999.SH", "nonsense", "sector:none", "000001"]), max_size=5
)
names = st.sampled_from(["main", "main", "x"])
types = st.none() | st.lists(st.sampled_from([*TYPES, "orderbook"]), max_size=3)
acks = st.sampled_from([None, None, False, True])
plans = st.sampled_from(PLANS)
universes = st.sampled_from(UNIVERSES)
frequencies = st.sampled_from([None, None, "realtime", "1s"])
LEAVE_OUT = "leave it out"
GOOD_FILTERS = [None, {"min_price": 5.0}, {"min_price": 5.0, "max_price": 7.5}, {"only_changed": ["price", "volume"]}]
filters = st.sampled_from([LEAVE_OUT, LEAVE_OUT, *GOOD_FILTERS, {"max_price": 1.0, "min_price": 2.0}, {}])
SENSE: list[tuple[list[str] | None, Any, bool | None]] = [
    (None, LEAVE_OUT, None),
    (None, LEAVE_OUT, None),
    (None, LEAVE_OUT, None),
    (["quote", "price"], LEAVE_OUT, None),
    (["quote", "price"], GOOD_FILTERS[1], False),
    (["quote", "status", "trade"], LEAVE_OUT, None),
    (["trade"], LEAVE_OUT, True),
    (["trade", "status"], None, True),
]
terms = st.sampled_from(SENSE) | st.sampled_from(SENSE) | st.sampled_from(SENSE) | st.tuples(types, filters, acks)
"""Data types, filters, ack: most of them go together."""

PLACES: dict[str, dict[str, Any]] = {
    "epoch and seq": {"epoch": 7, "seq": 3},
    "streams": {"streams": {"main": {"epoch": 7, "seq": 0}, "x": {"epoch": 1, "seq": 1}}},
    "both": {"streams": {"main": {"epoch": 7, "seq": 0}}, "epoch": 7, "seq": 3},
    "epoch": {"epoch": 7},
    "feed": {"feed": "main"},
    "none": {},
}
GOOD_PLACES = {"epoch and seq": {"": Position(7, 3)}, "streams": {"main": Position(7, 0), "x": Position(1, 1)}}
"""Those that say up to where, and what they say."""


class Entry(NamedTuple):
    """A subscription, in the model."""

    words: set[str]
    types: set[str]
    frequency: str
    filters: dict[str, Any] | None
    ack: bool


Model = dict[str, Entry]


def groups(universe: Universe) -> dict[str, set[str]]:
    """What is in which group."""
    found = {"*": set(universe.symbols), **{f"sector:{name}": set(members) for name, members in universe.sectors.items()}}
    shanghai = {symbol for symbol in universe.symbols if symbol.endswith(".SH")}
    return {**found, "market:SH": shanghai} if shanghai else found


class SessionAgainstModel(RuleBasedStateMachine):
    """``model``: name -> what was subscribed to. What that means at present is reckoned anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.plan, self.universe = PLANS[0], UNIVERSES[0]
        self.model: Model = {}
        self.covered: dict[str, Any] = {}
        self.connect()

    def connect(self) -> None:
        self.session = Session(self.resolve, lambda: 0)
        self.session.accept(self.plan.principal, id=None, quota=None)

    def resolve(self, words: Any) -> Resolution:
        return resolve(words, self.universe)

    # The model

    def members(self, words: set[str]) -> set[str]:
        known = groups(self.universe)
        return set[str]().union(*(known.get(word, set()) if word not in SYMBOLS else {word} for word in words))

    def taken(self, words: list[str] | None) -> set[str]:
        known = {*self.universe.symbols, *groups(self.universe)}
        return {word for word in words or () if word in known}

    def total(self, model: Model) -> int:
        return len(self.members(set[str]().union(*(entry.words for entry in model.values()))))

    def allowed(self, before: Model, name: str, entry: Entry, asked: set[str]) -> Model | None:
        """The model with the entry in it, if that makes sense and the plan allows it; ``asked``: the data types asked for now."""
        types, filters = entry.types, entry.filters
        sense = bool(types) and filters in GOOD_FILTERS and (filters is None or types <= FILTERED)
        if not sense or not asked <= self.plan.types or (entry.ack and not types <= EVENTS):
            return None
        after = {**before, name: entry}
        return after if self.total(after) <= max(self.plan.symbols, self.total(before)) else None

    # The session

    def ask(self, action: str, **fields: Any) -> list[Effect]:
        given = {name: value for name, value in fields.items() if value is not None or name == "filters"}
        if given.get("filters") == LEAVE_OUT:
            del given["filters"]
        return self.session.receive(json.dumps({"action": action, **given}))

    def take(self, effects: list[Effect]) -> dict[str, Any]:
        """The one message among the effects."""
        (message,) = [dict(json.loads(JSON.text(effect.message))) for effect in effects if isinstance(effect, Reply)]
        covers = [effect for effect in effects if isinstance(effect, Cover)]
        assert len(effects) == 1 + len(covers)
        assert len(covers) == (message["type"] != "error")
        for cover in covers:
            self.covered = dict(cover.selections)
        return message

    def expect(self, effects: list[Effect], after: Model | None) -> None:
        """The session took the request exactly where the model does."""
        message = self.take(effects)
        assert (message["type"] != "error") == (after is not None), message
        if after is not None:
            self.model = after

    @rule(name=names, words=any_words, frequency=frequencies, terms=terms)
    def subscribe(self, name: str, words: list[str], frequency: str | None, terms: tuple[Any, Any, bool | None]) -> None:
        types, filters, ack = terms
        effects = self.ask(
            "subscribe", subscription=name, symbols=words, data_types=types, update_frequency=frequency, filters=filters, ack=ack
        )
        old = self.model.get(name, Entry(set(), {"quote"}, "realtime", None, False))
        new = Entry(
            old.words | self.taken(words),
            set(types) if types is not None else old.types,
            frequency or old.frequency,
            old.filters if filters == LEAVE_OUT else filters,
            old.ack if ack is None else ack,
        )
        if not self.taken(words) or (name in self.model and new[1:] != old[1:]):
            self.expect(effects, None)
        else:
            self.expect(effects, self.allowed(self.model, name, new, set() if name in self.model else new.types))

    @precondition(lambda self: bool(self.model))
    @rule(name=names, words=st.none() | any_words, frequency=frequencies, terms=terms)
    def update(self, name: str, words: list[str] | None, frequency: str | None, terms: tuple[Any, Any, bool | None]) -> None:
        types, filters, _ = terms
        effects = self.ask(
            "update", subscription=name, symbols=words, data_types=types, update_frequency=frequency, filters=filters
        )
        nothing = words is None and types is None and frequency is None and filters == LEAVE_OUT
        if name not in self.model or nothing or (words is not None and not self.taken(words)):
            self.expect(effects, None)
            return
        old = self.model[name]
        new = Entry(
            self.taken(words) or old.words,
            set(types) if types is not None else old.types,
            frequency or old.frequency,
            old.filters if filters == LEAVE_OUT else filters,
            old.ack,
        )
        self.expect(effects, self.allowed(self.model, name, new, set(types or ())))

    @precondition(lambda self: bool(self.model))
    @rule(name=names, words=st.none() | any_words)
    def unsubscribe(self, name: str, words: list[str] | None) -> None:
        effects = self.ask("unsubscribe", subscription=name, symbols=words)
        if name not in self.model or (words is not None and not self.model[name].words & set(words)):
            self.expect(effects, None)
            return
        old = self.model[name]
        left = old.words - set(words) if words is not None else set()
        after = {**self.model, name: old._replace(words=left)}
        self.expect(effects, {key: entry for key, entry in after.items() if entry.words})

    @rule()
    def ping(self) -> None:
        (effect,) = self.session.receive('{"action":"ping"}')
        assert isinstance(effect, Reply)
        assert isinstance(effect.message, Pong)

    @rule(name=names, place=st.sampled_from(["epoch and seq", "streams", "both", "epoch", "feed", "none"]))
    def acknowledge(self, name: str, place: str) -> None:
        """Only what was subscribed to like that, and only up to something."""
        effects = self.ask("ack", subscription=name, **PLACES[place])
        if name in self.model and self.model[name].ack and place in GOOD_PLACES:
            assert effects == [Acknowledge(None, name, GOOD_PLACES[place])]
        else:
            assert self.take(effects)["type"] == "error"

    @rule(token=st.sampled_from([None, "token"]), place=st.sampled_from(["epoch and seq", "streams", "both", "epoch", "none"]))
    def resume(self, token: str | None, place: str) -> None:
        """Others' subscriptions before one has any, or one's own."""
        effects = self.ask("resume", session=token, **PLACES[place])
        if (token is None) == bool(self.model) and place in {*GOOD_PLACES, "none"}:
            assert effects == [Restore(None, token, GOOD_PLACES.get(place, {}))]
        else:
            assert self.take(effects)["type"] == "error"

    # What comes from outside

    @rule(plan=plans)
    def the_plan_is_another(self, plan: Terms) -> None:
        """What it has lost is received no more, and what it has gained comes back; above its limit nothing is taken away."""
        before, self.plan = self.plan, plan
        effects = self.session.principal_changed(plan.principal)
        if plan == before:
            assert effects == []
            return
        message = self.take(effects)
        assert message["type"] == "limits"
        assert (message["limits"]["symbols"], set(message["limits"]["data_types"])) == (plan.symbols, plan.types)
        self.shows(message)

    @rule(universe=universes)
    def the_universe_is_another(self, universe: Universe) -> None:
        """Groups have other members; who has none of these is told nothing."""
        before = {name: self.members(entry.words & {*WORDS[len(SYMBOLS) :]}) for name, entry in self.model.items()}
        self.universe = universe
        effects = self.session.universe_changed()
        after = {name: self.members(entry.words & {*WORDS[len(SYMBOLS) :]}) for name, entry in self.model.items()}
        assert [type(effect) for effect in effects] == ([Cover] if before != after else [])
        for effect in effects:
            assert isinstance(effect, Cover)
            self.covered = dict(effect.selections)

    @precondition(lambda self: bool(self.model))
    @rule(plan=plans, universe=universes)
    def the_client_comes_back(self, plan: Terms, universe: Universe) -> None:
        """To a connection that knows what was saved of this one, when plan and universe may be others. What is possible of each
        subscription is there again; of what is not, it is told."""
        at = {"main": Position(7, 8)}
        kept = subscriptions.saved(self.session.book, {}, at, {"main": {"main": (7, 5)}}, self.plan.types)
        record = msgspec.msgpack.encode(Record(prefix="p", digest="d", subscriptions=kept))
        before, self.model, self.plan, self.universe = self.model, {}, plan, universe
        lacking: set[str] = set()
        for name, entry in before.items():
            words, types = self.taken(sorted(entry.words)), entry.types & plan.types
            after = self.allowed(self.model, name, entry._replace(words=words, types=types), types) if words else None
            if after is None:
                lacking.add(name)
            else:
                self.model = after
                lacking |= (entry.words - words) | ({name} if types != entry.types else set())
        self.connect()
        rejected = self.session.restore(msgspec.msgpack.decode(record, type=Record).subscriptions)
        assert {item.symbol for item in rejected} == lacking
        self.covered = dict(self.session.cover().selections)
        effects = [Reply(self.session.resumed([], rejected, id=None))]
        message = json.loads(JSON.text(effects[0].message))
        assert (message["type"], message["recovered"], len(message["rejected"])) == ("resumed", True, len(rejected))
        self.shows(message)

    # What holds at all times

    def shows(self, message: dict[str, Any]) -> None:
        """A message's full state is the model's."""
        shown = {
            name: (
                Entry(
                    set(item["symbols"]),
                    set(item["data_types"]),
                    item["update_frequency"],
                    item.get("filters"),
                    item.get("ack", False),
                ),
                item["count"],
            )
            for name, item in message["subscriptions"].items()
        }
        assert shown == {
            name: (entry._replace(types=entry.types & self.plan.types), len(self.members(entry.words)))
            for name, entry in self.model.items()
        }

    @invariant()
    def the_full_state_is_the_models(self) -> None:
        (effect,) = self.session.receive('{"action":"subscriptions"}')
        assert isinstance(effect, Reply)
        self.shows(json.loads(JSON.text(effect.message)))

    @invariant()
    def what_is_covered_is_the_models(self) -> None:
        covered = {
            name: (item.symbols, set(item.data_types), item.frequency, item.filter, item.ack)
            for name, item in self.covered.items()
        }
        assert covered == {
            name: (
                None if "*" in entry.words else self.members(entry.words),
                entry.types & self.plan.types,
                entry.frequency,
                entry.filters and msgspec.convert(entry.filters, Filter),
                entry.ack,
            )
            for name, entry in self.model.items()
            if entry.types & self.plan.types
        }


TestSessionAgainstModel = SessionAgainstModel.TestCase
SessionAgainstModel.TestCase.settings = settings(max_examples=250, stateful_step_count=25, deadline=None)


positions = st.dictionaries(
    st.sampled_from(["main", "x"]), st.fixed_dictionaries({"epoch": st.integers(), "seq": st.integers()}), max_size=2
)
fields = st.fixed_dictionaries(
    {"action": st.sampled_from([*ACTIONS, "fly"])},
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
        "ack": st.booleans() | st.integers(),
        "key": st.text(max_size=3),
        "session": st.text(max_size=3),
        "streams": positions | st.text(),
        "feed": st.sampled_from(["main", ""]),
        "epoch": st.integers(),
        "seq": st.integers(),
        "more": st.none(),
    },
)
# What makes sense more often than by chance.
acknowledging = st.fixed_dictionaries(
    {
        "action": st.just("subscribe"),
        "subscription": names,
        "symbols": st.just(["600519.SH"]),
        "data_types": st.just(["trade"]),
        "ack": st.just(True),
    }
)
acknowledgements = st.fixed_dictionaries(
    {"action": st.sampled_from(["ack", "resume"]), "epoch": st.integers(0, 9), "seq": st.integers(0, 9)},
    optional={"subscription": names, "session": st.just("token")},
)
said = (fields | acknowledging | acknowledgements).map(json.dumps) | st.text() | st.binary()


@given(st.lists(said | plans | universes, max_size=8), st.booleans())
def test_every_message_has_an_effect_and_a_refused_one_changes_nothing(
    happening: list[str | bytes | Terms | Universe], authenticated: bool
) -> None:
    """Whatever happens to plan and universe in between."""
    universe = UNIVERSES[0]
    session = Session(lambda words: resolve(words, universe), lambda: 0)
    if authenticated:
        session.accept(PLANS[0].principal, id=None, quota=None)
    for item in happening:
        before = session.book
        if isinstance(item, Universe):
            universe = item
            assert all(isinstance(effect, Cover) for effect in session.universe_changed())
        elif isinstance(item, Terms):
            if authenticated:
                assert [type(effect) for effect in session.principal_changed(item.principal)] in ([], [Reply, Cover])
                assert session.book is before
        else:
            effects = session.receive(item)
            assert effects
            replies = [json.loads(JSON.text(effect.message)) for effect in effects if isinstance(effect, Reply)]
            if any(reply["type"] == "error" for reply in replies):
                assert session.book is before
                assert not any(isinstance(effect, Cover | Acknowledge | Restore) for effect in effects)
