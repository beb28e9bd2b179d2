"""UDF's one call of our own: a ticket for a chart."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from argus.access import check
from argus.errors import NOT_AUTHENTICATED, ArgusError
from marketdata.compat import udf_tickets as tickets
from marketdata.compat.udf import PREFIX


class UdfTicketSerializer(serializers.Serializer):  # type: ignore[type-arg]
    ticket = serializers.CharField(help_text=_("Stands in the address of every request: /udf/TICKET/history."))
    url = serializers.CharField(help_text=_("The address of the data feed, behind this server's own."))
    expires_in = serializers.IntegerField(help_text=_("Seconds until it is no longer good."))


class UdfTicket(APIView):
    """Give out a ticket."""

    @extend_schema(
        operation_id="udf_ticket",
        summary=_("A ticket for a TradingView chart"),
        description=_(
            "A chart's data feed can set no headers: it shows the ticket in the address, for as many requests as the key's plan "
            "allows. The ticket is good for eight hours, for /udf/ alone, and no longer than its key."
        ),
        tags=["TradingView"],
        request=None,
        responses={201: UdfTicketSerializer, 401: OpenApiResponse(description=_("No key, or none that is good."))},
    )
    def post(self, request: Request) -> Response:
        key = check.key_of({name.lower(): value for name, value in request.headers.items()})
        if key is None:
            raise ArgusError(NOT_AUTHENTICATED)
        ticket = tickets.issue(key)
        answer = {"ticket": ticket, "url": f"{PREFIX}{ticket}", "expires_in": tickets.SECONDS}
        return Response(answer, status=201, headers={"Cache-Control": "no-store"})
