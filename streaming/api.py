"""The stream's REST calls: a ticket for a browser, and what the journal has of a gap."""

from __future__ import annotations

from collections import Counter

from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from argus import requestid
from argus.access import check
from argus.errors import INVALID_ARGUMENT, NOT_AUTHENTICATED, NOT_FOUND, ArgusError
from marketdata.journal import UNKNOWN_EPOCH, Reading, journal
from marketdata.latest import store
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


class PositionSerializer(serializers.Serializer):  # type: ignore[type-arg]
    epoch = serializers.IntegerField(help_text=_("The publisher's term of office."))
    seq = serializers.IntegerField(help_text=_("The message within it."))


class GapSerializer(serializers.Serializer):  # type: ignore[type-arg]
    feed = serializers.CharField()
    to = PositionSerializer()
    filled = serializers.BooleanField(help_text=_("Whether every event of these messages is known."))
    source = serializers.ChoiceField(  # type: ignore[assignment]
        ["journal", "none"], help_text=_("Where they are known from.")
    )
    reason = serializers.CharField(help_text=_("Why some may be missing; empty where none is."), allow_blank=True)
    messages = serializers.IntegerField(help_text=_("Messages that the journal has of these."))
    events = serializers.DictField(
        child=serializers.IntegerField(), help_text=_("How many events of each data type they carried.")
    )
    request_id = serializers.CharField()

    def get_fields(self) -> dict[str, serializers.Field]:  # type: ignore[type-arg]
        """``from`` cannot be an attribute."""
        fields = super().get_fields()
        fields["from"] = PositionSerializer()
        return fields


class StreamGap(APIView):
    """A gap certificate: whether what a client has missed can be had again."""

    @extend_schema(
        operation_id="stream_gap",
        summary=_("Whether the messages of a feed from one to another can still be resumed"),
        description=_("What a client that was cut off asks before it resumes, or an auditor afterwards."),
        tags=["stream"],
        parameters=[
            OpenApiParameter("from", str, required=True, description=_("The first missed message, EPOCH-SEQ.")),
            OpenApiParameter("to", str, description=_("The last one, EPOCH-SEQ; without it the newest that is known here.")),
            OpenApiParameter("feed", str, description=_("The feed; without it the only one there is.")),
        ],
        responses={200: GapSerializer, 400: OpenApiResponse(description=_("A parameter is wrong."))},
    )
    def get(self, request: Request) -> Response:
        unknown = request.query_params.keys() - {"from", "to", "feed"}
        if unknown:
            name = min(unknown)
            raise ArgusError(INVALID_ARGUMENT, format_lazy(_("The parameter {name} is not known."), name=name), parameter=name)
        feed = _feed(request.query_params.get("feed"))
        first = _position(request, "from")
        known = store.feeds[feed]
        last = _position(request, "to") if "to" in request.query_params else (known.epoch, known.seq)
        if first[0] > last[0]:
            found = Reading([], complete=False, reason=UNKNOWN_EPOCH)
        else:
            found = journal().read(feed, (first[0], first[1] - 1), last)
        events = Counter({kind.value: 0 for entry in found.entries for kind in entry.events})
        for entry in found.entries:
            for kind, (symbols, _fragments) in entry.events.items():
                events[kind.value] += len(symbols)
        return Response(
            {
                "feed": feed,
                "from": {"epoch": first[0], "seq": first[1]},
                "to": {"epoch": last[0], "seq": last[1]},
                "filled": found.complete,
                "source": "journal" if found.complete else "none",
                "reason": found.reason,
                "messages": len(found.entries),
                "events": dict(events),
                "request_id": requestid.current(),
            },
            headers={"Cache-Control": "no-store"},
        )


def _feed(given: str | None) -> str:
    feeds = list(store.feeds)
    if given is None and len(feeds) == 1:
        return feeds[0]
    if given is None:
        text = format_lazy(_("Name the feed; there are: {feeds}."), feeds=", ".join(feeds))
        raise ArgusError(INVALID_ARGUMENT, text, parameter="feed")
    if given not in feeds:
        text = format_lazy(_("There is no feed {feed}; there are: {feeds}."), feed=given[:40], feeds=", ".join(feeds))
        raise ArgusError(NOT_FOUND, text, parameter="feed")
    return given


def _position(request: Request, parameter: str) -> tuple[int, int]:
    epoch, dash, seq = request.query_params.get(parameter, "").partition("-")
    try:
        position = (int(epoch), int(seq))
    except ValueError:
        position = (-1, -1)
    if not dash or not 0 <= position[0] <= 2**53 or not 1 <= position[1] <= 2**53:
        text = format_lazy(_("{parameter} is a message's EPOCH-SEQ, such as 1763690400000-1791."), parameter=parameter)
        raise ArgusError(INVALID_ARGUMENT, text, parameter=parameter)
    return position
