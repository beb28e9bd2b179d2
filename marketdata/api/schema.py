"""The OpenAPI description of the answers with latest quotes, made from the types that the answers are made of."""

from __future__ import annotations

from typing import Any

import msgspec
from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse

from argus.errors import (
    DATA_TYPE_NOT_ALLOWED,
    INVALID_ARGUMENT,
    NOT_AUTHENTICATED,
    RATE_LIMITED,
    UNKNOWN_SYMBOL,
    ArgusError,
)
from marketdata.api.latest import About
from marketdata.types import Quote, TradingStatus

REF = "#/components/schemas/{name}"


def _components() -> dict[str, Any]:
    _refs, found = msgspec.json.schema_components([Quote, About], ref_template=REF)
    components: dict[str, Any] = dict(found)
    about = components.pop("About")
    quote = components["Quote"]
    quote["properties"]["seq"] = {"type": "integer", "description": "The stream's message that last changed this quote."}
    quote["required"] = list(quote["properties"])
    quote["example"] = EXAMPLE_QUOTE
    properties = {"data": {"type": "array", "items": {"$ref": REF.format(name="Quote")}}, **about["properties"]}
    components["LatestQuotes"] = {"type": "object", "properties": properties, "required": list(properties)}
    components["Problem"] = {
        "type": "object",
        "description": "An RFC 9457 problem document; some problems carry further members.",
        "properties": {
            **{name: {"type": "string"} for name in ("type", "title", "detail", "name", "request_id")},
            **{name: {"type": "integer"} for name in ("status", "code")},
            "retryable": {"type": "boolean"},
        },
        "required": ["type", "title", "status", "detail", "code", "name", "retryable", "request_id"],
    }
    return components


def add_components(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """A postprocessing hook of drf-spectacular: the schemas that the responses below refer to, and every operation's errors."""
    result.setdefault("components", {}).setdefault("schemas", {}).update(_components())
    media = {"application/problem+json": {"schema": {"$ref": REF.format(name="Problem")}}}
    for operations in result.get("paths", {}).values():
        for operation in operations.values():
            text = _("Every error is a problem document, whatever its status.")
            operation["responses"].setdefault("default", {"description": text, "content": media})
    return result


EXAMPLE_QUOTE: dict[str, Any] = {
    **msgspec.to_builtins(
        Quote(
            symbol="000001.SZ",
            time=1785896702000,
            price=11.37,
            open=11.4,
            high=11.45,
            low=11.31,
            prev_close=11.39,
            volume=41230600,
            amount=468921350.22,
            bid_price=(11.36, 11.35, 11.34, 11.33, 11.32),
            bid_volume=(120300, 98200, 76400, 51000, 88100),
            ask_price=(11.37, 11.38, 11.39, 11.4, 11.41),
            ask_volume=(45600, 67700, 81000, 102300, 60500),
            status=TradingStatus.CONTINUOUS,
            limit_up=12.53,
            limit_down=10.25,
            source="simulated",
        )
    ),
    "seq": 1842,
}
EXAMPLE_ANSWER: dict[str, Any] = {
    "data": [EXAMPLE_QUOTE],
    **msgspec.to_builtins(
        About(
            streams={"main": {"epoch": 7, "seq": 1850}},
            source="simulated",
            as_of="2026-08-05T10:25:02.113+08:00",
            stale=False,
            age=0.4,
            missing=[],
            rejected=[],
            request_id="5b2f7c0e9a6d4a0f8c1e3b7d2f4a6c8e",
        )
    ),
}


def problem(description: Any, error: ArgusError) -> OpenApiResponse:
    """A response that is a problem document, with this one as its example."""
    example = OpenApiExample(error.problem.name, value=_document(error), media_type="application/problem+json")
    return OpenApiResponse({"$ref": REF.format(name="Problem")}, description=description, examples=[example])


def _document(error: ArgusError) -> dict[str, Any]:
    document = error.document("5b2f7c0e9a6d4a0f8c1e3b7d2f4a6c8e")
    return {**document, "title": str(document["title"])}


RESPONSES: dict[Any, Any] = {
    200: OpenApiResponse(
        {"$ref": REF.format(name="LatestQuotes")},
        description=_("The quotes, in the order asked; beside them what is missing, what was rejected and how old it all is."),
        examples=[OpenApiExample("one symbol", value=EXAMPLE_ANSWER)],
    ),
    (400, "application/problem+json"): problem(
        _("A parameter is missing or cannot be read."),
        ArgusError(INVALID_ARGUMENT, "Name at least one symbol: ?symbols=000001.SZ,600000.SH", parameter="symbols"),
    ),
    (401, "application/problem+json"): problem(_("No key, or none that is good."), ArgusError(NOT_AUTHENTICATED)),
    (403, "application/problem+json"): problem(_("The plan or the key does not allow it."), ArgusError(DATA_TYPE_NOT_ALLOWED)),
    (404, "application/problem+json"): problem(
        _("None of the symbols is known."),
        ArgusError(UNKNOWN_SYMBOL, "'999999.SH': 999999.SH is not quoted by the source.", parameter="symbols"),
    ),
    (429, "application/problem+json"): problem(_("The quota is used up."), ArgusError(RATE_LIMITED, retry_after=12)),
}
SYMBOLS = OpenApiParameter(
    "symbols",
    OpenApiTypes.STR,
    required=True,
    description=_(
        "Symbols, separated by commas, in any usual form (000001.SZ, sz000001, 000001.XSHE, IF2508), "
        "market:SH, sector:沪深300 or *. All together no more than the plan's limit of symbols."
    ),
    examples=[OpenApiExample("two symbols", value="000001.SZ,600000.SH")],
)
MARKET = OpenApiParameter(
    "market",
    OpenApiTypes.STR,
    description=_("Markets, separated by commas; all markets if it is left out. The plan's limit of symbols must cover them."),
    examples=[OpenApiExample("Shanghai", value="SH")],
)
