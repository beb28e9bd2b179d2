"""The admin's first page: how the feed, the clients and the terminals are at this moment."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from datetime import datetime
from statistics import fmean
from typing import Any, NamedTuple

from django.db.models import Count, Q
from django.http import HttpRequest, JsonResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from prometheus_client import Counter

from argus.access.models import APIKey
from argus.config import config
from argus.console import SOURCES
from marketdata import feeds, metrics
from marketdata.calendar import SHANGHAI
from marketdata.latest import store
from marketdata.sources.base import State
from streaming.metrics import collector
from streaming.models import LiveConnection

REFRESH_MS = 2000
CHART_SECONDS = 299
RATE_SECONDS = 10
"""The figure is the mean of so many seconds: snapshots come in waves of three."""

GOOD, WARNING, BAD, NEUTRAL = "good", "warning", "bad", "neutral"
NOTHING = "–"


class Figure(NamedTuple):
    """One card: ``level`` colours it, ``link`` leads to more."""

    id: str
    title: str
    value: str
    detail: str
    level: str = NEUTRAL
    link: str = ""


class Terminal(NamedTuple):
    """One row of the terminals' list."""

    id: str
    name: str
    state: str
    detail: str
    level: str


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What the page shows before its script asks for news."""
    line = {
        "data": [],
        "borderColor": "var(--color-primary-600)",
        "displayYAxis": True,
        "tension": 0.2,
    }
    chart = {"labels": [], "datasets": [{"label": _("Quotes per second"), **line}]}
    context.update(title=_("Overview"), figures=_figures(), terminals=_terminals(), chart=json.dumps(chart))
    context.update(refresh_ms=REFRESH_MS, refresh_seconds=REFRESH_MS // 1000)
    return context


def figures(request: HttpRequest) -> JsonResponse:
    """The same as JSON, for the page's script."""
    return JsonResponse(
        {
            "time": f"{datetime.now(SHANGHAI):%H:%M:%S}",
            "chart": store.throughput.last(CHART_SECONDS),
            "figures": [figure._asdict() for figure in _figures()],
            "terminals": [terminal._asdict() for terminal in _terminals()],
        },
        headers={"Cache-Control": "no-store"},
    )


def _figures() -> list[Figure]:
    return [_feed(), _rate(), _symbols(), _stream(), _connections(), _slow(), _keys(), _errors()]


def _feed() -> Figure:
    title = _("Feed")
    age = store.age()
    if age is None:
        return Figure("feed", title, _("No data yet"), _("Nothing has come from the source since the start."), BAD)
    since = _("heard from %(seconds).1f s ago") % {"seconds": age}
    if age > config.stale_after:
        return Figure("feed", title, _("Silent"), since, BAD)
    return Figure("feed", title, _("Live"), since, GOOD)


def _rate() -> Figure:
    title = _("Quotes per second")
    counts = [count for count in store.throughput.last(CHART_SECONDS) if count is not None]
    if not counts:
        return Figure("rate", title, NOTHING, _("No quote yet"))
    total = sum(feed.quotes for feed in store.feeds.values())
    detail = _("peak %(peak)s · %(total)s since the start") % {"peak": f"{max(counts):,}", "total": f"{total:,}"}
    return Figure("rate", title, f"{round(fmean(counts[-RATE_SECONDS:])):,}", detail)


def _symbols() -> Figure:
    names = {feed.source: SOURCES.get(feed.source, feed.source) for feed in store.feeds.values() if feed.source}
    detail = " · ".join(str(names[source]) for source in sorted(names)) or str(SOURCES[config.source])
    return Figure("symbols", _("Symbols with a quote"), f"{len(store.fragments):,}", detail)


def _stream() -> Figure:
    streams = store.streams()
    value = " · ".join(f"{stream['seq']:,}" for stream in streams.values())
    detail = " · ".join(
        _("%(feed)s, epoch %(epoch)s") % {"feed": name, "epoch": stream["epoch"]} for name, stream in streams.items()
    )
    return Figure("stream", _("Messages published"), value or NOTHING, detail or _("No feed yet"))


def _connections() -> Figure:
    plans = LiveConnection.objects.live().order_by("plan").values_list("plan").annotate(Count("pk"))
    link = reverse("admin:streaming_liveconnection_changelist")
    return Figure("connections", _("Connections"), *_by_plan(plans, _("nobody is connected")), NEUTRAL, link)


def _slow() -> Figure:
    behind = LiveConnection.objects.live().filter(behind=True).count()
    detail = _("%(count)s cut off since the start") % {"count": f"{collector.total('slow'):,}"}
    link = reverse("admin:streaming_liveconnection_changelist") + "?behind__exact=1"
    return Figure("slow", _("Slow clients"), f"{behind:,}", detail, WARNING if behind else NEUTRAL, link)


def _keys() -> Figure:
    now = timezone.now()
    working = APIKey.objects.filter(revoked_at=None).filter(Q(expires_at=None) | Q(expires_at__gt=now))
    plans = working.order_by("plan__priority", "plan__name").values_list("plan__name").annotate(Count("pk"))
    link = reverse("admin:access_apikey_changelist") + "?state=active"
    return Figure("keys", _("Active keys"), *_by_plan(plans, _("nobody can connect without one")), NEUTRAL, link)


def _by_plan(plans: Iterable[tuple[str, int]], none: str) -> tuple[str, str]:
    """The total, and how it divides among the plans."""
    counts = list(plans)
    return f"{sum(count for _name, count in counts):,}", " · ".join(f"{name} {count:,}" for name, count in counts) or none


def _errors() -> Figure:
    parse = _total(metrics.PARSE_ERRORS)
    polls = _total(metrics.POLLS, but=("ok", "overlap", "stopping"))
    publish = _total(metrics.PUBLISH_FAILURES)
    detail = _("records %(parse)d · polls %(polls)d · publish %(publish)d")
    total = parse + polls + publish
    values = {"parse": parse, "polls": polls, "publish": publish}
    return Figure("errors", _("Errors since the start"), f"{total:,}", detail % values, WARNING if total else NEUTRAL)


def _total(counter: Counter, but: Collection[str] = ()) -> int:
    """The sum of a counter over its labels, without those outcomes."""
    samples = (sample for metric in counter.collect() for sample in metric.samples if sample.name.endswith("_total"))
    return int(sum(sample.value for sample in samples if sample.labels.get("outcome", "") not in but))


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
    role = _("publishing") if feed.publisher.active else _("standing by")
    source = str(SOURCES.get(feed.source.name, feed.source.name))
    known = [source, role, _clock(status.time), status.address or address, status.version, status.detail]
    if status.restarts:
        known.append(_("%(count)d restarts") % {"count": status.restarts})
    if status.dropped:
        known.append(_("%(count)d quotes merged") % {"count": status.dropped})
    return Terminal(name, name, text, " · ".join(word for word in known if word), level)


def _clock(ms: int | None) -> str:
    """The market's time, which a simulated or a recorded market has for itself."""
    if ms is None:
        return ""
    return _("market time %(time)s") % {"time": f"{datetime.fromtimestamp(ms / 1000, SHANGHAI):%m-%d %H:%M:%S}"}
