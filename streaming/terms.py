"""Whether a change of a feed's publisher lost anything on the way to this process, and what its clients are told. Sans-I/O."""

from __future__ import annotations

from dataclasses import dataclass

from marketdata.batch import Batch
from streaming.protocol import Epoch

Position = tuple[int, int]
"""Epoch and seq."""

NOWHERE: Position = (0, 0)
MISSED = "missed"
"""The reason where the publishers lost nothing but this process did, or cannot know."""


@dataclass(slots=True)
class _Heard:
    """``since``: the message since which none was missed here; ``before``: where the epoch before this one ended here;
    ``untold``: an epoch has begun of which the clients have not been told."""

    since: Position
    before: Position = NOWHERE
    untold: bool = False


class Terms:
    """Every feed's terms of office as they came here.

    Of each epoch but the first one here the clients are told once: when its ``term`` has come, or, as soon as something of it
    is missed before that, that it is not known to be whole.
    """

    def __init__(self) -> None:
        self._feeds: dict[str, _Heard] = {}

    def heard(self, batch: Batch, before: Position, *, gap: bool) -> Epoch | None:
        """A message or a snapshot has moved the feed on from ``before``, past something that did not come if ``gap``. What the
        clients are to be told after it."""
        at = (batch.epoch, batch.seq)
        heard = self._feeds.get(batch.feed)
        if heard is None or before == NOWHERE:
            self._feeds[batch.feed] = _Heard(since=at)
            return None
        if batch.epoch != before[0]:
            if heard.untold:
                # What the epoch before had to say of the one before that did not come.
                heard.since = at
            heard.before, heard.untold = before, True
        if gap:
            heard.since = at
        if not heard.untold:
            return None
        term = batch.term
        if term is None and not gap:
            return None
        heard.untold = False
        end = NOWHERE if term is None else (term.epoch, term.seq)
        recovered, reason = False, MISSED
        if term is not None and not term.recovered:
            reason = term.reason
        elif heard.since <= ((term and term.heard) or end) <= heard.before:
            recovered, reason = True, ""
        epoch, seq = max(end, heard.before)
        return Epoch(
            feed=batch.feed,
            epoch=batch.epoch,
            seq=batch.seq,
            previous={"epoch": epoch, "seq": seq},
            recovered=recovered,
            reason=reason,
        )

    def forget(self, feed: str) -> None:
        """The feed is no more."""
        self._feeds.pop(feed, None)
