"""The admin's pages of reference data: read-only, for the rows are the sources' word."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin
from unfold.decorators import display

from marketdata.models import Instrument, Sector


class MachineWritten(ModelAdmin):  # type: ignore[misc]
    """Rows that no person adds, changes or deletes."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Instrument)
class InstrumentAdmin(MachineWritten):
    list_display = ["symbol", "name", "kind", "market", "price_tick", "quoted", "source", "refreshed_at"]
    list_filter = ["market", "kind", "quoted", "source"]
    search_fields = ["symbol", "name"]
    show_full_result_count = False


@admin.register(Sector)
class SectorAdmin(MachineWritten):
    list_display = ["name", "size", "source", "refreshed_at"]
    search_fields = ["name"]

    @display(description=_("symbols"))  # type: ignore[untyped-decorator]
    def size(self, sector: Sector) -> int:
        return len(sector.symbols)
