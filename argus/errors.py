"""Every error that a client can be shown, in one table.

REST renders a row as an RFC 9457 problem document with the row's HTTP status, the stream as an ``error`` message and,
where a row has one, the close code. ``docs/protocol.md`` shows the same table and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import override


class Problem(NamedTuple):
    """One row: ``close`` is the close code of a connection that the error ends (None: the connection goes on)."""

    code: int
    name: str
    status: int
    close: int | None
    retryable: bool
    message: Any


BAD_JSON = Problem(400, "bad_json", 400, None, False, _("The message is not a JSON object."))
NOT_AUTHENTICATED = Problem(401, "not_authenticated", 401, 4101, False, _("An API key is required."))
KEY_INVALID = Problem(402, "key_invalid", 401, 4102, False, _("The API key is not known."))
FORBIDDEN = Problem(403, "forbidden", 403, 4103, False, _("The key does not have the scope that this needs."))
DATA_TYPE_NOT_ALLOWED = Problem(404, "data_type_not_allowed", 403, None, False, _("The plan does not include this data type."))
SYMBOL_LIMIT = Problem(405, "symbol_limit", 403, None, False, _("More symbols than the plan allows."))
CONNECTION_LIMIT = Problem(406, "connection_limit", 429, 4106, False, _("More connections than the plan allows."))
SLOW_CLIENT = Problem(407, "slow_client", 408, 4007, True, _("The client read too slowly and was disconnected."))
MESSAGE_TOO_BIG = Problem(408, "message_too_big", 413, 1009, False, _("The message is larger than is accepted."))
KEY_EXPIRED = Problem(409, "key_expired", 401, 4109, False, _("The API key has expired."))
KEY_REVOKED = Problem(410, "key_revoked", 401, 4110, False, _("The API key has been revoked."))
ADDRESS_NOT_ALLOWED = Problem(411, "address_not_allowed", 403, 4111, False, _("The key may not be used from this address."))
AUTH_TIMEOUT = Problem(412, "auth_timeout", 408, 4112, False, _("No API key was given in time."))
DISCONNECTED = Problem(413, "disconnected", 403, 4113, False, _("The operator closed this connection."))
UNKNOWN_ACTION = Problem(414, "unknown_action", 400, None, False, _("The action is not known."))
INVALID_ARGUMENT = Problem(415, "invalid_argument", 400, None, False, _("An argument is missing or has a wrong value."))
NOT_TEXT = Problem(416, "not_text", 400, None, False, _("The message is binary; this connection speaks JSON text."))
UNKNOWN_SUBSCRIPTION = Problem(417, "unknown_subscription", 404, None, False, _("There is no such subscription."))
ALREADY_AUTHENTICATED = Problem(418, "already_authenticated", 400, None, False, _("The connection is authenticated already."))
NOT_SUPPORTED = Problem(419, "not_supported", 501, None, False, _("This is not supported yet."))
SUBSCRIPTION_LIMIT = Problem(
    420, "subscription_limit", 403, None, False, _("More subscriptions than a connection or its key may have.")
)
UNKNOWN_SYMBOL = Problem(421, "unknown_symbol", 404, None, False, _("The symbol is not known."))
INVALID_SYMBOL = Problem(422, "invalid_symbol", 400, None, False, _("The symbol cannot be read."))
AMBIGUOUS_SYMBOL = Problem(
    423, "ambiguous_symbol", 400, None, False, _("The code exists on more than one exchange; add the exchange.")
)
UNKNOWN_SECTOR = Problem(424, "unknown_sector", 404, None, False, _("The sector or market is not known."))
SUBPROTOCOL_NOT_SUPPORTED = Problem(
    425, "subprotocol_not_supported", 400, 4125, False, _("None of the subprotocols that the client offers is supported.")
)
KEY_IN_URL = Problem(426, "key_in_url", 400, 4126, False, _("A key must not stand in a URL; send it in a header or a message."))
TICKET_INVALID = Problem(427, "ticket_invalid", 401, 4127, False, _("The ticket is not known, has been used or has expired."))
MESSAGE_LIMIT = Problem(
    428, "message_limit", 429, 4128, False, _("The client went on sending more messages than it may and was disconnected.")
)
RATE_LIMITED = Problem(429, "rate_limited", 429, None, True, _("More requests than the plan allows; try again later."))
NOT_FOUND = Problem(430, "not_found", 404, None, False, _("There is nothing at this address."))
METHOD_NOT_ALLOWED = Problem(431, "method_not_allowed", 405, None, False, _("The method is not allowed here."))
NOT_ACCEPTABLE = Problem(432, "not_acceptable", 406, None, False, _("None of the accepted formats is available."))
UNSUPPORTED_MEDIA_TYPE = Problem(
    433, "unsupported_media_type", 415, None, False, _("The content type of the request is not read here.")
)
OUTSIDE_CALENDAR = Problem(
    434, "outside_calendar", 400, None, False, _("The trading calendar does not reach that day; no guess is made.")
)
TOO_MUCH_DATA = Problem(
    435, "too_much_data", 413, None, False, _("The answer would hold more rows than one request may ask for.")
)
CURSOR_INVALID = Problem(436, "cursor_invalid", 400, None, False, _("The cursor is damaged or belongs to another query."))
UNSUPPORTED = Problem(437, "unsupported", 501, None, False, _("The source of the data does not offer this."))
REPLAY_LIMIT = Problem(438, "replay_limit", 429, 4138, False, _("More replays are running than this server plays at a time."))
NO_RECORDING = Problem(439, "no_recording", 404, 4139, False, _("Nothing was recorded at that time."))
CONFLICT = Problem(440, "conflict", 409, None, False, _("What there is already stands against it."))
EVENT_OVERFLOW = Problem(
    441, "event_overflow", 503, 4041, True, _("More events were waiting than are kept; reconnect and resume.")
)
SESSION_UNKNOWN = Problem(442, "session_unknown", 404, None, False, _("The session has ended or never was; subscribe anew."))
ADDRESS_LIMIT = Problem(445, "address_limit", 429, 4145, False, _("More connections from one address than are accepted."))
INTERNAL = Problem(500, "internal", 500, 1011, True, _("Something went wrong on our side; it is logged with this request id."))
NOT_READY = Problem(503, "not_ready", 503, None, True, _("The service is not ready yet; try again shortly."))
SOURCE_UNAVAILABLE = Problem(504, "source_unavailable", 503, None, True, _("The source of the data does not answer."))
DEADLINE = Problem(505, "deadline", 504, None, True, _("The answer did not come before the deadline."))
BUSY = Problem(506, "busy", 503, 4006, True, _("Too many clients connect at once; try again after the time that is given."))
OVERLOADED = Problem(507, "overloaded", 503, 4008, True, _("The service is overloaded; plans of higher priority come first."))

PROBLEMS: tuple[Problem, ...] = tuple(sorted(value for value in globals().values() if isinstance(value, Problem)))
BY_NAME: Mapping[str, Problem] = {problem.name: problem for problem in PROBLEMS}

GOODBYE_RESTART = 1012
"""The close code of an orderly stop: reconnect to another process, or to this one when it is back."""


class ArgusError(Exception):
    """A problem on its way to a client; ``detail`` says what is wrong with this very request and what to do.

    ``params`` are machine-readable additions (``parameter``, ``limit``, ``retry_after`` in seconds, ...).
    """

    def __init__(self, problem: Problem, detail: str | Promise = "", **params: Any) -> None:
        super().__init__(detail or problem.name)
        self.problem = problem
        self.detail = detail
        self.params = params

    @property
    def message(self) -> str:
        """The sentence for people: the detail if there is one, else the table's message in the active language."""
        return str(self.detail or self.problem.message)

    def document(self, request_id: str) -> dict[str, Any]:
        """The RFC 9457 problem document."""
        problem = self.problem
        return {
            "type": f"urn:argus:problem:{problem.name}",
            "title": str(problem.message),
            "status": problem.status,
            "detail": self.message,
            "code": problem.code,
            "name": problem.name,
            "retryable": problem.retryable,
            "request_id": request_id,
            **self.params,
        }

    def reply(self, request_id: str | int | None) -> dict[str, Any]:
        """The stream's ``error`` message, which is always in English (a client is a program)."""
        problem = self.problem
        with override("en"):
            message = self.message
        reply: dict[str, Any] = {
            "type": "error",
            "code": problem.code,
            "name": problem.name,
            "message": message,
            "retryable": problem.retryable,
            **self.params,
        }
        if request_id is not None:
            reply["id"] = request_id
        return reply
