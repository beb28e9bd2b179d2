"""The peer of the latest quotes: what a plain Django REST framework view of the same quotes costs.

``python -m bench.peer PORT`` serves ``/latest?symbols=...`` on uvicorn: quotes kept as dicts, looked up, handed to ``Response``.
No key is checked and no quota counted: the peer has less to do.
"""

from __future__ import annotations

import sys
from typing import Any

import django
import msgspec
import uvicorn
from django.conf import settings

settings.configure(
    SECRET_KEY="bench",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["rest_framework"],
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": [],
        "DEFAULT_PERMISSION_CLASSES": [],
        "UNAUTHENTICATED_USER": None,
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    },
)
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402 (settings come first)
from django.urls import path  # noqa: E402
from rest_framework.request import Request  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework.views import APIView  # noqa: E402

from bench.market import sweep  # noqa: E402

QUOTES: dict[str, dict[str, Any]] = {symbol: msgspec.json.decode(body) for symbol, body in sweep(0).items()}


class Latest(APIView):
    """The newest quotes of ``symbols``."""

    def get(self, request: Request) -> Response:
        symbols = request.query_params["symbols"].split(",")
        return Response({"data": [QUOTES[symbol] for symbol in symbols if symbol in QUOTES], "source": "simulated"})


urlpatterns = [path("latest", Latest.as_view())]


def main() -> None:
    """Serve until the end."""
    uvicorn.run(
        get_asgi_application(), port=int(sys.argv[1]), loop="uvloop", http="httptools", log_level="warning", access_log=False
    )


if __name__ == "__main__":
    main()
