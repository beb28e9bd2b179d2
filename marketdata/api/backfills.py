"""What operators ask of backfills over REST: to start one, to see how far each has come, to end or go on with one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from argus import requestid
from argus.access.drf import OperateScope
from argus.errors import INVALID_ARGUMENT, ArgusError
from marketdata.history import backfill, words
from marketdata.history.query import read_day
from marketdata.models import Backfill
from marketdata.types import Period

SHOWN: Final = 100
"""Jobs in the list, the newest first."""

ASKED = {"symbols": ["600519.SH", "sector:沪深300"], "period": "1m", "start": "2026-01-01", "end": "2026-06-30"}
TOLD = {
    "id": 3,
    "state": "running",
    "symbols": 301,
    "period": "1m",
    "start": "2026-01-01",
    "end": "2026-06-30",
    "chunks_done": 6,
    "chunks_total": 24,
    "percent": 25.0,
    "eta": 91.5,
    "bars": 2894410,
    "refused": {"padded": 480},
    "problems": [{"symbol": "600519.SH", "first": "2026-02-02", "last": "2026-02-27", "reason": "incomplete: 2 days"}],
    "detail": "",
    "created_at": "2026-07-01T18:00:00+08:00",
    "finished_at": None,
    "request_id": "5b2f7c0e9a6d4a0f8c1e3b7d2f4a6c8e",
}
BODY = inline_serializer(
    "BackfillAsked",
    {
        "symbols": serializers.ListField(child=serializers.CharField(), required=False),
        "sector": serializers.CharField(required=False),
        "period": serializers.ChoiceField([period.value for period in backfill.PERIODS]),
        "start": serializers.DateField(),
        "end": serializers.DateField(),
    },
)
KNOWN: Final = frozenset({"symbols", "sector", "period", "start", "end"})


def _responds(status: int, description: Any) -> dict[Any, Any]:
    shown = OpenApiExample("an answer", value=TOLD, response_only=True)
    return {status: OpenApiResponse(OpenApiTypes.OBJECT, description=description, examples=[shown])}


class Backfills(APIView):
    permission_classes = [OperateScope]

    @extend_schema(
        operation_id="backfills",
        summary=_("The newest backfills"),
        tags=["operate"],
        responses={200: OpenApiResponse(OpenApiTypes.OBJECT, description=_("`backfills`, the newest first, and `request_id`."))},
    )
    def get(self, request: Request) -> Response:
        """The last hundred."""
        jobs = [backfill.progress(job) for job in Backfill.objects.all()[:SHOWN]]
        return Response({"backfills": jobs, "request_id": requestid.current()})

    @extend_schema(
        operation_id="start_backfill",
        summary=_("Fetch bars of many symbols and days into the archive"),
        tags=["operate"],
        request=BODY,
        examples=[OpenApiExample("half a year of minutes", value=ASKED, request_only=True)],
        responses=_responds(202, _("The job. It fetches only what is not here yet; ask for it to see how far it has come.")),
    )
    def post(self, request: Request) -> Response:
        """Make the job and say where it can be seen."""
        body = request.data
        if not isinstance(body, Mapping):
            raise ArgusError(INVALID_ARGUMENT, "The body must be a JSON object.")
        for name in body:
            if name not in KNOWN:
                detail = f"There is no parameter {str(name)[:40]!r} here; there is {', '.join(sorted(KNOWN))}."
                raise ArgusError(INVALID_ARGUMENT, detail, parameter=str(name)[:40])
        resolution = words.resolve(_words(body))
        if not resolution.symbols and resolution.rejected:
            first = resolution.rejected[0]
            raise ArgusError(first.problem, f"{first.word[:80]!r}: {first.reason}.", parameter="symbols")
        job = backfill.start(
            symbols=resolution.symbols,
            period=_period(body.get("period")),
            first=read_day(_text(body, "start"), "start"),
            last=read_day(_text(body, "end"), "end"),
            request_id=requestid.current(),
        )
        rejected = [{"symbol": item.word[:80], "reason": item.reason} for item in resolution.rejected]
        answer = backfill.progress(job) | {"rejected": rejected}
        return Response(answer, status=202, headers={"Location": f"/api/v1/backfills/{job.pk}"})


class OneBackfill(APIView):
    permission_classes = [OperateScope]

    @extend_schema(
        operation_id="backfill",
        summary=_("How far a backfill has come"),
        tags=["operate"],
        responses=_responds(200, _("The job; `eta` in seconds.")),
    )
    def get(self, request: Request, number: int) -> Response:
        """The job."""
        return Response(backfill.progress(backfill.find(number)))

    @extend_schema(
        operation_id="resume_backfill",
        summary=_("Go on with a backfill that failed or was cancelled"),
        tags=["operate"],
        request=None,
        responses=_responds(202, _("The job.")),
    )
    def post(self, request: Request, number: int) -> Response:
        """Hand it to a worker again."""
        return Response(backfill.progress(backfill.resume(number)), status=202)

    @extend_schema(
        operation_id="cancel_backfill",
        summary=_("End a backfill; what it has fetched stays"),
        tags=["operate"],
        responses=_responds(200, _("The job.")),
    )
    def delete(self, request: Request, number: int) -> Response:
        """The worker stops after the chunk that is under way."""
        return Response(backfill.progress(backfill.cancel(number)))


def _words(body: Mapping[str, Any]) -> list[str]:
    given = body.get("symbols", [])
    listed = given.split(",") if isinstance(given, str) else given
    if not isinstance(listed, list) or not all(isinstance(word, str) for word in listed):
        raise ArgusError(INVALID_ARGUMENT, "symbols is a list of texts.", parameter="symbols")
    sector = body.get("sector", "")
    if not isinstance(sector, str):
        raise ArgusError(INVALID_ARGUMENT, "sector is the name of one sector.", parameter="sector")
    return [word for word in listed if word.strip()] + ([f"sector:{sector}"] if sector else [])


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise ArgusError(INVALID_ARGUMENT, f"Give the {name} as a day: 2026-01-05.", parameter=name)
    return value


def _period(value: Any) -> Period:
    try:
        return Period(value)
    except ValueError:
        detail = f"There is no period {str(value)[:40]!r}; there is {', '.join(backfill.PERIODS)}."
        raise ArgusError(INVALID_ARGUMENT, detail, parameter="period") from None
