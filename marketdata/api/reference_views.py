"""The DRF views of reference data: what describes them in the schema, and how an answer goes out with its ETag."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, TypeVar, cast

import msgspec
from django.http import HttpResponse
from django.utils.cache import get_conditional_response
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from argus.access.principal import Principal
from argus.http import JSON
from marketdata.api import reference
from marketdata.api import reference_rows as rows
from marketdata.api import reference_schema as schema
from marketdata.api.query import Query

Answers = Callable[[Query, Principal], rows.Answer]


Get = TypeVar("Get", bound=Callable[..., Any])


class ReferenceView(APIView):
    """A view that answers GET as its function says; what stands in the path is a parameter like the others."""

    terminal_names = False

    def respond(self, request: Request, answers: Answers, **in_path: str) -> HttpResponse:
        given: dict[str, list[str]] = {name: request.query_params.getlist(name) for name in request.query_params}
        for name, value in in_path.items():
            given.setdefault(name, []).append(value)
        query = reference.from_terminal_names(given) if self.terminal_names else given
        # The default permission has let a key's Principal through and nothing else.
        answer = answers(query, cast(Principal, request.auth))
        unnumbered = msgspec.structs.replace(answer, request_id="")
        etag = f'"{blake2b(msgspec.json.encode(unnumbered), digest_size=12).hexdigest()}"'
        whole = HttpResponse(msgspec.json.encode(answer), content_type=JSON, headers={"Cache-Control": "private, no-cache"})
        # Weak: two answers with one tag differ in their request ids.
        whole.headers["ETag"] = f"W/{etag}"
        return cast(HttpResponse, get_conditional_response(request._request, etag=f"W/{etag}", response=whole))


def described(
    operation: str, summary: Any, answer: type[rows.Answer], parameters: list[Any], **more: Any
) -> Callable[[Get], Get]:
    """How all of these views are described in the schema."""
    return extend_schema(
        operation_id=operation,
        summary=summary,
        tags=["reference data"],
        parameters=parameters,
        responses=schema.responses(answer),
        **more,
    )


class TradingDates(ReferenceView):
    @described(
        "trading_dates",
        _("The days on which a market trades"),
        rows.Dates,
        schema.TRADING_DATES,
        description=_(
            "Also under /trading_dates and /api/get_trading_dates, where start_time, end_time and count=-1 are taken too."
        ),
    )
    def get(self, request: Request) -> HttpResponse:
        """Dates of the calendar, never a guess."""
        return self.respond(request, reference.trading_dates)


class CalendarDay(ReferenceView):
    @described("calendar_day", _("What a day is to a market, and its phases"), rows.DayAnswer, schema.CALENDAR_DAY)
    def get(self, request: Request) -> HttpResponse:
        """One day."""
        return self.respond(request, reference.calendar_day)


class Instruments(ReferenceView):
    @described(
        "instruments",
        _("Instruments, searched by code, name, pinyin or its initials"),
        rows.Instruments,
        [schema.Q, schema.KIND, *schema.PAGES],
    )
    def get(self, request: Request) -> HttpResponse:
        """A page of instruments."""
        return self.respond(request, reference.instruments)


class InstrumentDetail(ReferenceView):
    @described(
        "instrument_detail",
        _("All that is known of one instrument, or of several"),
        rows.InstrumentDetails,
        [schema.SYMBOL],
        description=_("Also under /instrument_detail and /api/instrument_detail with ?symbol=."),
    )
    def get(self, request: Request, **in_path: str) -> HttpResponse:
        """Details, in the order asked."""
        return self.respond(request, reference.instrument_details, **in_path)


class Sectors(ReferenceView):
    @described("sectors", _("The names of all sectors"), rows.Sectors, [])
    def get(self, request: Request) -> HttpResponse:
        """All sectors."""
        return self.respond(request, reference.sectors)


class SectorDetail(ReferenceView):
    @described(
        "sector",
        _("The constituents of a sector, of an index with their weights"),
        rows.Constituents,
        [schema.SECTOR],
        description=_("Also under /stock_list and /api/stock_list with ?sector=, which is 沪深A股 if left out."),
    )
    def get(self, request: Request, **in_path: str) -> HttpResponse:
        """A sector's symbols."""
        return self.respond(request, reference.constituents, **in_path)


class Indices(ReferenceView):
    @described("indices", _("Indices"), rows.Instruments, [schema.Q, *schema.PAGES])
    def get(self, request: Request) -> HttpResponse:
        """A page of indices."""
        return self.respond(request, reference.indices)


class Etfs(ReferenceView):
    @described("etfs", _("Exchange-traded funds"), rows.Instruments, [schema.Q, *schema.PAGES])
    def get(self, request: Request) -> HttpResponse:
        """A page of funds."""
        return self.respond(request, reference.etfs)


class Futures(ReferenceView):
    @described("futures", _("Futures contracts by product, the main one marked"), rows.Futures, schema.FUTURES)
    def get(self, request: Request) -> HttpResponse:
        """Products and their contracts."""
        return self.respond(request, reference.futures)


class MainContract(ReferenceView):
    @described("main_contract", _("The main contract of a product"), rows.MainAnswer, [schema.PRODUCT])
    def get(self, request: Request, **in_path: str) -> HttpResponse:
        """One contract."""
        return self.respond(request, reference.main_contract, **in_path)


class Options(ReferenceView):
    @described("options", _("The options on an underlying"), rows.Options, schema.OPTIONS)
    def get(self, request: Request) -> HttpResponse:
        """Options by last trading day, strike and side."""
        return self.respond(request, reference.options)
