"""Clients, the web process and Redis fail in every way that is known, and whoever is left has the newest.

One deployment for all: Redis behind a relay, a worker with a simulated market, beat, and one web process.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import random
import re
import signal
import socket
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from marketdata.batch import Batch, decode
from tests.conformance.peer import TEXT, Peer, frame, request
from tests.conftest import RedisServer
from tests.e2e.crowd import Client, Crowd
from tests.e2e.relay import Relay
from tests.e2e.service import Service, free_port, get, wait_for

pytestmark = [pytest.mark.timeout(240)]

MARKET = 800
"""Symbols."""
SNAPSHOT = ":1:feed:main:snapshot"
"""Where Django's cache keeps what the publisher wrote down last."""
MEGABYTE = 1024 * 1024


class Stream(Service):
    """The service of this module."""

    redis: RedisServer
    relay: Relay
    port: int
    key: str

    def start_web(self) -> None:
        self.start("web", "manage.py", "serve", "--port", str(self.port))
        self.ready(self.port, "web")

    @property
    def web(self) -> psutil.Process:
        return psutil.Process(self.processes["web"].pid)

    def metrics(self, *names: str) -> dict[str, float]:
        """Of each metric the sum over its labels."""
        text = get(self.port, "/metrics", self.key)[1] or ""
        return {name: math.fsum(map(float, re.findall(rf"^{name}(?:{{.*}})? (\S+)$", str(text), re.MULTILINE))) for name in names}

    def held(self) -> dict[str, float]:
        """What the service holds for its clients: connections and views in the web process, counted connections in Redis."""
        held = self.metrics("argus_stream_connections", "argus_stream_views", "argus_stream_behind")
        with self.redis.client() as client:
            held["leases"] = sum(int(client.zcard(key)) for key in client.scan_iter("argus:connections:*", _type="zset"))
        return held

    def written(self) -> Batch | None:
        """What the publisher itself last wrote down of the market."""
        with self.redis.client() as client:
            found = client.get(SNAPSHOT)
        return decode(pickle.loads(found)) if isinstance(found, bytes) else None

    def slow(self) -> float:
        """How many clients have been cut off because they do not read."""
        return self.metrics("argus_stream_slow_total")["argus_stream_slow_total"]


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    directory = tmp_path_factory.mktemp("faults")
    with contextlib.ExitStack() as undo:
        redis_server = RedisServer(directory)
        redis_server.start()
        undo.callback(lambda: service.redis.stop())
        relay = undo.enter_context(Relay(redis_server.port))
        service = Stream(
            directory,
            REDIS_URL=f"redis://127.0.0.1:{relay.port}/0",
            ARGUS_SIMULATED_SYMBOLS=str(MARKET),
            ARGUS_POLL_INTERVAL="0.5",
            ARGUS_SEND_TIMEOUT="1",
            ARGUS_HEARTBEAT_INTERVAL="1",
        )
        undo.callback(service.kill)
        service.redis, service.relay, service.port = redis_server, relay, free_port()
        service.key = service.install_with_key()
        service.start("worker", "manage.py", "terminal_worker", "main")
        service.start("beat", "-m", "celery", "-A", "argus", "beat")
        service.start_web()
        wait_for(lambda: (batch := service.written()) is not None and len(batch.symbols) == MARKET, "the whole market")
        yield service
        service.close()


@pytest.fixture
def crowd(stream: Stream) -> Iterator[Crowd]:
    """The clients of one test. Nothing of them is left after it."""
    wait_for(lambda: not any(stream.held().values()), f"nobody else to be there: {stream.held()}", 45)
    with Crowd(stream.port, stream.key) as crowd:
        yield crowd
    wait_for(lambda: not any(stream.held().values()), f"nothing to be left of the clients: {stream.held()}", 45)


def terms(service: Stream, count: int) -> list[dict[str, Any]]:
    """So many subscriptions: to all, to twenty symbols of one's own, to a market, to bars, at another pace."""
    batch = service.written()
    assert batch is not None
    rng = random.Random(count)
    kinds: list[dict[str, Any]] = [
        {"symbols": ["*"]},
        {"symbols": rng.sample(batch.symbols, 20)},
        {"symbols": ["market:SH"]},
        {"symbols": rng.sample(batch.symbols, 20), "update_frequency": "1s"},
        {"symbols": rng.sample(batch.symbols, 20)},
    ]
    return list(islice(cycle(kinds), count))


def watching(service: Stream, crowd: Crowd, count: int, **how: bool) -> list[Client]:
    """So many clients that have what they asked for."""
    clients = crowd.join(terms(service, count), **how)

    def there() -> bool:
        assert not crowd.contradictions()[:3]
        return all(client.subscribed and client.newest for client in clients)

    wait_for(there, "the first quotes of everybody", 30)
    return clients


def written_after(service: Stream, since: float) -> dict[str, dict[str, Any]] | None:
    """The market as the publisher wrote it down after this time (s): symbol -> quote."""
    batch = service.written()
    if batch is None or batch.published < since * 1000:
        return None
    return {symbol: _plain(fragment) for symbol, fragment in zip(batch.symbols, batch.fragments, strict=True)}


def _plain(fragment: bytes) -> dict[str, Any]:
    """A quote without the number of its message: whoever takes a feed over numbers anew."""
    quote: dict[str, Any] = msgspec.json.decode(fragment)
    del quote["seq"]
    return quote


def expect_the_newest(service: Stream, crowd: Crowd, clients: list[Client], *, since: float, seconds: float = 40) -> None:
    """Everybody comes to have what the publisher has after this time, or newer, and nobody was told what cannot be."""
    wait_for(lambda: all(client.subscribed for client in clients), "everybody to be back", seconds)
    market = wait_for(lambda: written_after(service, since), "the publisher to go on", seconds)

    def has(client: Client) -> bool:
        seen = list(client.newest.items())
        return all(at > market[symbol]["time"] or _plain(raw) == market[symbol] for symbol, (at, raw) in seen)

    wait_for(lambda: all(map(has, clients)), "everybody to have the newest", seconds)
    assert not crowd.contradictions()[:3]


def mute(service: Stream) -> socket.socket:
    """A client that subscribes to everything and never reads."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", service.port))
    everything = msgspec.json.encode(
        {"action": "subscribe", "symbols": ["*"], "data_types": ["quote", "orderbook", "price", "volume"]}
    )
    client.sendall(request(X_API_Key=service.key))
    time.sleep(0.05)
    client.sendall(frame(TEXT, everything))
    return client


# Clients


def test_one_client_in_ten_never_reads(stream: Stream, crowd: Crowd) -> None:
    """Each is cut off, comes again and reads as little; the web process keeps its size and the others get everything."""
    clients = watching(stream, crowd, 45)
    before = stream.slow()
    sizes: list[int] = []
    with contextlib.ExitStack() as undo:
        silent = [undo.enter_context(contextlib.closing(mute(stream))) for _ in range(5)]
        replaced = 0
        while replaced < 10:
            time.sleep(0.2)
            sizes.append(stream.web.memory_info().rss)
            while replaced < stream.slow() - before:
                replaced += 1
                silent.append(undo.enter_context(contextlib.closing(mute(stream))))
    third = len(sizes) // 3
    assert max(sizes[-third:]) - max(sizes[:third]) < 20 * MEGABYTE, sizes
    assert [client.connected for client in clients] == [1] * len(clients)
    expect_the_newest(stream, crowd, clients, since=time.time())


def test_clients_that_are_cut_off_at_random_leave_nothing_behind(stream: Stream, crowd: Crowd) -> None:
    """Half of them at a time, by resets, in the midst of a frame or with a goodbye, while others come."""
    rng = random.Random(4)
    steady = watching(stream, crowd, 5)
    held = stream.held()
    for _ in range(4):
        passing = watching(stream, crowd, 30, stays=False)
        assert stream.held()["argus_stream_connections"] == held["argus_stream_connections"] + 30
        rng.shuffle(passing)
        half = [Peer(stream.port, request(X_API_Key=stream.key)) for _ in range(5)]
        for peer in half:
            peer.send(frame(TEXT, b"x" * 1000)[: rng.randrange(1, 1000)])
        crowd.reset(passing[:15])
        for peer in half:
            peer.socket.close()
        for client in passing[15:]:
            crowd.do(client.say(action="unsubscribe"))
        crowd.reset(passing[15:])
        wait_for(lambda: stream.held() == held, f"all as it was: {held}", 30)
    assert [client.connected for client in steady] == [1] * len(steady)
    expect_the_newest(stream, crowd, steady, since=time.time())


def test_clients_that_vanish_without_a_word_are_noticed(stream: Stream, crowd: Crowd) -> None:
    """Their pings are not answered; this web process asks after one second and waits one more."""
    port = free_port()
    stream.start("pinging", "-m", "tests.conformance.target", "uvicorn", str(port))
    try:
        stream.ready(port, "pinging")
        with Relay(port) as relay:
            crowd.port = relay.port
            idle = crowd.join([{"symbols": ["600000.SH"], "update_frequency": "1m"}] * 5, stays=False)
            busy = crowd.join(terms(stream, 10), stays=False)
            wait_for(lambda: all(client.subscribed for client in idle + busy), "everybody to be there")
            held = stream.held()
            assert held["leases"] == 15
            relay.fall_silent()
            crowd.reset(idle + busy)
            wait_for(lambda: stream.held()["leases"] == 0, "them to be noticed", 20)
    finally:
        stream.stop("pinging")


# The web process


def test_the_web_process_is_killed_and_comes_again(stream: Stream, crowd: Crowd) -> None:
    clients = watching(stream, crowd, 30)
    for _ in range(2):
        since = time.time()
        stream.stop("web", signal.SIGKILL)
        wait_for(lambda: not any(client.subscribed for client in clients), "everybody to know")
        stream.start_web()
        expect_the_newest(stream, crowd, clients, since=since)
    assert all(client.connected >= 3 for client in clients)


# Redis


def epochs(clients: list[Client]) -> set[int]:
    return {epoch for client in clients for epoch, _ in client.position.values()}


def test_redis_is_killed_and_comes_again_empty(stream: Stream, crowd: Crowd) -> None:
    clients = watching(stream, crowd, 30)
    before = epochs(clients)
    stream.redis.stop()
    time.sleep(2)
    since = time.time()
    stream.redis.start()
    expect_the_newest(stream, crowd, clients, since=since, seconds=60)
    wait_for(lambda: min(epochs(clients)) > max(before), "a larger epoch: what was lost is not known", 30)
    assert [client.connected for client in clients] == [1] * len(clients), "no client is cut off for it"


def test_redis_is_slow_and_then_stands_still(stream: Stream, crowd: Crowd) -> None:
    clients = watching(stream, crowd, 30)
    pids = {name: process.pid for name, process in stream.processes.items()}
    size = stream.web.memory_info().rss
    stream.relay.delay = 0.3
    time.sleep(5)
    stream.relay.delay = 0.0
    stream.relay.stall()
    time.sleep(6)
    stream.relay.flow()
    expect_the_newest(stream, crowd, clients, since=time.time(), seconds=60)
    assert [client.connected for client in clients] == [1] * len(clients), "no client is cut off for it"
    assert {name: process.pid for name, process in stream.processes.items() if process.poll() is None} == pids
    assert stream.web.memory_info().rss - size < 30 * MEGABYTE


def test_another_redis_takes_over(stream: Stream, crowd: Crowd, tmp_path: Path) -> None:
    """A replica that has followed is promoted, and the address leads to it."""
    clients = watching(stream, crowd, 30)
    before = epochs(clients)
    replica = RedisServer(tmp_path)
    replica.start()
    with replica.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", stream.redis.port)
        wait_for(lambda: client.info("replication")["master_link_status"] == "up", "the replica to follow")
        stream.redis.stop()
        client.execute_command("REPLICAOF", "NO", "ONE")
    stream.redis = replica
    stream.relay.turn(replica.port)
    expect_the_newest(stream, crowd, clients, since=time.time(), seconds=60)
    assert min(epochs(clients)) >= max(before), "nobody goes back to an epoch before"
    assert [client.connected for client in clients] == [1] * len(clients), "no client is cut off for it"


# For long


@pytest.mark.parametrize(
    "seconds", [30, pytest.param(1800, marks=[pytest.mark.soak, pytest.mark.timeout(2400)])], ids=["short", "long"]
)
def test_memory_and_descriptors_stay_as_they_are_under_load(stream: Stream, crowd: Crowd, seconds: int) -> None:
    """Clients come, change what they want, are cut off and do not read: the web process stays as it was once it was warm."""
    rng = random.Random(seconds)
    steady = watching(stream, crowd, 30)
    samples: list[tuple[int, int]] = []
    end = time.monotonic() + seconds
    with contextlib.ExitStack() as undo:
        while time.monotonic() < end:
            crowd.reset(rng.sample(steady, 5))
            for client in rng.sample([client for client in steady if client.subscribed], 5):
                crowd.do(client.say(action="update", update_frequency=rng.choice(["realtime", "1s", "5s"])))
            if len(samples) % 10 == 0:
                silent = undo.enter_context(contextlib.closing(mute(stream)))
            elif len(samples) % 10 == 9:
                silent.close()
            time.sleep(0.5)
            web = stream.web
            samples.append((web.memory_info().rss, web.num_fds()))
    third = len(samples) // 3
    warm, last = samples[third : 2 * third], samples[-third:]
    grown = (max(rss for rss, _ in last) - max(rss for rss, _ in warm)) / MEGABYTE
    assert grown < 10, [rss // MEGABYTE for rss, _ in samples]
    assert max(fds for _, fds in last) <= max(fds for _, fds in warm) + 10, [fds for _, fds in samples]
    expect_the_newest(stream, crowd, steady, since=time.time())
