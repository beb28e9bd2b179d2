"""Beat's schedule, with the terminals as the roster has them: one that comes or goes while beat runs is polled, or is not, from
then on."""

from __future__ import annotations

from typing import Any, Final

from celery.beat import Scheduler

from argus.celery import schedule_of
from marketdata.terminals import roster

LOOK: Final = 1.0
"""Seconds between two looks at the roster, at the most."""


class RosterScheduler(Scheduler):
    """Celery's own scheduler, whose entries follow the roster. What runs on keeps its rhythm."""

    _of: roster.Roster | None = None

    def setup_schedule(self) -> None:
        """Celery asks for the first schedule."""
        self._follow()

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """One look at what is due; the seconds until the next one."""
        if roster.current() != self._of:
            self._follow()
        return min(LOOK, float(super().tick(*args, **kwargs)))

    def _follow(self) -> None:
        self._of = roster.current()
        enabled = [name for name, terminal in self._of.terminals.items() if terminal.enabled]
        entries: dict[str, Any] = {**self.app.conf.beat_schedule, **schedule_of(enabled)}
        self.merge_inplace(entries)
