"""The channel layer's edge between publishers: keeps what it took, lets every publisher hear it, and can be cut."""

from __future__ import annotations

from collections.abc import Callable

from marketdata.batch import Batch, decode
from marketdata.journal import UNAVAILABLE, Entry, Journal, Reading
from marketdata.lease import Lease
from marketdata.ledger import Position
from marketdata.listen import Heard
from marketdata.publish import PublishError
from marketdata.publisher import Publisher
from marketdata.recordings.columns import Message


class Wire:
    """``broken``: it takes nothing. ``lossy``: it takes a message and says that it did not."""

    def __init__(self) -> None:
        self.sent: list[Batch] = []
        self.snapshots: list[Batch] = []
        self.snapshot: bytes | None = None
        self.broken = False
        self.lossy = False
        self.heard: list[Heard] = []

    def send(self, feed: str, blob: bytes) -> None:
        if self.broken:
            raise PublishError("cut")
        self.sent.append(decode(blob))
        for heard in self.heard:
            heard.put(blob)
        if self.lossy:
            raise PublishError("no answer")

    def save(self, feed: str, blob: bytes) -> None:
        self.snapshot = blob
        self.snapshots.append(decode(blob))

    def load(self, feed: str) -> bytes | None:
        return self.snapshot

    def bodies(self, since: int = 0) -> list[tuple[int, dict[str, bytes]]]:
        """Seq and quotes of each message that carried some."""
        return [
            (batch.seq, dict(zip(batch.symbols, batch.fragments, strict=True))) for batch in self.sent[since:] if batch.symbols
        ]


class Unavailable:
    """A journal that takes nothing and knows nothing."""

    def append(self, feed: str, entry: Entry) -> bool:
        return False

    def read(self, feed: str, after: Position, until: Position) -> Reading:
        return Reading([], False, UNAVAILABLE)


def publisher(
    wire: Wire,
    lease: Lease,
    owner: str = "a",
    *,
    hears: bool = True,
    journal: Journal | None = None,
    record: Callable[[Message], None] | None = None,
) -> Publisher:
    """A publisher on a wire; one that does not hear is told nothing of what the wire took."""
    heard = Heard()
    if hears:
        wire.heard.append(heard)
        heard.join(True)
    return Publisher(
        feed="main",
        source="test",
        owner=owner,
        lease=lease,
        send=wire.send,
        save_snapshot=wire.save,
        load_snapshot=wire.load,
        heard=heard,
        journal=journal,
        record=record,
    )


def group(time: int = 1, **quotes: int) -> dict[str, bytes]:
    """Symbol -> body of a quote of a time with a volume."""
    return {
        symbol: b'{"symbol":"%b","time":%d,"volume":%d}' % (symbol.encode(), time, volume) for symbol, volume in quotes.items()
    }
