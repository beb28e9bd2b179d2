"""Cut anywhere, again and again, while all else goes wrong too: each client has every event and the newest of every state."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marketdata.types import EVENTS, DataType, TradingStatus
from streaming.filters import Filter
from streaming.selection import Frequency, Selection
from tests.hub.returns import FEED_OF, LATE, LOST, SENT, World, world

TYPES = [DataType.QUOTE, DataType.PRICE, DataType.STATUS, DataType.TRADE, DataType.KLINE_1M]
QUICK = [Frequency.REALTIME, Frequency.REALTIME, Frequency.S1, Frequency.S5]

some_symbols = st.frozensets(st.sampled_from([*FEED_OF]), min_size=1)
plain = st.builds(
    Selection,
    symbols=st.none() | some_symbols,
    data_types=st.frozensets(st.sampled_from(TYPES), min_size=1),
    frequency=st.sampled_from(QUICK),
)
filtered = st.builds(
    Selection,
    symbols=some_symbols,
    data_types=st.just(frozenset({DataType.QUOTE})),
    frequency=st.sampled_from(QUICK),
    filter=st.just(Filter(min_price=1.0)),
)
acknowledged = st.builds(
    Selection,
    symbols=some_symbols,
    data_types=st.frozensets(st.sampled_from(sorted(EVENTS & set(TYPES))), min_size=1),
    ack=st.just(True),
)
selections = st.dictionaries(st.sampled_from("abc"), plain | plain | plain | filtered | acknowledged, min_size=1, max_size=3)

client, process = st.integers(0, 1), st.integers(0, 1)
fates = st.tuples(*[st.sampled_from([SENT, SENT, SENT, SENT, LATE, LOST])] * 2)
message = st.tuples(
    st.just("publish"),
    some_symbols,
    fates,
    st.integers(0, 2),
    st.sampled_from([TradingStatus.CONTINUOUS, TradingStatus.BREAK]),
    st.sampled_from([True, True, True, True, True, False]),
)
change = st.one_of(
    message, st.tuples(st.just("take_over"), fates), st.tuples(st.just("tell"), fates, st.sampled_from([True, True, False]))
)
step = st.one_of(
    message,
    message,
    message,
    change,
    st.tuples(st.just("cover"), client, selections),
    st.tuples(st.just("stop"), client),
    st.tuples(st.just("allow"), client, st.integers(1, 3) | st.none()),
    st.tuples(st.just("read"), client, st.integers(0, 5) | st.none()),
    st.tuples(st.just("ack"), client),
    st.tuples(st.just("cut"), client, st.integers(0, 4)),
    st.tuples(st.just("cut"), client, st.just(1000)),
    st.tuples(st.just("resume"), client, process, st.lists(message, max_size=2)),
    st.tuples(st.just("resume"), client, process, st.lists(message, max_size=2)),
    st.tuples(st.just("heal"), process),
    st.tuples(st.just("restore"), process),
    st.tuples(st.just("restart"), process, st.integers(0, 4)),
    st.tuples(st.just("tick"), process, st.sampled_from([0.1, 0.5, 1.0, 5.0])),
    st.tuples(st.just("beat"), process),
    st.tuples(st.just("hold_back"), process, st.integers(0, 2)),
    st.tuples(st.just("away"), st.booleans()),
)


def do(found: World, name: str, *arguments: Any) -> None:
    if name == "resume":
        number, where, meanwhile = arguments

        def say() -> None:
            for message in meanwhile:
                do(found, *message)

        found.resume(number, where, say)
    elif name == "away":
        found.away(away=arguments[0])
    else:
        getattr(found, name)(*arguments)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.tuples(selections, selections), st.lists(step, min_size=10, max_size=60))
def test_whoever_is_cut_off_has_all_that_happened_and_the_newest_of_what_is(
    first: tuple[Any, Any], steps: list[tuple[Any, ...]]
) -> None:
    with world() as found:
        for number, chosen in enumerate(first):
            found.cover(number, chosen)
        for name, *arguments in steps:
            do(found, name, *arguments)
        found.settle()
