"""Our errors by the codes that Alpaca's stream has for them, in one table (docs.alpaca.markets, WebSocket Stream, Errors)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.utils.translation import override

from argus import errors
from argus.errors import ArgusError, Problem

MESSAGES: Final[Mapping[int, str]] = {
    400: "invalid syntax",
    401: "not authenticated",
    402: "auth failed",
    403: "already authenticated",
    404: "auth timeout",
    405: "symbol limit exceeded",
    406: "connection limit exceeded",
    407: "slow client",
    409: "insufficient subscription",
    410: "invalid subscribe action for this feed",
    500: "internal error",
}
"""Alpaca's code -> its text, to the letter: clients compare it. Alpaca has given out no 408."""

CODES: Final[Mapping[Problem, int]] = {
    **dict.fromkeys(
        (
            errors.BAD_JSON,
            errors.NOT_TEXT,
            errors.MESSAGE_TOO_BIG,
            errors.UNKNOWN_ACTION,
            errors.INVALID_ARGUMENT,
            errors.UNKNOWN_SYMBOL,
            errors.INVALID_SYMBOL,
            errors.AMBIGUOUS_SYMBOL,
            errors.UNKNOWN_SECTOR,
            errors.SUBPROTOCOL_NOT_SUPPORTED,
        ),
        400,
    ),
    errors.NOT_AUTHENTICATED: 401,
    **dict.fromkeys(
        (
            errors.KEY_INVALID,
            errors.KEY_EXPIRED,
            errors.KEY_REVOKED,
            errors.KEY_IN_URL,
            errors.TICKET_INVALID,
            errors.ADDRESS_NOT_ALLOWED,
            errors.DISCONNECTED,
        ),
        402,
    ),
    errors.ALREADY_AUTHENTICATED: 403,
    errors.AUTH_TIMEOUT: 404,
    errors.SYMBOL_LIMIT: 405,
    errors.SUBSCRIPTION_LIMIT: 405,
    errors.CONNECTION_LIMIT: 406,
    errors.ADDRESS_LIMIT: 406,
    errors.REPLAY_LIMIT: 406,
    errors.SLOW_CLIENT: 407,
    errors.EVENT_OVERFLOW: 407,
    errors.FORBIDDEN: 409,
    errors.DATA_TYPE_NOT_ALLOWED: 409,
    errors.NOT_SUPPORTED: 410,
}
"""Our error -> Alpaca's code; whatever else may happen is 500."""


def error_of(error: ArgusError) -> dict[str, Any]:
    """The ``error`` object. ``detail``, beyond Alpaca's, says what is wrong with this very message."""
    code = CODES.get(error.problem, 500)
    with override("en"):
        return {"T": "error", "code": code, "msg": MESSAGES[code], "detail": error.message}
