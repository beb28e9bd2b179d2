"""Hearing a feed's group through the channel layer, in memory and in Redis, and taking over by it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import pytest
from channels.layers import channel_layers

from argus.config import Config
from marketdata.batch import Batch, decode
from marketdata.feed import Feed
from marketdata.lease import MemoryLease
from marketdata.listen import WAITING, Heard, Listener
from marketdata.publish import Bridge, PublishError
from marketdata.publisher import Publisher
from marketdata.sources.base import State
from marketdata.types import Parsed
from tests.feeds.scripted import ScriptedSource, quote
from tests.feeds.test_feed import push, wait_for

REDIS_LAYER = "channels_redis.pubsub.RedisPubSubChannelLayer"


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    bridge = Bridge()
    yield bridge
    bridge.unbind()


@pytest.fixture
def listen(bridge: Bridge) -> Iterator[Callable[[], Heard]]:
    """Starts listeners; what each hears."""
    started: list[Listener] = []

    def start() -> Heard:
        heard = Heard()
        listener = Listener("main", heard, bridge)
        listener.start()
        started.append(listener)
        wait_for(lambda: heard.joined)
        assert heard.take() is not None, "what came before may have been missed"
        return heard

    yield start
    for listener in started:
        listener.stop()


def use_redis(url: str, settings) -> None:
    host = {"address": url, "protocol": 2, "socket_timeout": None}
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": REDIS_LAYER, "CONFIG": {"hosts": [host]}}}
    channel_layers.backends.clear()


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_messages_are_heard_in_order_until_the_listener_is_stopped(kind: str, redis_url: str, settings, bridge: Bridge) -> None:
    if kind == "redis":
        use_redis(redis_url, settings)
    heard = Heard()
    listener = Listener("main", heard, bridge)
    listener.start()
    wait_for(lambda: heard.joined)
    bridge.send("another", b"no")
    for n in range(20):
        bridge.send("main", b"%d" % n)
    found = [heard.take(5) for _ in range(21)]
    assert [item.blob for item in found if item] == [None, *(b"%d" % n for n in range(20))]
    listener.stop()
    assert not heard.joined
    bridge.send("main", b"late")
    assert [item.blob for item in iter(lambda: heard.take(0.05), None) if item] == [None]


def test_a_listener_outlives_its_redis(redis_server, settings, bridge: Bridge, listen) -> None:
    use_redis(redis_server.url, settings)
    heard = listen()
    redis_server.stop()
    with pytest.raises(PublishError):
        bridge.send("main", b"lost")
    redis_server.start()
    deadline = time.monotonic() + 20
    while True:
        assert time.monotonic() < deadline, "nothing is heard any more"
        try:
            bridge.send("main", b"again")
        except PublishError:
            continue
        if (item := heard.take(0.2)) and item.blob == b"again":
            return


def test_an_error_of_the_layer_ends_nothing_and_says_that_something_may_be_missed(bridge: Bridge, listen, monkeypatch) -> None:
    from channels.layers import InMemoryChannelLayer

    heard = listen()

    async def broken(self: object, channel: str) -> dict[str, object]:
        raise ConnectionError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(InMemoryChannelLayer, "receive", broken)
        bridge.send("main", b"wakes it")
        assert heard.take(5) is not None
        wait_for(lambda: not heard.joined)
    wait_for(lambda: heard.joined)
    while heard.take(0.05):
        continue
    bridge.send("main", b"again")
    item = heard.take(5)
    assert item is not None
    assert item.blob == b"again"


def test_what_nobody_takes_is_bounded_and_said_to_be_missed() -> None:
    heard = Heard()
    for n in range(WAITING + 1):
        heard.put(b"%d" % n)
    first, second = heard.take(), heard.take()
    assert first is not None
    assert second is not None
    assert (first.blob, second.blob, heard.take()) == (None, b"%d" % WAITING, None)


class Stage:
    """What terminals of one pool share; ``sent`` and ``snapshots`` are what all of them published."""

    def __init__(self, bridge: Bridge) -> None:
        self.sent: list[Batch] = []
        self.snapshots: list[bytes] = []
        self._bridge = bridge
        self._lease = MemoryLease()

    def _send(self, feed: str, blob: bytes) -> None:
        self._bridge.send(feed, blob)
        self.sent.append(decode(blob))

    def feed(self, name: str) -> Feed:
        """A feed with a listener of its own, started and subscribed."""
        source, heard = ScriptedSource(push=True), Heard()
        source.answer = Parsed((quote("POLLED.SH"),))
        publisher = Publisher(
            feed="main",
            source="scripted",
            owner=name,
            lease=self._lease,
            send=self._send,
            save_snapshot=lambda feed, blob: self.snapshots.append(blob),
            load_snapshot=lambda feed: self.snapshots[-1] if self.snapshots else None,
            heard=heard,
        )
        listener = Listener("main", heard, self._bridge)
        config = Config(source_timeout=5, stale_after=60)
        feed = Feed(terminal=name, source=source, publisher=publisher, config=config, listener=listener)
        feed.start()
        feed.poll()
        return feed

    def count(self) -> int:
        """Messages about the symbol that is pushed."""
        return sum("A.SH" in batch.symbols for batch in self.sent)

    def times(self) -> list[int]:
        """The times of what was published of it."""
        bodies = [body for batch in self.sent for body in batch.fragments if b"A.SH" in body]
        return [int(body.split(b'"time":')[1].split(b",")[0]) for body in bodies]


def tell(feed: Feed, times: Iterable[int]) -> None:
    for time_ in times:
        push(feed.source, quote("A.SH", time=time_))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_the_standby_publishes_exactly_what_the_dead_terminal_has_not(
    kind: str, redis_url: str, settings, bridge: Bridge, monkeypatch
) -> None:
    if kind == "redis":
        use_redis(redis_url, settings)
    monkeypatch.setattr("marketdata.publisher.OVERLAP", 0.1)
    stage = Stage(bridge)
    first = stage.feed("first")
    wait_for(lambda: first.epoch is not None)
    second = stage.feed("second")
    try:
        wait_for(lambda: first.poll() and second.in_step and second.unbroken_since is not None)
        unbroken = second.unbroken_since or 0
        wait_for(lambda: time.monotonic() > unbroken + 0.2)
        for time_ in range(1, 30):
            tell(second, [time_])
            tell(first, [time_])
        wait_for(lambda: stage.count() == 29)
        tell(second, range(30, 40))
        wait_for(lambda: second.publisher.ledger.pending == 10)
        last = stage.sent[-1]
        first.source.state = State.DOWN  # type: ignore[attr-defined]
        wait_for(lambda: second.epoch is not None and stage.count() == 39)
        tell(second, [40])
        wait_for(lambda: stage.count() == 40)
        assert stage.times() == list(range(1, 41))
        (term,) = (batch.term for batch in stage.sent if batch.term and batch.epoch == second.epoch)
        assert term is not None
        assert (term.epoch, term.seq, term.recovered, term.reason) == (last.epoch, last.seq, True, "")
    finally:
        second.stop()
        first.stop()
