"""Several web processes on one port: all are replaced, one is killed, Redis forgets everything, and no event is lost unsaid.

What a client has is compared with the journal, which the publisher writes before anybody hears of a message, and with the trades'
own numbers, which have no holes in the simulated market.
"""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import msgspec
import psutil
import pytest

from marketdata.journal import Entry, RedisJournal
from marketdata.types import EVENTS, DataType
from tests.conftest import RedisServer
from tests.e2e.crowd import Client, Crowd, Happened
from tests.e2e.service import free_port, wait_for
from tests.e2e.test_stream_faults import Stream, expect_the_newest
from tests.runner.test_processes import LINUX, connections, two_free_ports

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(not LINUX, reason="only Linux divides a port's connections among processes"),
]

MARKET = 1200
"""Symbols."""
CLIENTS = 60


class Several(Stream):
    """Redis, a worker with a simulated market, beat, and two web processes on one port, each on one of its own too."""

    own: tuple[int, int]

    @property
    def processes_of_web(self) -> list[psutil.Process]:
        return psutil.Process(self.processes["web"].pid).children()

    def sessions(self) -> int:
        """How many sessions are kept."""
        with self.redis.client() as client:
            return sum(1 for _ in client.scan_iter(":1:stream-session:*", 1000))

    def wishes(self) -> int:
        """How many processes have said what trades and bars they want."""
        with self.redis.client() as client:
            return sum(1 for key in client.scan_iter(":1:demand:*", 1000) if key.count(b":") == 3)

    def journal(self) -> list[Entry]:
        """All that the publisher has written of what it published."""
        with self.redis.client() as client:
            (newest,) = client.xrevrange("argus:feed:main:journal", "+", "-", 1)
        epoch, seq = map(int, newest[0].split(b"-"))
        entries = RedisJournal(self.redis.url).read("main", (epoch, 0), (epoch, seq)).entries
        assert [entry.seq for entry in entries] == list(range(1, seq + 1))
        return entries


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    directory = tmp_path_factory.mktemp("several")
    with contextlib.ExitStack() as undo:
        redis_server = RedisServer(directory)
        redis_server.start()
        undo.callback(redis_server.stop)
        service = Several(
            directory,
            REDIS_URL=redis_server.url,
            ARGUS_SIMULATED_SYMBOLS=str(MARKET),
            ARGUS_POLL_INTERVAL="0.5",
            ARGUS_HEARTBEAT_INTERVAL="1",
        )
        undo.callback(service.kill)
        service.redis, service.port, service.own = redis_server, free_port(), two_free_ports()
        service.key = service.install_with_key()
        service.start("worker", "manage.py", "terminal_worker", "main")
        service.start("beat", "-m", "celery", "-A", "argus", "beat")
        web = ("manage.py", "serve", "--port", str(service.port), "--processes", "2", "--own-port", str(service.own[0]))
        service.start("web", *web)
        for port in service.own:
            service.ready(port, "web")
        wait_for(lambda: (batch := service.written()) is not None and len(batch.symbols) == MARKET, "the whole market")
        yield service
        service.close()


@pytest.fixture
def crowd(several: Several) -> Iterator[Crowd]:
    """Clients of both processes that want states, trades and bars, together and apart, all of whom have some."""
    batch = several.written()
    assert batch is not None
    rng = random.Random(5)
    kinds: list[dict[str, Any]] = [
        {"symbols": rng.sample(batch.symbols, 20), "data_types": ["quote", "trade"]},
        {"symbols": rng.sample(batch.symbols, 20), "data_types": ["trade", "kline:1m"]},
        {"symbols": ["market:SH"], "data_types": ["trade"]},
        {"symbols": rng.sample(batch.symbols, 20), "data_types": ["quote", "trade"], "update_frequency": "1s"},
        {"symbols": ["*"]},
        {"symbols": rng.sample(batch.symbols, 50), "data_types": ["quote", "trade", "kline:1m"]},
    ]
    before = several.sessions()
    with Crowd(several.port, several.key) as crowd:
        clients = crowd.join(islice(cycle(kinds), CLIENTS), resumes=True)
        wait_for(lambda: all(client.subscribed and client.position for client in clients), "all to have some", 30)
        wait_for(lambda: several.sessions() >= before + CLIENTS, "their sessions to be kept")
        assert 0 not in (connections(port, several.key) for port in several.own)
        yield crowd


def wants_events(client: Client) -> bool:
    return "trade" in client.terms.get("data_types", ())


def known(client: Client) -> dict[str, list[Happened]]:
    """What happened, by line, as the client was told."""
    found: dict[str, list[Happened]] = defaultdict(list)
    for event in list(client.happened):
        found[event.line].append(event)
    return found


def published(service: Several, client: Client, entries: list[Entry]) -> dict[str, list[Happened]]:
    """What happened, by line, of what a client wants, as the publisher wrote it down, from the first that the client has."""
    batch = service.written()
    assert batch is not None
    wanted = set(client.terms["symbols"])
    if "market:SH" in wanted:
        wanted = {symbol for symbol in batch.symbols if symbol.endswith(".SH")}
    events = dict.fromkeys(
        Happened.of(entry.epoch, "trade" if data_type is DataType.TRADE else "kline", symbol, fragment)
        for entry in entries
        for data_type in EVENTS.intersection(map(DataType, client.terms["data_types"]))
        for symbol, fragment in zip(*entry.events.get(data_type, ((), ())), strict=True)
        if symbol in wanted
    )
    found: dict[str, list[Happened]] = defaultdict(list)
    first = {line: here[0] for line, here in known(client).items()}
    for event in events:
        if found[event.line] or event == first.get(event.line):
            found[event.line].append(event)
    return found


def expect_every_event(service: Several, clients: list[Client]) -> None:
    """Each client comes to have, once and in order, every event that the publisher has written down until now."""
    entries = service.journal()
    truth = {client: published(service, client, entries) for client in clients if "trade" in client.terms.get("data_types", ())}

    def missing(client: Client) -> dict[str, int]:
        here = known(client)
        return {what: left for what, fragments in truth[client].items() if (left := len(fragments) - len(here[what])) > 0}

    deadline = time.monotonic() + 10
    while any(map(missing, truth)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for client, happened in truth.items():
        here = known(client)
        for what, fragments in happened.items():
            assert here[what][: len(fragments)] == fragments, (what, missing(client), client.terms, client.resumed)
    assert sum(len(client.happened) for client in truth) > 1000, "a test of events needs some"


def holes(client: Client) -> list[tuple[str, int, int]]:
    """Where the numbers of a symbol's trades leave some out although the client was told that nothing is missing."""
    last: dict[str, tuple[int, int]] = {}
    found = []
    for event, stretch in list(client.happened.items()):
        if event.line != "trade":
            continue
        trade = msgspec.json.decode(event.fragment)
        before = last.get(trade["symbol"])
        if before is not None and before[1] == stretch and trade["index"] not in (before[0] + 1, 1):
            found.append((trade["symbol"], before[0], trade["index"]))
        last[trade["symbol"]] = (trade["index"], stretch)
    return found


def test_all_web_processes_are_replaced_under_load_and_no_event_is_lost(several: Several, crowd: Crowd) -> None:
    before = several.processes_of_web
    since = time.time()
    several.processes["web"].send_signal(signal.SIGHUP)
    wait_for(lambda: "all web processes have been replaced" in several.log("web"), "all to be replaced")
    assert len(several.processes_of_web) == 2 and not set(before) & set(several.processes_of_web)
    expect_the_newest(several, crowd, crowd.clients, since=since)
    expect_every_event(several, crowd.clients)
    for client in crowd.clients:
        assert client.connected >= 2 and client.goodbyes == client.connected - 1, "each was told before it was cut off"
        assert client.resumed == [True] * (client.connected - 1), "one message brought back all"
        assert not holes(client)
    assert not crowd.contradictions()[:3]


def test_a_web_process_is_killed_and_no_event_is_lost(several: Several, crowd: Crowd) -> None:
    since = time.time()
    victim = several.processes_of_web[0]
    victim.kill()
    wait_for(lambda: len(several.processes_of_web) == 2 and victim not in several.processes_of_web, "another in its place")
    for port in several.own:
        several.ready(port, "web")
    expect_the_newest(several, crowd, crowd.clients, since=since)
    expect_every_event(several, crowd.clients)
    cut = [client for client in crowd.clients if client.connected > 1]
    assert 0 < len(cut) < CLIENTS
    for client in crowd.clients:
        assert client.goodbyes == 0 and client.resumed == [True] * (client.connected - 1)
        assert not holes(client)
    assert not crowd.contradictions()[:3]


def test_redis_forgets_everything_and_nobody_is_told_that_all_is_well_when_it_is_not(several: Several, crowd: Crowd) -> None:
    """The journal and the sessions are gone. Half of the clients are cut off at that moment."""
    several.redis.stop()
    half = crowd.clients[::2]
    crowd.reset(half)
    time.sleep(1)
    since = time.time()
    several.redis.start()
    expect_the_newest(several, crowd, crowd.clients, since=since, seconds=30)
    wait_for(lambda: several.wishes() == 2, "both processes to have said again what their clients want")
    followers = [client for client in crowd.clients if "trade" in client.terms.get("data_types", ())]
    counts = [len(client.happened) for client in followers]
    wait_for(lambda: all(len(c.happened) > n for c, n in zip(followers, counts, strict=True)), "events for everybody", 30)
    expect_numbers_to_agree(crowd.clients)
    assert not crowd.contradictions()[:3]


def expect_numbers_to_agree(clients: list[Client]) -> None:
    """Nobody misses a trade without having been told that some may be missing."""
    told = {id(client): found for client in clients if (found := holes(client))}
    assert not told, (len(told), list(told.values())[:3], [client.resumed for client in clients if id(client) in told])
