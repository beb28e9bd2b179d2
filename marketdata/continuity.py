"""Since when nothing of a terminal's own quotes can have got lost: pure, by what its source says of itself."""

from __future__ import annotations

from marketdata.sources.base import SourceStatus, State


class Continuity:
    """Looked at often. ``since``: of the clock that ``look`` is given, None while it is broken."""

    def __init__(self) -> None:
        self.since: float | None = None
        self._losses: tuple[int, int] | None = None

    def look(self, status: SourceStatus, now: float, *, subscribed: bool) -> None:
        """A source that is up, pushes, and has neither been interrupted nor dropped anything since the last look."""
        losses = (status.interruptions, status.dropped)
        if not subscribed or status.state not in (State.UP, State.FINISHED):
            self.since = None
        elif self.since is None or losses != self._losses:
            self.since = now
        self._losses = losses
