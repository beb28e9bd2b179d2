"""Pools and terminals in the admin. What is saved here acts within a second; the console's page shows how they are."""

from __future__ import annotations

from typing import Any, Final

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin, StackedInline
from unfold.decorators import action, display
from unfold.views import ChangeList

from argus.errors import ArgusError
from marketdata.terminals import figures, health, probing, services, words
from marketdata.terminals.health import Level
from marketdata.terminals.models import Pool, Terminal

LABELS: Final = {
    **dict.fromkeys(Level),
    Level.UP: "success",
    Level.DEGRADED: "warning",
    Level.DOWN: "danger",
    Level.UNKNOWN: "warning",
}
"""A level that is not named here would be shown as programs know it."""


def by(request: HttpRequest) -> str:
    """Who asks, in the log: a number, for names are personal data."""
    return f"user {request.user.pk}"


class KeptForm(forms.ModelForm):  # type: ignore[type-arg]
    """A row keeps its name, and a terminal its pool: queues, feeds and metrics are called by them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("name", "pool"):
            if self.instance.pk and name in self.fields:
                self.fields[name].disabled = True


class Audited(ModelAdmin):  # type: ignore[misc]
    """Every write is logged as those of REST are, and acts at once."""

    form = KeptForm
    list_before_template = "admin/list_note.html"
    change_form_outer_before_template = "admin/declared_note.html"

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        self._audit(request, obj, "changed" if change else "created", form.changed_data)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        super().delete_model(request, obj)
        self._audit(request, obj, "deleted")

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        rows = list(queryset)
        super().delete_queryset(request, queryset)
        for row in rows:
            self._audit(request, row, "deleted")

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        super().save_formset(request, form, formset, change)
        for row in formset.new_objects:
            self._audit(request, row, "created")
        for row, fields in formset.changed_objects:
            self._audit(request, row, "changed", fields)
        for row in formset.deleted_objects:
            self._audit(request, row, "deleted")

    @staticmethod
    def _audit(request: HttpRequest, row: Any, done: str, fields: list[str] | None = None) -> None:
        changes = {name: getattr(row, name) for name in fields or () if name != "pool"}
        services.audit(f"{row._meta.model_name}_{done}", row, by(request), **({"changes": changes} if changes else {}))


class TerminalInline(StackedInline):  # type: ignore[misc]
    model = Terminal
    form = KeptForm
    extra = 0
    fields = (
        ("name", "address"),
        ("role", "weight"),
        ("concurrent", "per_second"),
        "maintenance",
        ("enabled", "drained"),
    )


@admin.register(Pool)
class PoolAdmin(Audited):
    list_display = ("name", "strategy", "markets_shown", "slots", "hedge", "terminal_names", "declared")
    list_note = _("Terminals that stand in for each other; one of them at a time publishes the pool's feed.")
    inlines = (TerminalInline,)
    fields = ("name", "strategy", "markets", ("min_size", "max_size"), "size", "hedge")
    # Several at a time could be all there are.
    actions = None

    def get_queryset(self, request: HttpRequest) -> QuerySet[Pool]:
        pools: QuerySet[Pool] = super().get_queryset(request)
        return pools.prefetch_related("terminals")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        allowed: bool = super().has_delete_permission(request, obj)
        return allowed and (obj is None or Pool.objects.exclude(pk=obj.pk).exists())

    @display(description=_("markets"))  # type: ignore[untyped-decorator]
    def markets_shown(self, pool: Pool) -> Any:
        return pool.markets or _("all others")

    @display(description=_("slots"))  # type: ignore[untyped-decorator]
    def slots(self, pool: Pool) -> str:
        return f"{pool.min_size}–{pool.max_size}" if pool.size is None else str(pool.size)

    @display(description=_("terminals"))  # type: ignore[untyped-decorator]
    def terminal_names(self, pool: Pool) -> str:
        return " · ".join(terminal.name for terminal in pool.terminals.all())


class _WithState(ChangeList):  # type: ignore[misc]
    """The list's rows, each with how its terminal is at this moment."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        judged = health.current()
        used = {terminal.name: terminal for pool in figures.current().values() for terminal in pool.terminals}
        for row in self.result_list:
            row.health, row.figures = judged.get(row.name), used.get(row.name)


@admin.register(Terminal)
class TerminalAdmin(Audited):
    list_display = ("name", "pool", "role", "level", "feed", "p99", "slots", "version", "address")
    list_note = _("One process of a trading terminal each, with a worker of its own. Drain one before you work on it.")
    list_filter = ("pool", "role", "enabled", "drained")
    list_select_related = ("pool",)
    search_fields = ("name", "address")
    readonly_fields = ("version", "capabilities_shown", "probed_at")
    fields = (
        ("name", "pool"),
        "address",
        ("role", "weight"),
        ("concurrent", "per_second"),
        "maintenance",
        ("enabled", "drained"),
        *readonly_fields,
    )
    actions = ("drain", "resume", "probe", "enable", "disable")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return _WithState

    @display(description=_("state"), label=LABELS)  # type: ignore[untyped-decorator]
    def level(self, terminal: Any) -> tuple[str, Any]:
        level = terminal.health.level if terminal.health else Level.UNKNOWN
        return level, words.LEVELS[level]

    @display(description=_("feed"))  # type: ignore[untyped-decorator]
    def feed(self, terminal: Any) -> Any:
        if terminal.health is None or not terminal.health.answers:
            return None
        return _("publishing") if terminal.health.publishing else _("standing by")

    @display(description=_("p99"))  # type: ignore[untyped-decorator]
    def p99(self, terminal: Any) -> str | None:
        found = terminal.health.p99 if terminal.health else None
        return None if found is None else f"{found:.3f} s"

    @display(description=_("slots"))  # type: ignore[untyped-decorator]
    def slots(self, terminal: Any) -> str | None:
        return f"{terminal.figures.in_flight} / {terminal.figures.size}" if terminal.figures else None

    @display(description=_("capabilities"))  # type: ignore[untyped-decorator]
    def capabilities_shown(self, terminal: Terminal) -> str:
        return " · ".join(terminal.capabilities)

    @action(description=_("Drain the selected terminals"), permissions=["change"])  # type: ignore[untyped-decorator]
    def drain(self, request: HttpRequest, queryset: QuerySet[Terminal]) -> None:
        self._set(request, queryset, drained=True)

    @action(description=_("Resume the selected terminals"), permissions=["change"])  # type: ignore[untyped-decorator]
    def resume(self, request: HttpRequest, queryset: QuerySet[Terminal]) -> None:
        self._set(request, queryset, drained=False)

    @action(description=_("Enable the selected terminals"), permissions=["change"])  # type: ignore[untyped-decorator]
    def enable(self, request: HttpRequest, queryset: QuerySet[Terminal]) -> None:
        self._set(request, queryset, enabled=True)

    @action(description=_("Disable the selected terminals"), permissions=["change"])  # type: ignore[untyped-decorator]
    def disable(self, request: HttpRequest, queryset: QuerySet[Terminal]) -> None:
        self._set(request, queryset, enabled=False)

    @action(description=_("Probe the selected terminals"), permissions=["change"])  # type: ignore[untyped-decorator]
    def probe(self, request: HttpRequest, queryset: QuerySet[Terminal]) -> None:
        for name, found in probing.probe([row.name for row in queryset], services.PROBED_WITHIN).items():
            level = messages.SUCCESS if found.ok else messages.ERROR
            self.message_user(request, f"{name}: {words.probed(found)}", level)

    def _set(self, request: HttpRequest, queryset: QuerySet[Terminal], **fields: bool) -> None:
        names = []
        for row in queryset:
            try:
                services.change_terminal(row.name, fields, by=by(request))
            except ArgusError as error:
                self.message_user(request, f"{row.name}: {error.message}", messages.ERROR)
                continue
            self.log_change(request, row, [{"changed": {"fields": sorted(fields)}}])
            names.append(row.name)
        if names:
            text = gettext("Saved: %(names)s. It acts within a second.") % {"names": ", ".join(names)}
            self.message_user(request, text, messages.SUCCESS)
