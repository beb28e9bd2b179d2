"""The journal in memory and in Redis: what is kept, what is refused, and when a reading is complete."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marketdata import journal as journals
from marketdata.batch import Events, Term
from marketdata.journal import (
    HOLE,
    OUT_OF_REACH,
    TOO_MUCH,
    UNAVAILABLE,
    UNKNOWN_EPOCH,
    Entry,
    Journal,
    MemoryJournal,
    RedisJournal,
)
from marketdata.types import DataType

KEY = "argus:feed:main:journal"
TRADES: Events = {DataType.TRADE: ([f"{number:06}.SH" for number in range(500)], [b"{%d}" % number for number in range(500)])}
"""More than goes into an entry as it is."""

Make = Callable[..., Journal]


@pytest.fixture(params=["memory", "redis"])
def make(request: pytest.FixtureRequest) -> Make:
    """Makes a journal with these bounds."""
    if request.param == "memory":
        return MemoryJournal
    url = request.getfixturevalue("redis_url")
    return lambda *args, **kwargs: RedisJournal(url, *args, **kwargs)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """Lets so many seconds pass."""
    passed, real = [0.0], time.monotonic
    monkeypatch.setattr("marketdata.journal.time.monotonic", lambda: real() + passed[0])

    def let(seconds: float) -> None:
        passed[0] += seconds

    yield let


def entry(epoch: int, seq: int, *, term: Term | None = None, events: Events | None = None) -> Entry:
    return Entry(epoch, seq, events or {}, term)


def written(journal: Journal, *positions: tuple[int, int]) -> None:
    """Entries without a term."""
    for epoch, seq in positions:
        assert journal.append("main", entry(epoch, seq))


def positions(journal: Journal, after: tuple[int, int] = (0, 0), until: tuple[int, int] = (99, 99)) -> list[tuple[int, int]]:
    return [(one.epoch, one.seq) for one in journal.read("main", after, until).entries]


def test_what_is_written_is_read_as_it_was(make: Make) -> None:
    journal = make()
    trades: Events = {DataType.TRADE: (["A", "A"], [b'{"index":1}', b'{"index":2}'])}
    said = [
        entry(1, 1, term=Term(0, 0, False, "first_term")),
        entry(1, 2, events=trades),
        entry(1, 3, events=TRADES),
        entry(1, 4),
    ]
    for one in said:
        assert journal.append("main", one)
        journal.append("other", one)
    assert journal.read("main", (1, 1), (1, 4)) == (said[1:], True, "")
    assert journal.read("main", (1, 2), (1, 3)) == (said[2:3], True, "")
    assert journal.read("main", (1, 4), (1, 4)) == ([], True, "")


def test_a_fenced_off_publisher_writes_nothing(make: Make) -> None:
    journal = make()
    written(journal, (5, 1), (5, 2))
    successor = journal if isinstance(journal, MemoryJournal) else make()
    assert successor.append("main", entry(6, 1, term=Term(5, 2, True)))
    for position in ((5, 3), (6, 1), (5, 2)):
        assert not journal.append("main", entry(*position))
    written(successor, (6, 2))
    assert positions(journal) == [(5, 1), (5, 2), (6, 1), (6, 2)]
    assert journal.read("main", (5, 1), (6, 2)).complete


@pytest.mark.parametrize(
    ("kept", "after", "until", "reason"),
    [
        ([(1, 5), (1, 6), (1, 7)], (1, 4), (1, 7), ""),
        ([(1, 5), (1, 6), (1, 7)], (1, 5), (1, 6), ""),
        ([(1, 5), (1, 6), (1, 7)], (1, 3), (1, 7), OUT_OF_REACH),
        ([], (1, 3), (1, 7), OUT_OF_REACH),
        ([(1, 5), (1, 7)], (1, 5), (1, 7), HOLE),
        ([(1, 5), (1, 7)], (1, 4), (1, 7), HOLE),
        ([(1, 5), (1, 6)], (1, 5), (1, 7), HOLE),
        ([(1, 5)], (1, 5), (1, 6), HOLE),
        ([(1, 5)], (1, 5), (2, 1), UNKNOWN_EPOCH),
        ([(1, 5), (1, 6), (2, 1)], (1, 5), (2, 1), UNKNOWN_EPOCH),
        ([(1, 5), (1, 6), (2, 1), (2, 2, 1, 6)], (1, 5), (2, 2), ""),
        ([(2, 1), (2, 2, 1, 6)], (1, 6), (2, 2), ""),
        ([(2, 1), (2, 2, 1, 6)], (1, 5), (2, 2), OUT_OF_REACH),
        ([(2, 2, 1, 6)], (1, 6), (2, 2), OUT_OF_REACH),
        ([(1, 5), (1, 6), (2, 2, 1, 6)], (1, 5), (2, 2), HOLE),
        ([(1, 5), (1, 6), (2, 1), (2, 2, 1, 7)], (1, 5), (2, 2), HOLE),
        ([(1, 5), (1, 6), (2, 1), (2, 2, 1, 7)], (1, 6), (2, 2), HOLE),
        ([(1, 5), (2, 1), (3, 1), (3, 2, 2, 1)], (1, 5), (3, 2), UNKNOWN_EPOCH),
        ([(1, 5), (2, 1, 1, 5), (3, 1), (3, 2, 2, 1)], (1, 5), (3, 2), ""),
        ([(2, 5), (2, 6)], (1, 9), (2, 6), OUT_OF_REACH),
    ],
)
def test_a_reading_says_why_something_may_be_missing(
    make: Make, kept: list[tuple[int, ...]], after: tuple[int, int], until: tuple[int, int], reason: str
) -> None:
    journal = make()
    for epoch, seq, *of in kept:
        journal.append("main", entry(epoch, seq, term=Term(of[0], of[1], True) if of else None))
    reading = journal.read("main", after, until)
    assert (reading.complete, reading.reason) == (not reason, reason)


def test_a_term_that_may_have_lost_something_gives_its_reason(make: Make) -> None:
    journal = make()
    written(journal, (1, 5), (2, 1))
    journal.append("main", entry(2, 2, term=Term(1, 5, False, "feed_broken")))
    assert [journal.read("main", after, (2, 2)).reason for after in ((1, 5), (2, 1), (2, 2))] == ["feed_broken"] * 2 + [""]


def test_entries_go_with_their_age_whoever_wrote_them(make: Make, clock: Callable[[float], None]) -> None:
    first = make(seconds=60)
    written(first, (1, 1), (1, 2))
    clock(40)
    second = first if isinstance(first, MemoryJournal) else make(seconds=60)
    written(second, (2, 1))
    clock(40)
    written(second, (2, 2))
    clock(40)
    written(second, (2, 3))
    assert positions(second) == [(2, 2), (2, 3)]
    assert second.read("main", (2, 1), (2, 3)).complete
    assert second.read("main", (1, 2), (2, 3)).reason == OUT_OF_REACH
    clock(1000)
    assert positions(second) == [(2, 2), (2, 3)], "the last ones stay until there is something newer"


def test_of_two_that_take_turns_none_takes_away_what_the_other_wrote_lately(redis_url: str, clock: Callable) -> None:
    one, two = RedisJournal(redis_url, seconds=60), RedisJournal(redis_url, seconds=60)
    written(one, (1, 1))
    clock(30)
    written(two, (2, 1), (2, 2))
    clock(10)
    written(one, (3, 1))
    clock(30)
    written(one, (3, 2))
    assert {(2, 1), (2, 2)} <= set(positions(one))
    clock(40)
    written(one, (3, 3))
    assert positions(one) == [(3, 2), (3, 3)]


def test_entries_go_where_they_are_too_many_bytes(make: Make) -> None:
    journal = make(most=400_000)
    for seq in range(1, 2001):
        # Texts that cannot be packed well.
        events: Events = {DataType.TRADE: (["A"], [bytes((seq * 7919 + n * n) % 251 for n in range(1000))])}
        assert journal.append("main", entry(1, seq, events=events))
    kept = positions(journal, until=(1, 9999))
    assert 200 < len(kept) < 1000
    assert kept[-1] == (1, 2000)
    assert journal.read("main", kept[0], kept[-1]).complete


def test_what_was_there_before_a_takeover_goes_where_both_are_too_much(redis_url: str) -> None:
    first, second = (RedisJournal(redis_url, most=100_000) for _ in range(2))
    noise = [bytes((seq * 7919 + n * n * n) % 251 for n in range(3000)) for seq in range(40)]
    for seq in range(1, 31):
        first.append("main", entry(1, seq, events={DataType.TRADE: (["A"], [noise[seq]])}))
    for seq in range(1, 21):
        assert second.append("main", entry(2, seq, events={DataType.TRADE: (["A"], [noise[seq]])}))
    assert positions(second)[0] == (2, 1)
    assert positions(second)[-1] == (2, 20)


def test_a_feed_that_is_no_more_leaves_nothing_in_redis(redis_url: str) -> None:
    written(RedisJournal(redis_url, seconds=60), (1, 1))
    assert 60_000 < redis.Redis.from_url(redis_url, protocol=2).pttl(KEY) < 600_000


def test_a_reading_is_bounded(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "READ_CHUNK", 7)
    journal = RedisJournal(redis_url)
    for seq in range(1, 51):
        journal.append("main", entry(1, seq, events=TRADES))
    assert len(journal.read("main", (1, 1), (1, 50)).entries) == 49
    monkeypatch.setattr(journals, "READ_BYTES", 10_000)
    reading = journal.read("main", (1, 1), (1, 50))
    assert (reading.complete, reading.reason) == (False, TOO_MUCH)
    assert 0 < len(reading.entries) < 20


def test_a_journal_that_does_not_answer_is_left_alone_for_a_second(redis_server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "TIMEOUT", 0.2)
    journal = RedisJournal(redis_server.url)
    written(journal, (1, 1))
    redis_server.hang()
    assert not journal.append("main", entry(1, 2))
    asked: list[object] = []
    monkeypatch.setattr(journal._client, "execute_command", lambda *args, **_: asked.append(args))
    assert not journal.append("main", entry(1, 3))
    assert asked == []
    monkeypatch.undo()
    assert journal.read("main", (1, 1), (1, 3)) == ([], False, UNAVAILABLE)
    redis_server.go_on()
    deadline = time.monotonic() + 10
    seq = 4
    while not journal.append("main", entry(1, seq)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
        seq += 1
    assert journal.read("main", (1, 1), (1, seq)).reason == HOLE


def test_what_is_no_entry_is_no_answer(redis_url: str) -> None:
    journal = RedisJournal(redis_url)
    written(journal, (1, 1))
    redis.Redis.from_url(redis_url, protocol=2).xadd(KEY, {"e": b"\xc1"}, id="1-2")
    assert journal.read("main", (1, 1), (1, 2)).reason == UNAVAILABLE


class Written(NamedTuple):
    """What a publisher sent, and whether the journal took it."""

    entry: Entry
    kept: bool


@st.composite
def histories(draw: st.DrawFn) -> list[Written]:
    """Terms of office, most of whose messages are kept; some end before their term is told, some lost something."""
    said: list[Written] = []
    epoch, last = 0, (0, 0)
    for _ in range(draw(st.integers(1, 4))):
        epoch += draw(st.integers(1, 3))
        count = draw(st.integers(1, 5))
        told = draw(st.integers(1, count + 1))
        recovered = draw(st.integers(0, 3)) > 0
        term = Term(*last, recovered, "" if recovered else "feed_broken")
        for seq in range(1, count + 1):
            kept = draw(st.integers(0, 7)) > 0
            said.append(Written(entry(epoch, seq, term=term if seq == told else None), kept))
        last = (epoch, count)
    return said


@pytest.fixture(scope="module")
def redis_of_this_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from tests.conftest import RedisServer

    server = RedisServer(tmp_path_factory.mktemp("journal"))
    server.start()
    yield server.url
    server.stop()


@pytest.mark.parametrize("kind", ["memory", "redis"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=histories(), trimmed=st.integers(0, 4), data=st.data())
def test_a_reading_is_complete_exactly_when_nothing_is_missing(
    kind: str, redis_of_this_module: str, said: list[Written], trimmed: int, data: st.DataObject
) -> None:
    if kind == "redis":
        redis.Redis.from_url(redis_of_this_module, protocol=2).flushall()
    journal: Journal = MemoryJournal() if kind == "memory" else RedisJournal(redis_of_this_module)
    kept = [one.entry for one in said if one.kept][trimmed:]
    for one in kept:
        assert journal.append("main", one)
    places = [(one.entry.epoch, one.entry.seq) for one in said]
    after, until = sorted((data.draw(st.sampled_from(places)), data.draw(st.sampled_from(places))))
    reading = journal.read("main", after, until)
    between = [one.entry for one in said if after < (one.entry.epoch, one.entry.seq) <= until]
    assert reading.entries == [one for one in between if one in kept]
    terms = {one.epoch: one.term for one in between if one.term is not None}
    begun = {one.epoch for one in between} - {after[0]}
    whole = between == reading.entries and begun <= terms.keys() and all(term.recovered for term in terms.values())
    assert (reading.complete, not reading.reason) == (whole, whole)
