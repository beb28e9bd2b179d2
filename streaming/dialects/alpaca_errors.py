"""Our errors by the codes that Alpaca's stream has for them, in one table (docs.alpaca.markets, WebSocket Stream, Errors)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.utils.translation import override

from argus import errors
from argus.errors import ArgusError

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

CODES: Final[Mapping[str, int]] = {
    problem.name: code
    for code, problems in {
        400: (
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
        401: (errors.NOT_AUTHENTICATED,),
        402: (
            errors.KEY_INVALID,
            errors.KEY_EXPIRED,
            errors.KEY_REVOKED,
            errors.KEY_IN_URL,
            errors.TICKET_INVALID,
            errors.ADDRESS_NOT_ALLOWED,
            errors.DISCONNECTED,
        ),
        403: (errors.ALREADY_AUTHENTICATED,),
        404: (errors.AUTH_TIMEOUT,),
        405: (errors.SYMBOL_LIMIT, errors.SUBSCRIPTION_LIMIT),
        406: (errors.CONNECTION_LIMIT, errors.ADDRESS_LIMIT, errors.REPLAY_LIMIT),
        407: (errors.SLOW_CLIENT, errors.EVENT_OVERFLOW),
        409: (errors.FORBIDDEN, errors.DATA_TYPE_NOT_ALLOWED),
        410: (errors.NOT_SUPPORTED,),
    }.items()
    for problem in problems
}
"""Our error's name -> Alpaca's code; whatever else may happen is 500."""


def error_of(error: ArgusError) -> dict[str, Any]:
    """The ``error`` object. ``detail``, beyond Alpaca's, says what is wrong with this very message."""
    code = CODES.get(error.problem.name, 500)
    with override("en"):
        return {"T": "error", "code": code, "msg": MESSAGES[code], "detail": error.message}
