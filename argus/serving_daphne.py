"""Daphne as Argus runs it: the signals are ours, and clients are told goodbye before their connections are closed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable
from types import FrameType
from typing import Any

from daphne.endpoints import build_endpoint_description_strings
from daphne.server import Server
from twisted.internet import reactor

from argus.serving import STOP_SIGNALS, Step


def run(application: Any, addresses: Iterable[tuple[str, int]], *, on_stopping: Step) -> None:
    """Serve on the addresses until a signal comes; returns after the orderly stop."""
    endpoints = [word for host, port in addresses for word in build_endpoint_description_strings(host=host, port=port)]
    server = Server(application, endpoints=endpoints, signal_handlers=False)
    loop: asyncio.AbstractEventLoop = reactor._asyncioEventloop
    stops: list[asyncio.Task[None]] = []

    async def stop() -> None:
        await on_stopping()
        server.stop()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if stops:
            os._exit(128 + number)
        loop.call_soon_threadsafe(lambda: stops.append(loop.create_task(stop())))

    for number in STOP_SIGNALS:
        signal.signal(number, on_signal)
    server.run()
