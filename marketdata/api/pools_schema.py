"""How pools and terminals are written and read over REST: the models' fields, and the OpenAPI description made from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema_field
from rest_framework import serializers

from argus.errors import CONFLICT, NOT_AUTHENTICATED, NOT_FOUND, ArgusError
from marketdata.api.schema import REF, problem
from marketdata.terminals import services
from marketdata.terminals.figures import PoolFigures, ProcessFigures, TerminalFigures
from marketdata.terminals.models import MOST_SLOTS, Pool, Terminal, check_markets, check_name

MOST_TERMINALS: Final = 100
"""Of a pool, in one body: each of them is checked and written by itself."""
REQUEST_ID: Final = "5b2f7c0e9a6d4a0f8c1e3b7d2f4a6c8e"


class _Exact(serializers.Serializer[Any]):
    """A field that nobody knows is an error: it was meant to be one of those that there are."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping) and (unknown := sorted(set(map(str, data)) - set(self.fields))):
            known = ", ".join(name for name, field in self.fields.items() if not field.read_only)
            text = _("There is no such field; there is: %(known)s.") % {"known": known}
            raise serializers.ValidationError({name[:50]: text for name in unknown})
        return super().to_internal_value(data)


# That a name is unique is said by the models' full_clean: a serializer that stands in another one cannot.
_NAME: Final[dict[str, dict[str, Any]]] = {"name": {"validators": [check_name]}}
_NAME_OF_ADDRESS: Final[dict[str, dict[str, Any]]] = {"name": {"validators": [check_name], "required": False}}


class TerminalSerializer(_Exact, serializers.ModelSerializer[Terminal]):
    capabilities = serializers.ListField(child=serializers.CharField(), read_only=True)

    class Meta:
        model = Terminal
        found = ("version", "capabilities", "probed_at", "declared")
        fields = ("name", *services.TERMINAL_FIELDS, *found)
        read_only_fields = found
        extra_kwargs = _NAME


_MARKETS: Final = Pool._meta.get_field("markets")
_MARKETS_SCHEMA: Final[dict[str, Any]] = {
    "oneOf": [{"type": "string", "maxLength": _MARKETS.max_length}, {"type": "array", "items": {"type": "string"}}]
}


@extend_schema_field(_MARKETS_SCHEMA)
class MarketsField(serializers.CharField):
    """Names of markets, as a string with commas or as a list; a string with commas in answers."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, list):
            return super().to_internal_value(data)
        return ",".join(super(MarketsField, self).to_internal_value(name) for name in data)


class PoolSerializer(_Exact, serializers.ModelSerializer[Pool]):
    markets = MarketsField(
        required=False,
        allow_blank=True,
        max_length=_MARKETS.max_length,
        validators=[check_markets],
        label=_MARKETS.verbose_name,
        help_text=_MARKETS.help_text,
    )
    terminals: serializers.ListSerializer[Any] = serializers.ListSerializer(
        child=TerminalSerializer(), required=False, max_length=MOST_TERMINALS
    )

    class Meta:
        model = Pool
        fields = ("name", *services.POOL_FIELDS, "declared", "terminals")
        read_only_fields = ("declared",)
        extra_kwargs = _NAME

    def validate_terminals(self, terminals: list[dict[str, Any]]) -> list[dict[str, Any]]:
        names = [terminal.get("name") for terminal in terminals]
        for index, name in enumerate(names):
            if name is None:
                raise serializers.ValidationError({str(index): {"name": _("Say which terminal.")}})
            if name in names[:index]:
                raise serializers.ValidationError({str(index): {"name": _("This terminal is named twice.")}})
        return terminals


class KnownTerminalSerializer(TerminalSerializer):
    """Of a terminal whose name stands in the address."""

    class Meta(TerminalSerializer.Meta):
        extra_kwargs = _NAME_OF_ADDRESS


class KnownPoolSerializer(PoolSerializer):
    """Of a pool whose name stands in the address."""

    class Meta(PoolSerializer.Meta):
        extra_kwargs = _NAME_OF_ADDRESS


class SizeSerializer(_Exact):
    size = serializers.IntegerField(
        min_value=1,
        max_value=MOST_SLOTS,
        allow_null=True,
        help_text=gettext_lazy("Slots of each terminal; null: grown and shrunk by queue time and latency."),
    )


class ScaleSerializer(SizeSerializer):
    pool = serializers.CharField(max_length=50, help_text=gettext_lazy("The pool's name."))


def read(serializer: type[serializers.Serializer[Any]], data: Any, *, partial: bool = False, name: str = "") -> dict[str, Any]:
    """The fields that a body has, in their types. ``name`` is that of the row at this address, which it keeps.
    Raises ``ArgusError``."""
    asked = serializer(data=data, partial=partial)
    if not asked.is_valid():
        raise services.refused(list(_flat(asked.errors)))
    found = dict(asked.validated_data)
    if name and found.pop("name", name) != name:
        raise services.refused([("name", _("It is %(name)s, and a name is kept for good.") % {"name": name})])
    return found


def _flat(errors: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Where (terminals.0.weight) and what."""
    if isinstance(errors, Mapping):
        for key, inner in errors.items():
            yield from _flat(inner, path if key == "non_field_errors" else f"{path}.{key}".lstrip("."))
    elif isinstance(errors, Sequence) and not isinstance(errors, str):
        for index, inner in enumerate(errors):
            yield from _flat(inner, f"{path}.{index}" if isinstance(inner, Mapping) else path)
    else:
        yield path, str(errors)


EXAMPLE_TERMINAL: Final[dict[str, Any]] = {
    "name": "guojin",
    "address": "127.0.0.1:58610",
    "role": "active",
    "weight": 2,
    "concurrent": 4,
    "per_second": 20,
    "maintenance": "daily 05:00-05:40; sat-sun 00:00-24:00",
    "enabled": True,
    "drained": False,
    "version": "XtItClient 1.0.0.36472",
    "capabilities": ["bars", "quotes"],
    "probed_at": "2026-11-20T08:31:07+08:00",
    "declared": False,
}
EXAMPLE_POOL: Final[dict[str, Any]] = {
    "name": "main",
    "strategy": "least_connections",
    "markets": "",
    "min_size": 2,
    "max_size": 4,
    "size": None,
    "hedge": True,
    "declared": False,
    "terminals": [EXAMPLE_TERMINAL],
}
ASKED_POOL: Final = OpenApiExample(
    "a pool of futures",
    value={
        "name": "futures",
        "markets": "IF,SF",
        "strategy": "round_robin",
        "terminals": [{"name": "desk-a", "address": "192.0.2.10:58610"}, {"name": "desk-b", "address": "192.0.2.11:58610"}],
    },
    request_only=True,
)
PUT_POOL: Final = OpenApiExample(
    "all of it",
    value={"strategy": "weighted_round_robin", "max_size": 8, "terminals": [{"name": "guojin", "address": "127.0.0.1:58610"}]},
    request_only=True,
)
PATCHED_POOL: Final = OpenApiExample(
    "the strategy, and the weight of one terminal",
    value={"strategy": "weighted_round_robin", "terminals": [{"name": "guojin", "weight": 5}]},
    request_only=True,
)
PUT_TERMINAL: Final = OpenApiExample(
    "a terminal", value={"address": "127.0.0.1:58620", "role": "standby", "per_second": 10}, request_only=True
)
PATCHED_TERMINAL: Final = OpenApiExample("drain it", value={"drained": True}, request_only=True)
SCALED: Final = OpenApiExample("three slots", value={"pool": "main", "size": 3}, request_only=True)
SCALED_ONE: Final = OpenApiExample("automatic again", value={"size": None}, request_only=True)

EXAMPLE_FIGURES: Final = PoolFigures(
    name="main",
    strategy="least_connections",
    publishing="guojin",
    epoch=7,
    in_flight=1,
    waiting=0,
    size=4,
    terminals=[
        TerminalFigures(
            name="guojin",
            state="up",
            publishing=True,
            in_step=True,
            epoch=7,
            size=4,
            in_flight=1,
            waiting=0,
            waited_p90=0.002,
            breaker="closed",
            answered=18240,
            failed=3,
            hedged=12,
            p50=0.041,
            p99=0.377,
            processes=[
                ProcessFigures("web-1:4711:a1b2c3d4", 4, 1, 0, "closed", 18240, 3, 12, p50=0.044, p99=0.391, waited_p90=0.002)
            ],
        )
    ],
)


def add_components(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """A postprocessing hook of drf-spectacular: the schemas that the responses below refer to."""
    _refs, found = msgspec.json.schema_components([PoolFigures], ref_template=REF)
    result.setdefault("components", {}).setdefault("schemas", {}).update(found)
    return result


PROBLEMS: Final[dict[Any, Any]] = {
    (400, "application/problem+json"): problem(
        gettext_lazy("A field is missing or has a wrong value; `errors` has each of them with its place."),
        services.refused([("terminals.0.weight", "Ensure this value is less than or equal to 100.")]),
    ),
    (401, "application/problem+json"): problem(gettext_lazy("No key, or none that is good."), ArgusError(NOT_AUTHENTICATED)),
    (404, "application/problem+json"): problem(
        gettext_lazy("There is no such pool or terminal."),
        ArgusError(NOT_FOUND, "There is no pool 'futures'; there is: main.", parameter="pool"),
    ),
}
CONFLICTS: Final[dict[Any, Any]] = {
    (409, "application/problem+json"): problem(
        gettext_lazy("The name is taken, or it is the only pool."),
        ArgusError(CONFLICT, "main is the only pool, and one must be.", parameter="pool"),
    )
}


def responses(serializer: Any, description: Any, example: Mapping[str, Any], status: int = 200) -> dict[Any, Any]:
    """The row as it is now, and what may be wrong."""
    shown = OpenApiExample("an answer", value=example, response_only=True)
    return {status: OpenApiResponse(serializer, description=description, examples=[shown]), **PROBLEMS, **CONFLICTS}


NAME: Final = OpenApiParameter(
    "name", str, OpenApiParameter.PATH, description=gettext_lazy("The pool."), examples=[OpenApiExample("main", value="main")]
)
TERMINAL: Final = OpenApiParameter(
    "terminal",
    str,
    OpenApiParameter.PATH,
    description=gettext_lazy("The terminal."),
    examples=[OpenApiExample("guojin", value="guojin")],
)
