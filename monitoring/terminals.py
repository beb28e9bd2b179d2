"""The console's page of terminals: how each is at this moment, and the knobs that act at once.

The page comes once with its knobs; its script asks for the live parts, each a piece of the page, and puts them in place.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_POST
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldBooleanSwitchWidget,
)

from argus import requestid
from argus.errors import BAD_JSON, ArgusError
from marketdata.api.pools_schema import KnownPoolSerializer, KnownTerminalSerializer, read
from marketdata.calendar import SHANGHAI
from marketdata.terminals import figures, health, probing, roster, services, windows, words
from marketdata.terminals.admin import by
from marketdata.terminals.figures import PoolFigures, TerminalFigures
from marketdata.terminals.health import Level, TerminalHealth
from marketdata.terminals.models import Pool, Terminal

REFRESH_MS: Final = 2000
NOTHING: Final = "–"
DOTS: Final = {Level.UP: "good", Level.DEGRADED: "warning", Level.DOWN: "bad", Level.UNKNOWN: "warning"}
"""All others are as somebody wants them: neutral."""
LONGEST: Final = 10_000
"""Bytes of a body that changes something."""


class PoolKnobs(forms.ModelForm):  # type: ignore[type-arg]
    """The controls of a pool; each is sent by itself, so the form is only shown."""

    class Meta:
        model = Pool
        fields = ("strategy", "min_size", "max_size", "size", "hedge")
        widgets = {
            "strategy": UnfoldAdminSelectWidget,
            "min_size": UnfoldAdminIntegerFieldWidget,
            "max_size": UnfoldAdminIntegerFieldWidget,
            "size": UnfoldAdminIntegerFieldWidget(attrs={"placeholder": gettext_lazy("automatic")}),
            "hedge": UnfoldBooleanSwitchWidget,
        }


class TerminalKnobs(forms.ModelForm):  # type: ignore[type-arg]
    """The controls of a terminal."""

    class Meta:
        model = Terminal
        fields = ("role", "weight", "concurrent")
        widgets = {
            "role": UnfoldAdminSelectWidget,
            "weight": UnfoldAdminIntegerFieldWidget,
            "concurrent": UnfoldAdminIntegerFieldWidget,
        }


class TerminalView(NamedTuple):
    """A terminal on the page."""

    row: Terminal
    knobs: TerminalKnobs
    health: TerminalHealth
    figures: TerminalFigures
    facts: list[tuple[str, str, str]]
    level: str
    reasons: str

    @property
    def dot(self) -> str:
        return DOTS.get(self.health.level, "neutral")

    @property
    def used(self) -> int:
        """Percent of the slots that are in use."""
        return round(100 * self.figures.in_flight / self.figures.size) if self.figures.size else 0


class PoolView(NamedTuple):
    """A pool on the page."""

    row: Pool
    knobs: PoolKnobs
    figures: PoolFigures
    terminals: list[TerminalView]


def page(request: HttpRequest) -> HttpResponse:
    """The whole page."""
    _require(request, "marketdata.view_terminal")
    pools = _pools()
    context = {
        **admin.site.each_context(request),
        "title": _("Terminals"),
        "pools": pools,
        "shape": shape(pools),
        "may_change_pools": request.user.has_perm("marketdata.change_pool"),
        "may_change_terminals": request.user.has_perm("marketdata.change_terminal"),
        "refresh_ms": REFRESH_MS,
        "refresh_seconds": REFRESH_MS // 1000,
    }
    return TemplateResponse(request, "admin/terminals.html", context)


@require_GET
def live(request: HttpRequest) -> JsonResponse:
    """The parts that change: pieces of the page, and what the knobs stand at."""
    _require(request, "marketdata.view_terminal")
    pools = _pools()
    terminals = [terminal for pool in pools for terminal in pool.terminals]
    return JsonResponse(
        {
            "time": f"{datetime.now(SHANGHAI):%H:%M:%S}",
            # What the page was made for; where it is another one, only a new page has the right knobs.
            "shape": shape(pools),
            "pools": {
                pool.row.name: {
                    "html": render_to_string("admin/terminals_pool.html", {"pool": pool}),
                    "knobs": {name: getattr(pool.row, name) for name in PoolKnobs.Meta.fields},
                }
                for pool in pools
            },
            "terminals": {
                terminal.row.name: {
                    "html": render_to_string("admin/terminals_terminal.html", {"terminal": terminal}),
                    "knobs": {name: getattr(terminal.row, name) for name in TerminalKnobs.Meta.fields},
                    "drained": terminal.row.drained,
                    "p99": terminal.figures.p99,
                    "in_flight": terminal.figures.in_flight,
                }
                for terminal in terminals
            },
        },
        headers={"Cache-Control": "no-store"},
    )


@require_POST
def change_pool(request: HttpRequest, name: str) -> HttpResponse:
    """Set what the body names."""
    _require(request, "marketdata.change_pool")

    def change() -> None:
        services.change_pool(name, read(KnownPoolSerializer, _body(request), partial=True, name=name), by=by(request))

    return _done(change)


@require_POST
def change_terminal(request: HttpRequest, name: str) -> HttpResponse:
    """Set what the body names."""
    _require(request, "marketdata.change_terminal")

    def change() -> None:
        fields = read(KnownTerminalSerializer, _body(request), partial=True, name=name)
        services.change_terminal(name, fields, by=by(request))

    return _done(change)


@require_POST
def probe(request: HttpRequest, name: str) -> HttpResponse:
    """Ask the terminal now, through its worker; it answers within ``services.PROBED_WITHIN`` seconds or not at all."""
    _require(request, "marketdata.change_terminal")

    def ask() -> str:
        found = probing.probe([services.find_terminal(name).name], services.PROBED_WITHIN)[name]
        return words.probed(found)

    return _done(ask)


def shape(pools: list[PoolView]) -> str:
    """Which pools and terminals stand on the page."""
    return "; ".join(f"{pool.row.name}: {', '.join(item.row.name for item in pool.terminals)}" for pool in pools)


def _require(request: HttpRequest, permission: str) -> None:
    if not request.user.has_perm(permission):
        raise PermissionDenied


def _body(request: HttpRequest) -> Any:
    """The JSON object that was sent. Raises ``ArgusError``."""
    try:
        return msgspec.json.decode(request.read(LONGEST))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ArgusError(BAD_JSON) from None


def _done(change: Callable[[], str | None]) -> JsonResponse:
    """Do it, and say that it is done or what is wrong."""
    try:
        said = change() or _("Saved.")
    except ArgusError as error:
        return JsonResponse(error.document(requestid.current()) | {"detail": _refusal(error)}, status=error.problem.status)
    return JsonResponse({"detail": said})


def _refusal(error: ArgusError) -> str:
    """What is wrong, each field as the page calls it."""
    labels = {name: field.label for form in (PoolKnobs, TerminalKnobs) for name, field in form.base_fields.items()}
    told = [(one["parameter"], one["detail"]) for one in error.params.get("errors", ())]
    return " ".join(f"{labels.get(where, where)}: {what}" if where else what for where, what in told) or error.message


def _pools() -> list[PoolView]:
    roster.look()
    judged, counted = health.current(), figures.current()
    found = []
    for row in Pool.objects.prefetch_related("terminals"):
        if row.name not in counted:
            # It was made a moment ago.
            continue
        used = {terminal.name: terminal for terminal in counted[row.name].terminals}
        terminals = [
            _terminal(terminal, judged[terminal.name], used[terminal.name])
            for terminal in row.terminals.all()
            if terminal.name in judged and terminal.name in used
        ]
        found.append(PoolView(row, PoolKnobs(instance=row, prefix=f"pool-{row.name}"), counted[row.name], terminals))
    return found


def _terminal(row: Terminal, judged: TerminalHealth, counted: TerminalFigures) -> TerminalView:
    knobs = TerminalKnobs(instance=row, prefix=f"terminal-{row.name}")
    return TerminalView(
        row, knobs, judged, counted, _facts(row, judged, counted), str(words.LEVELS[judged.level]), words.reasons(judged)
    )


def _facts(row: Terminal, judged: TerminalHealth, counted: TerminalFigures) -> list[tuple[str, str, str]]:
    """Id, title and value of what is told of a terminal."""
    fresh = {True: _("yes"), False: _("no"), None: _("nothing is expected now")}
    waiting = f"{counted.waiting}"
    if counted.waited_p90 is not None:
        waiting = _("%(count)d, nearly all under %(seconds)s") % {
            "count": counted.waiting,
            "seconds": _seconds(counted.waited_p90),
        }
    return [
        ("latency", _("p50 / p99"), f"{_seconds(judged.p50)} / {_seconds(judged.p99)}"),
        ("waiting", _("waiting"), waiting),
        ("breaker", _("breaker"), str(words.BREAKERS.get(counted.breaker, counted.breaker))),
        ("asked", _("answered / failed / hedged"), f"{counted.answered:,} / {counted.failed:,} / {counted.hedged:,}"),
        ("fresh", _("quotes are fresh"), fresh[judged.fresh]),
        ("in_step", _("in step"), _("yes") if judged.in_step else _("no")),
        ("epoch", _("epoch"), NOTHING if counted.epoch is None else str(counted.epoch)),
        ("seen", _("last seen"), _seen(judged.last_seen)),
        ("version", _("version"), (judged.report and judged.report.version) or row.version or NOTHING),
        ("address", _("address"), row.address or NOTHING),
        ("maintenance", _("maintenance"), _maintenance(row, judged)),
    ]


def _seconds(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def _seen(at: int | None) -> str:
    if at is None:
        return _("never")
    ago = max(0, time.time() - at / 1000)
    return _("%(seconds)d s ago") % {"seconds": ago} if ago < 100 else _clock(at)


def _maintenance(row: Terminal, judged: TerminalHealth) -> str:
    """The windows, and when the next one begins or this one ends."""
    if not row.maintenance:
        return _("none")
    if judged.until is not None:
        return _("%(windows)s (now, until %(time)s)") % {"windows": row.maintenance, "time": _clock(judged.until)}
    begins = windows.begins(windows.parse(row.maintenance), int(time.time() * 1000))
    return _("%(windows)s (next: %(time)s)") % {"windows": row.maintenance, "time": _clock(begins)}


def _clock(ms: int | None) -> str:
    return NOTHING if ms is None else f"{datetime.fromtimestamp(ms / 1000, SHANGHAI):%m-%d %H:%M}"
