"""The one ASGI application: request ids outermost, then each kind of request to the room that answers it.

What must be fast or must answer without a database stands ahead of Django.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "argus.settings")

import structlog
from django.core.asgi import get_asgi_application

django_application: Any = get_asgi_application()

from argus.requestid import Application, Receive, RequestIds, Scope, Send
from marketdata.api import history_route, route
from marketdata.compat import alpaca_rest, massive_rest, udf
from monitoring.health import health
from monitoring.metrics import metrics
from streaming import routing, runtime
from streaming.servers import daphne

daphne.install()

log = structlog.get_logger(__name__)

ROUTES: dict[str, Application] = {
    "/health": health,
    "/health/live": health,
    "/health/ready": health,
    "/metrics": metrics,
    **route.ROUTES,
    **history_route.ROUTES,
}
"""Path -> who answers it ahead of Django."""

ROOMS: dict[str, Application] = {**alpaca_rest.ROUTES, **massive_rest.ROUTES, **udf.ROUTES}
"""Beginning of a path -> who answers what is under it: the addresses of other vendors' clients."""


_running: asyncio.AbstractEventLoop | None = None
"""The event loop whose runtime is known to have been started."""


async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
    """Hand one scope to whoever answers it."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    global _running
    loop = asyncio.get_running_loop()
    if loop is not _running:
        # Not all servers have a lifespan: Daphne has none.
        await runtime.ensure_started()
        _running = loop
    if scope["type"] == "websocket":
        await routing.application(scope, receive, send)
    elif plain := ROUTES.get(scope["path"]) or _room(scope["path"]):
        await plain(scope, receive, send)
    else:
        await django_application(scope, receive, send)


def _room(path: str) -> Application | None:
    return next((application for beginning, application in ROOMS.items() if path.startswith(beginning)), None)


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    try:
        await runtime.ensure_started()
    except Exception as error:
        # The server ends the process on this message; it is the last that is heard of the error.
        log.exception("start_failed")
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await runtime.stop()
    await send({"type": "lifespan.shutdown.complete"})


application = RequestIds(dispatch)
