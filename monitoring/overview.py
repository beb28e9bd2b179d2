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
from marketdata import metrics
from marketdata.calendar import SHANGHAI
from marketdata.latest import store
from marketdata.terminals import health, words
from marketdata.terminals.health import TerminalHealth
from monitoring.terminals import DOTS
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
    reasons: str
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
    context.update(may_see_terminals=request.user.has_perm("marketdata.view_terminal"))
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
    judged = health.current().values()
    several = len({one.pool for one in judged}) > 1
    return [_terminal(one, one.pool if several else "") for one in judged]


def _terminal(judged: TerminalHealth, pool: str) -> Terminal:
    role = _("publishing") if judged.publishing else _("standing by") if judged.answers else ""
    known = [pool, role]
    if report := judged.report:
        known += [str(SOURCES.get(report.source, report.source)), _clock(report.clock), report.address, report.version]
        known.append(report.detail)
        if report.restarts:
            known.append(_("%(count)d restarts") % {"count": report.restarts})
        if report.dropped:
            known.append(_("%(count)d quotes merged") % {"count": report.dropped})
    return Terminal(
        judged.name,
        judged.name,
        str(words.LEVELS[judged.level]),
        words.reasons(judged),
        " · ".join(word for word in known if word),
        DOTS.get(judged.level, NEUTRAL),
    )


def _clock(ms: int | None) -> str:
    """The market's time, which a simulated or a recorded market has for itself."""
    if ms is None:
        return ""
    return _("market time %(time)s") % {"time": f"{datetime.fromtimestamp(ms / 1000, SHANGHAI):%m-%d %H:%M:%S}"}
