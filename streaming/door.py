"""The stream's door: before anything that costs, a client is let in, or told when to come again.

A refusal is an HTTP answer to the handshake, 503 with ``Retry-After`` or 429, where the server can give one; uvicorn and Daphne
as run here can. Under another server the connection is opened, told the same as an ``error`` message, and closed with its code.
"""

from __future__ import annotations

import asyncio
import time

import msgspec
import structlog
from django.utils.translation import override

from argus import requestid
from argus.access import check, limits
from argus.access.address import neighbourhood
from argus.config import config
from argus.errors import BUSY, ArgusError
from argus.http import PROBLEM, problem_headers
from argus.requestid import Application, Receive, Scope, Send
from streaming import runtime
from streaming.runtime import Runtime

log = structlog.get_logger(__name__)

LEAVE_DEADLINE = 2.0
"""Seconds for giving an address' place back; a process that fails in it gives it back by its lease's end."""


class Door:
    """An ASGI application for handshakes, in front of another."""

    def __init__(self, inside: Application) -> None:
        self._inside = inside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        current = await runtime.ensure_started()
        address = check.client_address(scope)
        try:
            self._admit(current, address)
            counted = await self._count(scope, address)
        except ArgusError as error:
            current.hub.counters.refuse(error.problem)
            await receive()
            await refuse(scope, send, error)
            return
        try:
            await self._inside(scope, receive, send)
        finally:
            if counted is not None:
                await self._give_back(scope, counted)

    @staticmethod
    def _admit(current: Runtime, address: str | None) -> None:
        if current.admission is None:
            return
        retry_after = current.admission.admit(neighbourhood(address), time.monotonic())
        if retry_after:
            raise ArgusError(BUSY, f"Too many clients connect at once; try again in {retry_after} s.", retry_after=retry_after)
        current.hub.counters.admitted += 1

    @staticmethod
    async def _count(scope: Scope, address: str | None) -> str | None:
        """Take one of the address' places, where these are limited and the address is known."""
        limit = config.connections_per_address
        if address is None or not limit:
            return None
        await limits.quota().open_from(address, requestid.connection_id(scope), limit)
        return address

    @staticmethod
    async def _give_back(scope: Scope, address: str) -> None:
        try:
            async with asyncio.timeout(LEAVE_DEADLINE):
                await limits.quota().close_from(address, requestid.connection_id(scope))
        except TimeoutError:
            log.warning("address_not_given_back")


async def refuse(scope: Scope, send: Send, error: ArgusError) -> None:
    """Answer a handshake with an error. The text is always English: a client is a program."""
    problem = error.problem
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": msgspec.json.encode(error.reply(None)).decode()})
        await send({"type": "websocket.close", "code": problem.close, "reason": problem.name})
        return
    with override("en"):
        body = msgspec.json.encode(error.document(requestid.connection_id(scope)))
    headers = [
        (b"content-type", PROBLEM.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        *problem_headers(error),
    ]
    await send({"type": "websocket.http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
