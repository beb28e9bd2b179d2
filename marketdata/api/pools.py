"""What operators ask of pools and terminals over REST: to see, make, change and remove them, and to fix their slots."""

from __future__ import annotations

from typing import Any, cast

from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from argus import requestid
from argus.access.drf import OperateScope
from argus.access.principal import Principal
from marketdata.api import pools_schema as schema
from marketdata.api.pools_schema import (
    EXAMPLE_POOL,
    EXAMPLE_TERMINAL,
    NAME,
    TERMINAL,
    KnownPoolSerializer,
    KnownTerminalSerializer,
    PoolSerializer,
    ScaleSerializer,
    SizeSerializer,
    TerminalSerializer,
    read,
)
from marketdata.terminals import services
from marketdata.terminals.models import Pool

ROOT = "/api/v1/connection_pool"
_POOL = _("The pool as it is now. It acts in this process at once, in all others within a second.")
_TERMINAL = _("The terminal as it is now.")


def by(request: Request) -> str:
    """Who asks, in the log: the number of the key."""
    return f"key {cast(Principal, request.auth).key_id}"


def _gone() -> dict[Any, Any]:
    return {204: OpenApiResponse(description=_("It is removed.")), **schema.PROBLEMS, **schema.CONFLICTS}


class Pools(APIView):
    permission_classes = [OperateScope]

    @extend_schema(
        operation_id="pools",
        summary=_("All pools with their terminals"),
        tags=["operate"],
        responses={
            200: OpenApiResponse(
                OpenApiTypes.OBJECT,
                description=_("`pools`, by name, and `request_id`."),
                examples=[OpenApiExample("an answer", value={"pools": [EXAMPLE_POOL], "request_id": schema.REQUEST_ID})],
            )
        },
    )
    def get(self, request: Request) -> Response:
        """As the database has them."""
        rows = Pool.objects.prefetch_related("terminals")
        return Response({"pools": PoolSerializer(rows, many=True).data, "request_id": requestid.current()})

    @extend_schema(
        operation_id="create_pool",
        summary=_("Make a pool"),
        tags=["operate"],
        request=PoolSerializer,
        examples=[schema.ASKED_POOL],
        responses=schema.responses(PoolSerializer, _POOL, EXAMPLE_POOL, 201),
    )
    def post(self, request: Request) -> Response:
        """Make it, with its terminals."""
        fields = read(PoolSerializer, request.data)
        name, terminals = fields.pop("name"), fields.pop("terminals", [])
        pool = services.create_pool(name, fields, terminals, by=by(request))
        return Response(PoolSerializer(pool).data, status=201, headers={"Location": f"{ROOT}/pools/{pool.name}"})


class OnePool(APIView):
    permission_classes = [OperateScope]

    @extend_schema(
        operation_id="pool",
        summary=_("One pool with its terminals"),
        tags=["operate"],
        parameters=[NAME],
        responses=schema.responses(PoolSerializer, _POOL, EXAMPLE_POOL),
    )
    def get(self, request: Request, name: str) -> Response:
        """As the database has it."""
        return Response(PoolSerializer(services.find_pool(name)).data)

    @extend_schema(
        operation_id="replace_pool",
        summary=_("Replace a pool: what is not named gets its default, a terminal that is not named goes"),
        tags=["operate"],
        parameters=[NAME],
        request=KnownPoolSerializer,
        examples=[schema.PUT_POOL],
        responses=schema.responses(PoolSerializer, _POOL, EXAMPLE_POOL),
    )
    def put(self, request: Request, name: str) -> Response:
        """All of it."""
        fields = read(KnownPoolSerializer, request.data, name=name)
        terminals = fields.pop("terminals", [])
        return Response(PoolSerializer(services.replace_pool(name, fields, terminals, by=by(request))).data)

    @extend_schema(
        operation_id="change_pool",
        summary=_("Change the named fields of a pool, and those of the named ones of its terminals"),
        description=_("It neither adds nor removes terminals: PUT and DELETE under the terminal's own address do."),
        tags=["operate"],
        parameters=[NAME],
        request=KnownPoolSerializer,
        examples=[schema.PATCHED_POOL],
        responses=schema.responses(PoolSerializer, _POOL, EXAMPLE_POOL),
    )
    def patch(self, request: Request, name: str) -> Response:
        """What is named."""
        fields = read(KnownPoolSerializer, request.data, partial=True, name=name)
        terminals = fields.pop("terminals", [])
        return Response(PoolSerializer(services.change_pool(name, fields, terminals, by=by(request))).data)

    @extend_schema(
        operation_id="delete_pool",
        summary=_("Remove a pool and its terminals"),
        tags=["operate"],
        parameters=[NAME],
        responses=_gone(),
    )
    def delete(self, request: Request, name: str) -> Response:
        """The last one stays."""
        services.delete_pool(name, by=by(request))
        return Response(status=204)


class OneTerminal(APIView):
    permission_classes = [OperateScope]

    @extend_schema(
        operation_id="terminal",
        summary=_("One terminal of a pool"),
        tags=["operate"],
        parameters=[NAME, TERMINAL],
        responses=schema.responses(TerminalSerializer, _TERMINAL, EXAMPLE_TERMINAL),
    )
    def get(self, request: Request, name: str, terminal: str) -> Response:
        """As the database has it."""
        return Response(TerminalSerializer(services.find_terminal(terminal, name)).data)

    @extend_schema(
        operation_id="put_terminal",
        summary=_("Add a terminal to a pool, or replace it: what is not named gets its default"),
        tags=["operate"],
        parameters=[NAME, TERMINAL],
        request=KnownTerminalSerializer,
        examples=[schema.PUT_TERMINAL],
        responses={
            **schema.responses(TerminalSerializer, _("The terminal, which is new."), EXAMPLE_TERMINAL, 201),
            **schema.responses(TerminalSerializer, _TERMINAL, EXAMPLE_TERMINAL),
        },
    )
    def put(self, request: Request, name: str, terminal: str) -> Response:
        """All of it."""
        fields = read(KnownTerminalSerializer, request.data, name=terminal)
        row, created = services.put_terminal(name, terminal, fields, by=by(request))
        headers = {"Location": f"{ROOT}/pools/{name}/terminals/{terminal}"} if created else {}
        return Response(TerminalSerializer(row).data, status=201 if created else 200, headers=headers)

    @extend_schema(
        operation_id="change_terminal",
        summary=_("Change the named fields of a terminal; drain it, resume it"),
        tags=["operate"],
        parameters=[NAME, TERMINAL],
        request=KnownTerminalSerializer,
        examples=[schema.PATCHED_TERMINAL],
        responses=schema.responses(TerminalSerializer, _TERMINAL, EXAMPLE_TERMINAL),
    )
    def patch(self, request: Request, name: str, terminal: str) -> Response:
        """What is named."""
        fields = read(KnownTerminalSerializer, request.data, partial=True, name=terminal)
        return Response(TerminalSerializer(services.change_terminal(terminal, fields, by=by(request), pool=name)).data)

    @extend_schema(
        operation_id="delete_terminal",
        summary=_("Remove a terminal"),
        tags=["operate"],
        parameters=[NAME, TERMINAL],
        responses=_gone(),
    )
    def delete(self, request: Request, name: str, terminal: str) -> Response:
        """Its worker has nothing to do any more."""
        services.delete_terminal(terminal, by=by(request), pool=name)
        return Response(status=204)


class Scale(APIView):
    permission_classes = [OperateScope]

    @extend_schema(
        operation_id="scale",
        summary=_("Fix the number of slots of a pool's terminals, or let them grow and shrink again"),
        tags=["operate"],
        request=ScaleSerializer,
        examples=[schema.SCALED],
        responses=schema.responses(PoolSerializer, _POOL, EXAMPLE_POOL),
    )
    def post(self, request: Request) -> Response:
        """Of the pool that the body names."""
        asked = read(ScaleSerializer, request.data)
        return Response(PoolSerializer(services.scale(asked["pool"], asked["size"], by=by(request))).data)


class ScaleOne(APIView):
    permission_classes = [OperateScope]

    @extend_schema(
        operation_id="scale_pool",
        summary=_("Fix the number of slots of this pool's terminals, or let them grow and shrink again"),
        tags=["operate"],
        parameters=[NAME],
        request=SizeSerializer,
        examples=[schema.SCALED_ONE],
        responses=schema.responses(PoolSerializer, _POOL, EXAMPLE_POOL),
    )
    def post(self, request: Request, name: str) -> Response:
        """Of the pool at this address."""
        asked = read(SizeSerializer, request.data)
        return Response(PoolSerializer(services.scale(name, asked["size"], by=by(request))).data)
