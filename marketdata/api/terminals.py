"""What operators ask of a terminal over REST: to be polled now, whatever the schedule says."""

from __future__ import annotations

from typing import Any

from celery.exceptions import TimeoutError as CeleryTimeout
from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from argus import requestid
from argus.access.drf import OperateScope
from argus.broker import BrokerAway, carried
from argus.celery import CLOCK_TOLERANCE, queue_of
from argus.config import config
from argus.errors import DEADLINE, NOT_FOUND, SOURCE_UNAVAILABLE, ArgusError
from marketdata.tasks import poll_quotes
from marketdata.terminals import roster

FAILED = {"down", "timeout", "backlog", "stopping", "no_feed"}
"""Outcomes of a poll that brought nothing; ``overlap`` means that another poll is under way, which will."""


class PollTerminal(APIView):
    """A Celery task on the terminal's own queue, waited for up to the source's deadline."""

    permission_classes = [OperateScope]

    @extend_schema(
        operation_id="poll_terminal",
        summary=_("Poll a terminal now"),
        tags=["operate"],
        request=None,
        responses={
            200: OpenApiResponse(OpenApiTypes.OBJECT, description=_("`terminal`, `outcome` (ok, overlap), `request_id`."))
        },
    )
    def post(self, request: Request, terminal: str) -> Response:
        """Ask, wait, and say what came of it."""
        known = roster.current().terminals
        if terminal not in known:
            raise ArgusError(NOT_FOUND, f"There is no terminal {terminal!r}; there are: {', '.join(known)}.")
        timeout = config.source_timeout + 1
        options: dict[str, Any] = {"queue": queue_of(terminal), "expires": timeout + CLOCK_TOLERANCE, "ignore_result": False}
        try:
            with carried():
                result = poll_quotes.apply_async(args=(terminal,), **options)
                try:
                    # Under the embedded service Celery takes every thread of the process for a task's; this one is a request's.
                    outcome = result.get(timeout=timeout, disable_sync_subtasks=False)
                finally:
                    result.forget()
        except CeleryTimeout:
            raise ArgusError(DEADLINE, f"The worker of {terminal} did not answer within {timeout:g} s.") from None
        except BrokerAway as away:
            raise ArgusError(SOURCE_UNAVAILABLE, f"{terminal}: {away}.") from None
        if outcome in FAILED:
            raise ArgusError(SOURCE_UNAVAILABLE, f"The poll of {terminal} ended with: {outcome}.", outcome=outcome)
        return Response({"terminal": terminal, "outcome": outcome, "request_id": requestid.current()})
