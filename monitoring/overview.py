"""The admin's first page: how the feed, the clients and the terminals are at this moment."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Collection
from typing import Any, NamedTuple

from django.db.models import Count, Q
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from prometheus_client import Counter

from argus.access.models import APIKey
from argus.config import config
from marketdata import feeds, metrics
from marketdata.latest import store
from marketdata.sources.base import State
from streaming.models import LiveConnection

REFRESH_MS = 2000
CHART_POINTS = 90
PROCESS = f"{socket.gethostname()}:{os.getpid()}"
"""Counters are this process's own: the page starts its rates afresh when another one answers."""

GOOD, WARNING, BAD, NEUTRAL = "good", "warning", "bad", "neutral"


class Figure(NamedTuple):
    """One card: ``level`` colours it."""

    id: str
    title: str
    value: str
    detail: str
    level: str


class Terminal(NamedTuple):
    """One row of the terminals' table."""

    id: str
    name: str
    state: str
    detail: str
    level: str


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What the page shows before its script asks for news."""
    chart = {
        "labels": [""] * CHART_POINTS,
        "datasets": [
            {
                "label": _("Quotes per second"),
                "data": [None] * CHART_POINTS,
                "borderColor": "var(--color-primary-600)",
                "displayYAxis": True,
                "maxTicksXLimit": 4,
                "tension": 0.2,
            }
        ],
    }
    context.update(
        title=_("Overview"), figures=_figures(), terminals=_terminals(), chart=json.dumps(chart), refresh_ms=REFRESH_MS
    )
    return context


def figures(request: HttpRequest) -> JsonResponse:
    """The same as JSON, for the page's script."""
    return JsonResponse(
        {
            "process": PROCESS,
            "quotes": _quotes(),
            "figures": [figure._asdict() for figure in _figures()],
            "terminals": [terminal._asdict() for terminal in _terminals()],
        },
        headers={"Cache-Control": "no-store"},
    )


def _figures() -> list[Figure]:
    return [_feed(), _stream(), _symbols(), _rate(), _connections(), _keys(), _errors()]


def _feed() -> Figure:
    age = store.age()
    if age is None:
        return Figure("feed", _("Feed"), _("No data yet"), _("Nothing has come from the source since the start."), BAD)
    since = _("The source's last word came %(seconds).1f s ago.") % {"seconds": age}
    if age > config.stale_after:
        return Figure("feed", _("Feed"), _("Silent"), since, BAD)
    return Figure("feed", _("Feed"), _("Live"), since, GOOD)


def _stream() -> Figure:
    streams = store.streams()
    value = ", ".join(f"{stream['seq']}" for stream in streams.values()) or "–"
    detail = ", ".join(f"{name} · {_('epoch')} {stream['epoch']}" for name, stream in streams.items())
    return Figure("stream", _("Last message"), value, detail or _("No feed yet"), NEUTRAL)


def _symbols() -> Figure:
    sources = ", ".join(sorted({feed.source for feed in store.feeds.values()}))
    return Figure("symbols", _("Symbols"), str(len(store.fragments)), sources or config.source, NEUTRAL)


def _rate() -> Figure:
    detail = _("%(count)d since the start of this process") % {"count": _quotes()}
    return Figure("rate", _("Quotes per second"), "–", detail, NEUTRAL)


def _connections() -> Figure:
    count = LiveConnection.objects.live().aggregate(all=Count("pk"), behind=Count("pk", filter=Q(behind=True)))
    behind = count["behind"]
    detail = ngettext("%(count)d reads too slowly", "%(count)d read too slowly", behind) % {"count": behind}
    return Figure("connections", _("Connections"), str(count["all"]), detail, WARNING if behind else NEUTRAL)


def _keys() -> Figure:
    now = timezone.now()
    working = APIKey.objects.filter(revoked_at=None).filter(Q(expires_at=None) | Q(expires_at__gt=now))
    plans = list(working.order_by("plan__priority", "plan__name").values_list("plan__name").annotate(Count("pk")))
    detail = " · ".join(f"{name} {count}" for name, count in plans)
    total = sum(count for _name, count in plans)
    return Figure("keys", _("Keys in use"), str(total), detail or _("Nobody can connect without one."), NEUTRAL)


def _errors() -> Figure:
    parse = _total(metrics.PARSE_ERRORS)
    polls = _total(metrics.POLLS, but=("ok", "overlap", "stopping"))
    publish = _total(metrics.PUBLISH_FAILURES)
    detail = _("unreadable records %(parse)d · failed polls %(polls)d · messages not taken %(publish)d")
    total = parse + polls + publish
    values = {"parse": parse, "polls": polls, "publish": publish}
    return Figure("errors", _("Errors in this process"), str(total), detail % values, WARNING if total else NEUTRAL)


def _total(counter: Counter, but: Collection[str] = ()) -> int:
    """The sum of a counter over its labels, without those outcomes."""
    samples = (sample for metric in counter.collect() for sample in metric.samples if sample.name.endswith("_total"))
    return int(sum(sample.value for sample in samples if sample.labels.get("outcome", "") not in but))


def _quotes() -> int:
    return sum(feed.quotes for feed in store.feeds.values())


def _terminals() -> list[Terminal]:
    return [_terminal(name, address) for name, address in config.addresses.items()]


def _terminal(name: str, address: str) -> Terminal:
    feed = feeds.running(name)
    if feed is None:
        return Terminal(name, name, _("in a worker of its own"), address, NEUTRAL)
    status = feed.source.status()
    texts = {
        State.STARTING: (_("starting"), WARNING),
        State.UP: (_("up"), GOOD),
        State.DOWN: (_("down"), BAD),
        State.FINISHED: (_("finished"), NEUTRAL),
    }
    text, level = texts[status.state]
    role = _("publishes") if feed.publisher.active else _("stands by")
    known = [feed.source.name, role, status.address or address, status.version, status.detail]
    return Terminal(name, name, text, " · ".join(word for word in known if word), level)
