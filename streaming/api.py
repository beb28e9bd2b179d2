"""The stream's one REST call: a ticket for a browser."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from argus.access import check
from argus.errors import NOT_AUTHENTICATED, ArgusError
from streaming import tickets


class TicketSerializer(serializers.Serializer):  # type: ignore[type-arg]
    ticket = serializers.CharField(help_text=_("Goes into the stream's URL as ?ticket=...; good for one connection."))
    expires_in = serializers.IntegerField(help_text=_("Seconds until it is no longer good."))


class StreamTicket(APIView):
    """Give out a ticket."""

    @extend_schema(
        operation_id="stream_ticket",
        summary=_("A ticket for a WebSocket connection of a browser"),
        description=_("Good for one connection within 30 seconds, with the rights of the key that asks."),
        tags=["stream"],
        request=None,
        responses={201: TicketSerializer, 401: OpenApiResponse(description=_("No key, or none that is good."))},
    )
    def post(self, request: Request) -> Response:
        key = check.key_of({name.lower(): value for name, value in request.headers.items()})
        if key is None:
            raise ArgusError(NOT_AUTHENTICATED)
        answer = {"ticket": tickets.issue(key), "expires_in": tickets.SECONDS}
        return Response(answer, status=201, headers={"Cache-Control": "no-store"})
