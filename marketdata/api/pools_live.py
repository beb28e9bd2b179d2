"""How pools are at this moment, over REST: their figures, and whether they can answer."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from argus import requestid
from argus.access.drf import OperateScope
from argus.errors import INVALID_ARGUMENT, NOT_READY, ArgusError
from marketdata.api.pools_schema import EXAMPLE_FIGURES, NAME, PROBLEMS, REQUEST_ID
from marketdata.api.query import refuse_others
from marketdata.api.schema import REF, problem
from marketdata.terminals import figures, health, probing, roster, services
from marketdata.terminals.health import REASONS, TerminalHealth
from marketdata.terminals.probing import Probe

EXAMPLE_TERMINAL: Final[dict[str, Any]] = {
    "name": "guojin",
    "level": "up",
    "reasons": [],
    "detail": "",
    "publishing": True,
    "in_step": True,
    "fresh": True,
    "p50": 0.041,
    "p99": 0.377,
    "last_seen": 1795137300123,
    "until": None,
    "probe": None,
}
EXAMPLE_HEALTH: Final[dict[str, Any]] = {
    "healthy": True,
    "pools": [{"name": "main", "healthy": True, "terminals": [EXAMPLE_TERMINAL]}],
    "request_id": REQUEST_ID,
}
EXAMPLE_DOWN: Final[dict[str, Any]] = {
    "healthy": False,
    "pools": [
        {
            "name": "main",
            "healthy": False,
            "terminals": [
                {
                    **EXAMPLE_TERMINAL,
                    "level": "down",
                    "reasons": ["no_worker"],
                    "detail": REASONS["no_worker"],
                    "publishing": False,
                    "in_step": False,
                    "fresh": None,
                    "p50": None,
                    "p99": None,
                }
            ],
        }
    ],
}
PROBE: Final = OpenApiParameter(
    "probe",
    {"type": "string", "enum": ["true", "false"], "default": "false"},
    description=_("true: ask every terminal now, through its worker, and wait up to ten seconds for all of them."),
)


def _figures(answer: Any, example: Any) -> dict[Any, Any]:
    description = _("Counts are those of all processes that ask, each since its start; durations in seconds.")
    return {200: OpenApiResponse(answer, description=description, examples=[OpenApiExample("an answer", value=example)])}


def _healthy() -> dict[Any, Any]:
    text = _("Each pool has a terminal that answers. `last_seen` and `until`, the end of its maintenance window, in ms.")
    return {
        200: OpenApiResponse(OpenApiTypes.OBJECT, description=text, examples=[OpenApiExample("all well", value=EXAMPLE_HEALTH)]),
        (503, "application/problem+json"): problem(
            _("No terminal of a pool answers; `pools` says why."),
            ArgusError(NOT_READY, "No terminal answers in the pool main.", **EXAMPLE_DOWN),
        ),
        **PROBLEMS,
    }


class Metrics(APIView):
    permission_classes = [OperateScope]

    @extend_schema(
        operation_id="pools_metrics",
        summary=_("The live figures of all pools"),
        tags=["operate"],
        responses=_figures(OpenApiTypes.OBJECT, {"pools": [msgspec.to_builtins(EXAMPLE_FIGURES)], "request_id": REQUEST_ID}),
    )
    def get(self, request: Request) -> Response:
        """As the processes last reported."""
        found = [msgspec.to_builtins(pool) for pool in figures.current().values()]
        return _answer({"pools": found, "request_id": requestid.current()})


class MetricsOfOne(APIView):
    permission_classes = [OperateScope]

    @extend_schema(
        operation_id="pool_metrics",
        summary=_("The live figures of a pool"),
        tags=["operate"],
        parameters=[NAME],
        responses={**_figures({"$ref": REF.format(name="PoolFigures")}, msgspec.to_builtins(EXAMPLE_FIGURES)), **PROBLEMS},
    )
    def get(self, request: Request, name: str) -> Response:
        """As the processes last reported."""
        known = _pool(name)
        return _answer(msgspec.to_builtins(figures.current()[known]))


class HealthCheck(APIView):
    permission_classes = [OperateScope]

    @extend_schema(
        operation_id="pools_health_check",
        summary=_("Whether every pool can answer"),
        tags=["operate"],
        parameters=[PROBE],
        responses=_healthy(),
    )
    def get(self, request: Request) -> Response:
        """All of them."""
        return _check(request, list(roster.current().pools))


class HealthCheckOfOne(APIView):
    permission_classes = [OperateScope]

    @extend_schema(
        operation_id="pool_health_check",
        summary=_("Whether a pool can answer"),
        tags=["operate"],
        parameters=[NAME, PROBE],
        responses=_healthy(),
    )
    def get(self, request: Request, name: str) -> Response:
        """This one."""
        return _check(request, [_pool(name)])


def _pool(name: str) -> str:
    """A pool's name. Raises ``ArgusError``."""
    services.find_pool(name)
    roster.look()
    return name


def _check(request: Request, pools: list[str]) -> Response:
    """Look or probe. Raises ``ArgusError`` where a pool has no terminal that answers."""
    refuse_others({name: request.query_params.getlist(name) for name in request.query_params}, ("probe",))
    asked = request.query_params.get("probe", "false")
    if asked not in ("true", "false"):
        raise ArgusError(INVALID_ARGUMENT, f"{asked[:40]!r} is not true or false.", parameter="probe")
    found = [one for one in health.current().values() if one.pool in pools]
    probed = probing.probe([one.name for one in found], services.PROBED_WITHIN) if asked == "true" else {}
    rows = []
    for pool in pools:
        mine = [one for one in found if one.pool == pool]
        answering = [probed[one.name].ok if one.name in probed else one.answers for one in mine]
        rows.append({"name": pool, "healthy": any(answering), "terminals": [_row(one, probed.get(one.name)) for one in mine]})
    if silent := [row["name"] for row in rows if not row["healthy"]]:
        detail = f"No terminal answers in the {'pool' if len(silent) == 1 else 'pools'} {', '.join(map(str, silent))}."
        raise ArgusError(NOT_READY, detail, healthy=False, pools=rows)
    return _answer({"healthy": True, "pools": rows, "request_id": requestid.current()})


def _row(one: TerminalHealth, probe: Probe | None) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(one)
    del row["report"], row["pool"]
    detail = " ".join(REASONS[reason] for reason in one.reasons)
    return {**row, "detail": detail, "probe": probe and msgspec.to_builtins(probe)}


def _answer(body: Any) -> Response:
    return Response(body, headers={"Cache-Control": "no-store"})
