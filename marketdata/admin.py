"""The admin's pages of reference data: read-only, for the rows are the sources' word. (Pools have a room of their own.)"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin
from unfold.decorators import display

from argus.console import SOURCES
from marketdata.models import Backfill, BarDifference, Dividends, Instrument, MainContract, Sector, TradingDates
from marketdata.reference import days


class MachineWritten(ModelAdmin):  # type: ignore[misc]
    """Rows that no person adds, changes or deletes."""

    list_before_template = "admin/list_note.html"
    empty_text = _("The source has told nothing yet.")

    @display(description=_("source"), ordering="source")  # type: ignore[untyped-decorator]
    def source_name(self, row: Instrument | Sector | TradingDates | MainContract | Dividends) -> str:
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
    search_fields = ["symbol", "name", "pinyin", "initials", "underlying"]


@admin.register(Sector)
class SectorAdmin(MachineWritten):
    list_display = ["name", "size", "source_name", "refreshed_at"]
    list_note = _("Named lists of symbols. Clients subscribe to one as sector:NAME.")
    fields = ["name", "size", "symbols_shown", "weights", "source_name", "refreshed_at"]
    search_fields = ["name"]

    @display(description=_("symbols"))  # type: ignore[untyped-decorator]
    def size(self, sector: Sector) -> str:
        return f"{len(sector.symbols):,}"

    @display(description=_("constituents"))  # type: ignore[untyped-decorator]
    def symbols_shown(self, sector: Sector) -> str:
        return " ".join(sector.symbols)


@admin.register(TradingDates)
class TradingDatesAdmin(MachineWritten):
    list_display = ["market", "size", "first", "last", "conflicts", "source_name", "refreshed_at"]
    list_note = _("What the source tells of the days on which markets trade. It counts where the built-in calendar ends.")
    fields = ["market", "size", "first", "last", "conflicts", "source_name", "refreshed_at"]

    @display(description=_("days"))  # type: ignore[untyped-decorator]
    def size(self, row: TradingDates) -> str:
        return f"{len(row.dates):,}"

    @display(description=_("first"))  # type: ignore[untyped-decorator]
    def first(self, row: TradingDates) -> str:
        return row.dates[0] if row.dates else ""

    @display(description=_("last"))  # type: ignore[untyped-decorator]
    def last(self, row: TradingDates) -> str:
        return row.dates[-1] if row.dates else ""

    @display(description=_("days that the built-in calendar has otherwise"))  # type: ignore[untyped-decorator]
    def conflicts(self, row: TradingDates) -> str:
        found = days.join(row).conflicts
        more = " …" if len(found) > 10 else ""
        return " ".join(day.isoformat() for day in found[:10]) + more


@admin.register(MainContract)
class MainContractAdmin(MachineWritten):
    list_display = ["product", "symbol", "source_name", "refreshed_at"]
    list_note = _("The contract of each futures product that the source calls its main one.")
    search_fields = ["product", "symbol"]


@admin.register(Dividends)
class DividendsAdmin(MachineWritten):
    list_display = ["symbol", "size", "source_name", "refreshed_at"]
    list_note = _("What instruments have given since their listing; prices are adjusted by it. It is fetched when it is needed.")
    fields = ["symbol", "size", "rows", "source_name", "refreshed_at"]
    search_fields = ["symbol"]

    @display(description=_("dividends"))  # type: ignore[untyped-decorator]
    def size(self, row: Dividends) -> str:
        return f"{len(row.rows):,}"


@admin.register(Backfill)
class BackfillAdmin(MachineWritten):
    list_display = ["pk", "state", "period", "start", "end", "symbol_count", "progress", "bars", "created_at", "finished_at"]
    list_note = _("Long fetches of bars into the archive. Start one with: python3 run.py manage backfill --help")
    list_filter = ["state", "period"]
    empty_text = _("Nobody has asked for a backfill yet.")
    fields = [
        "state",
        "period",
        "start",
        "end",
        "symbol_count",
        "progress",
        "bars",
        "refused",
        "problems",
        "detail",
        "request_id",
        "created_at",
        "beat_at",
        "finished_at",
    ]

    @display(description=_("symbols"))  # type: ignore[untyped-decorator]
    def symbol_count(self, job: Backfill) -> str:
        return f"{len(job.symbols):,}"

    @display(description=_("progress"))  # type: ignore[untyped-decorator]
    def progress(self, job: Backfill) -> str:
        return f"{job.chunks_done:,} / {job.chunks_total:,}"


@admin.register(BarDifference)
class BarDifferenceAdmin(MachineWritten):
    list_display = ["symbol", "period", "time", "field", "built", "terminal", "found_at"]
    list_note = _("Where bars that were built from quotes differed from the terminal's own, which took their place.")
    empty_text = _("Every built bar that was compared is the terminal's own.")
    list_filter = ["period", "field"]
    search_fields = ["symbol"]
