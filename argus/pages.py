"""What Django answers where it has no answer: problem documents for programs, a plain page for people."""

from __future__ import annotations

import msgspec
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from argus import requestid
from argus.errors import FORBIDDEN, INTERNAL, INVALID_ARGUMENT, NOT_FOUND, ArgusError, Problem
from argus.http import PROBLEM

FOR_PEOPLE = ("/admin/", "/i18n/", "/static/")


def _page(request: HttpRequest, problem: Problem) -> HttpResponse:
    error = ArgusError(problem)
    if not request.path.startswith(FOR_PEOPLE):
        document = error.document(requestid.current())
        return HttpResponse(msgspec.json.encode(document), status=problem.status, content_type=PROBLEM)
    context = {"title": _("Error"), "problem": problem, "request_id": requestid.current()}
    return render(request, "problem.html", context, status=problem.status)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Status 400."""
    return _page(request, INVALID_ARGUMENT)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Status 403."""
    return _page(request, FORBIDDEN)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Status 404."""
    return _page(request, NOT_FOUND)


def internal(request: HttpRequest) -> HttpResponse:
    """Status 500."""
    return _page(request, INTERNAL)
