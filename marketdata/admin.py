"""The admin's pages of reference data: read-only, for the rows are the sources' word."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin
from unfold.decorators import display

from argus.console import SOURCES
from marketdata.models import Instrument, Sector


class MachineWritten(ModelAdmin):  # type: ignore[misc]
    """Rows that no person adds, changes or deletes."""

    list_before_template = "admin/list_note.html"
    empty_text = _("The source has told nothing yet.")

    @display(description=_("source"), ordering="source")  # type: ignore[untyped-decorator]
    def source_name(self, row: Instrument | Sector) -> str:
        return str(SOURCES.get(row.source, row.source))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Instrument)
class InstrumentAdmin(MachineWritten):
    list_display = ["symbol", "name", "kind", "market", "price_tick", "quoted", "source_name", "refreshed_at"]
    list_note = _("What the source tells of each instrument. It is renewed at every start and every six hours.")
    list_filter = ["market", "kind", "quoted", "source"]
    search_fields = ["symbol", "name"]


@admin.register(Sector)
class SectorAdmin(MachineWritten):
    list_display = ["name", "size", "source_name", "refreshed_at"]
    list_note = _("Named lists of symbols. Clients subscribe to one as sector:NAME.")
    fields = ["name", "size", "symbols_shown", "source_name", "refreshed_at"]
    search_fields = ["name"]

    @display(description=_("symbols"))  # type: ignore[untyped-decorator]
    def size(self, sector: Sector) -> str:
        return f"{len(sector.symbols):,}"

    @display(description=_("constituents"))  # type: ignore[untyped-decorator]
    def symbols_shown(self, sector: Sector) -> str:
        return " ".join(sector.symbols)
