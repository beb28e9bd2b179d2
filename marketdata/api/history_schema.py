"""The OpenAPI description of history: its parameters, its body and its answers."""

from __future__ import annotations

from typing import Any

from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse

from argus.errors import (
    CURSOR_INVALID,
    DEADLINE,
    MESSAGE_TOO_BIG,
    NOT_ACCEPTABLE,
    NOT_AUTHENTICATED,
    NOT_READY,
    RATE_LIMITED,
    SYMBOL_LIMIT,
    UNKNOWN_SYMBOL,
    UNSUPPORTED,
    ArgusError,
)
from marketdata.api.formats.negotiate import MEDIA, Format
from marketdata.api.history import LIMIT, MAX_LIMIT
from marketdata.api.schema import REF, problem
from marketdata.history.query import MAX_COUNT
from marketdata.series import COLUMNS, OPTIONAL
from marketdata.types import Adjust, Period

_TIME_PATTERN = r"^(\d{8}(\d{6})?|\d{12,13}|\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:\d{2})?)?)$"
_TIME = {"type": "string", "pattern": _TIME_PATTERN}
_TIME_TEXT = _(
    "A day (2026-01-05, 20260105), a moment in Beijing time (2026-01-05T09:31, 20260105093100) or with an offset of its own "
    "(2026-01-05T01:31Z, 2026-01-05T09:31+08:00), or ms since the epoch."
)

_SCHEMAS: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "symbols": (
        {"type": "string", "minLength": 1},
        _("Symbols, separated by commas, in any usual form, market:SH, sector:沪深300 or *."),
        "000001.SZ,600000.SH",
    ),
    "period": ({"type": "string", "enum": [*Period], "default": "1d"}, _("The length of a bar."), "1d"),
    "start": (_TIME, _TIME_TEXT, "2026-10-12"),
    "end": (_TIME, _("As start; of a day its end. Left out: up to now."), "2026-10-16"),
    "count": (
        {"type": "integer", "minimum": 1, "maximum": MAX_COUNT},
        _("The last so many bars of each symbol, in place of a start or within it."),
        5,
    ),
    "adjust": ({"type": "string", "enum": [*Adjust], "default": "none"}, _("How prices are adjusted for dividends."), "none"),
    "as_of": (
        {"type": "string", "pattern": r"^(\d{8}|\d{4}-\d{2}-\d{2})$"},
        _("With front and front_ratio: the last day whose dividends are known; today if left out."),
        "2026-10-16",
    ),
    "fields": (
        {"type": "string"},
        format_lazy(
            _("Columns, separated by commas: {fields}. All if left out; symbol and time always come."), fields=", ".join(COLUMNS)
        ),
        "close,volume",
    ),
    "format": (
        {"type": "string", "enum": [*Format]},
        _("The format, where Accept does not say it."),
        "json",
    ),
    "limit": (
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": LIMIT},
        _("JSON only: rows of a page."),
        1000,
    ),
    "cursor": ({"type": "string", "minLength": 1}, _("JSON only: where the page before ended, taken from its cursor."), None),
}

PARAMETERS = [
    OpenApiParameter(
        name,
        schema,
        required=name == "symbols",
        description=text,
        examples=[] if example is None else [OpenApiExample(name, value=example)],
    )
    for name, (schema, text, example) in _SCHEMAS.items()
]

HEADERS = [
    OpenApiParameter(name, str, OpenApiParameter.HEADER, description=text, response=[200])
    for name, text in {
        "Argus-Source": _("Where the bars come from."),
        "Argus-As-Of": _("The market's time up to which bars were looked for (ISO 8601, +08:00)."),
        "Argus-Stale": _("true where the newest bars that were asked for could not be had, else false."),
        "Argus-Age": _("Where it is stale: seconds since bars were last fetched from a terminal; not there otherwise."),
        "Argus-Stamp": _("end: bars are stamped at their end."),
        "Argus-Adjustment": _("The algorithm by which prices were adjusted; not there where they were not."),
        "Argus-Forming-From": _("Bars stamped at or after it (ms) are of a week or month that goes on; not there where none is."),
        "Argus-Missing": _("How many symbols lack something that was asked for; not there where none does."),
        "Argus-Rejected": _("How many words of the request stand for nothing; not there where none does."),
        "Cache-Status": _("Whether a terminal had to be asked, and how many symbols each tier had (RFC 9211)."),
        "ETag": _("What If-None-Match takes."),
    }.items()
]
"""What every format says in the answer's headers."""

_LISTS = {"symbols", "fields"}
BODY: Any = {
    "application/json": {
        "type": "object",
        "properties": {
            name: {"oneOf": [schema, {"type": "array", "items": {"type": "string"}}]} if name in _LISTS else schema
            for name, (schema, _text, _example) in _SCHEMAS.items()
        },
        "required": ["symbols"],
        "additionalProperties": False,
        "example": {"symbols": ["000001.SZ", "600000.SH"], "period": "1d", "count": 5},
    }
}

_NUMBERS = {"time": "integer", "volume": "integer", "suspended": "boolean"}
_ROW = {
    "type": "object",
    "description": "One bar. `time` is its end in ms since the epoch; a number that is not known is null.",
    "properties": {
        "symbol": {"type": "string"},
        **{name: {"type": ["number", "null"] if name in OPTIONAL else _NUMBERS.get(name, "number")} for name in COLUMNS},
    },
    "required": ["symbol", "time"],
    "additionalProperties": False,
}
_REFUSED = {
    "type": "object",
    "properties": {
        "symbol": {"type": "string"},
        "code": {"type": "integer"},
        "name": {"type": "string"},
        "reason": {"type": "string"},
    },
    "required": ["symbol", "code", "name", "reason"],
}
_PAGE = {
    "data": {"type": "array", "items": {"$ref": REF.format(name="HistoryBar")}},
    "period": {"type": "string", "enum": [*Period]},
    "stamp": {"type": "string", "enum": ["end"]},
    "adjust": {"type": "string", "enum": [*Adjust]},
    "adjustment": {"oneOf": [{"$ref": REF.format(name="HistoryAdjustment")}, {"type": "null"}]},
    "source": {"type": "string"},
    "stale": {"type": "boolean", "description": "The newest bars that were asked for could not be had."},
    "age": {
        "type": ["number", "null"],
        "description": "Where it is stale: seconds since bars were last fetched from a terminal; null where none are here.",
    },
    "forming_from": {
        "type": ["integer", "null"],
        "description": "Bars stamped at or after it (ms) are of a week or month that goes on.",
    },
    "missing": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Symbol -> why bars are not here."},
    "rejected": {"type": "array", "items": _REFUSED, "description": "Words of the request that stand for nothing."},
    "as_of": {"type": "string", "description": "The market's time up to which bars were looked for (ISO 8601, +08:00)."},
    "tiers": {
        "type": "object",
        "additionalProperties": {"type": "integer"},
        "description": "Where the bars came from: l1, l2, l3 or terminal -> how many symbols.",
    },
    "cursor": {"type": ["string", "null"], "description": "Where the next page begins; null on the last one."},
    "request_id": {"type": "string"},
}
_FACTOR: dict[str, Any] = {
    "type": "object",
    "description": "An ex-date as it was used; amounts are per share. A ratio that the method does not need may be null.",
    "properties": {
        "ex_date": {"type": "string", "format": "date"},
        "ratio": {"type": ["number", "null"], "description": "The last close before over the reference price."},
        "cumulative": {"type": ["number", "null"], "description": "The product of this ratio and all earlier ones."},
        **{name: {"type": "number"} for name in ("cash", "bonus", "gift", "rights", "rights_price")},
    },
}
_ADJUSTMENT: dict[str, Any] = {
    "type": "object",
    "description": "How prices were adjusted.",
    "properties": {
        "method": {"type": "string", "enum": [*Adjust]},
        "algorithm": {"type": "string", "description": "What was done to a price, in a sentence."},
        "as_of": {
            "type": ["string", "null"],
            "format": "date",
            "description": "The last day whose dividends count (front, front_ratio).",
        },
        "refreshed_at": {"type": ["integer", "null"], "description": "When the oldest of the dividends were told (ms)."},
        "stale": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Symbols whose dividends could not be asked for again today.",
        },
        "factors": {
            "type": "object",
            "description": "Symbol -> the ex-dates that were used, of the first hundred symbols.",
            "additionalProperties": {
                "type": "object",
                "properties": {
                    "method": {"type": "string", "enum": [*Adjust]},
                    "algorithm": {"type": "string"},
                    "as_of": {"type": ["string", "null"], "format": "date"},
                    "rows": {"type": "array", "items": {"$ref": REF.format(name="HistoryFactor")}},
                },
                "required": ["method", "algorithm", "as_of", "rows"],
            },
        },
        "more": {"type": "integer", "description": "Of how many symbols the factors are left out."},
    },
}
for _schema in (_FACTOR, _ADJUSTMENT):
    _schema |= {"required": list(_schema["properties"]), "additionalProperties": False}
COMPONENTS: dict[str, Any] = {
    "HistoryBar": _ROW,
    "HistoryFactor": _FACTOR,
    "HistoryAdjustment": _ADJUSTMENT,
    "HistoryBars": {"type": "object", "properties": _PAGE, "required": list(_PAGE)},
}


def add_components(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """A postprocessing hook of drf-spectacular: the schemas that the responses below refer to."""
    result["components"]["schemas"].update(COMPONENTS)
    return result


EXAMPLE = {
    "data": [
        {"symbol": "600000.SH", "time": 1792134000000, "close": 11.37, "volume": 41230600},
        {"symbol": "600000.SH", "time": 1792393200000, "close": 11.41, "volume": 38112400},
    ],
    "period": "1d",
    "stamp": "end",
    "adjust": "none",
    "adjustment": None,
    "source": "simulated",
    "stale": False,
    "age": None,
    "forming_from": None,
    "missing": {},
    "rejected": [],
    "as_of": "2026-10-16T15:31:02.113+08:00",
    "tiers": {"l1": 1},
    "cursor": None,
    "request_id": "5b2f7c0e9a6d4a0f8c1e3b7d2f4a6c8e",
}


def _problem(text: Any, error: ArgusError) -> tuple[tuple[int, str], OpenApiResponse]:
    return (error.problem.status, "application/problem+json"), problem(text, error)


RESPONSES: dict[Any, Any] = {
    (200, MEDIA[Format.JSON]): OpenApiResponse(
        {"$ref": REF.format(name="HistoryBars")},
        description=_("The bars, in the order asked; beside them where they came from, what is missing, and the next page."),
        examples=[OpenApiExample("two days", value=EXAMPLE, media_type=MEDIA[Format.JSON])],
    ),
    **{(200, MEDIA[form]): OpenApiResponse(OpenApiTypes.BINARY) for form in (Format.ARROW, Format.PARQUET)},
    (200, MEDIA[Format.CSV]): OpenApiResponse(OpenApiTypes.STR),
    304: OpenApiResponse(description=_("The client has it already: If-None-Match names its ETag.")),
    **dict(
        [
            _problem(
                _("A parameter is missing or cannot be read."),
                ArgusError(CURSOR_INVALID, "The cursor belongs to another query; repeat all parameters.", parameter="cursor"),
            ),
            _problem(_("No key, or none that is good."), ArgusError(NOT_AUTHENTICATED)),
            _problem(
                _("The plan or the key does not allow it."),
                ArgusError(SYMBOL_LIMIT, "The plan trial allows 50 symbols at a time; these are 300.", parameter="symbols"),
            ),
            _problem(
                _("None of the symbols is known."),
                ArgusError(UNKNOWN_SYMBOL, "'999999.SH': 999999.SH is not quoted by the source.", parameter="symbols"),
            ),
            _problem(_("None of the accepted formats is available."), ArgusError(NOT_ACCEPTABLE, parameter="format")),
            _problem(_("The request or the answer would be too large."), ArgusError(MESSAGE_TOO_BIG, limit=262144)),
            _problem(_("The quota is used up."), ArgusError(RATE_LIMITED, retry_after=12)),
            _problem(_("The source does not offer such bars."), ArgusError(UNSUPPORTED, parameter="period")),
            _problem(_("The service or the source cannot answer now."), ArgusError(NOT_READY, retry_after=1)),
            _problem(_("The bars did not come in time."), ArgusError(DEADLINE)),
        ]
    ),
}
