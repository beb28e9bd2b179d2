"""UDF's tickets: what a chart in a browser, whose data feed can set no headers, shows instead of a key.

A ticket stands in the address, ahead of UDF's own names: TradingView's data feed puts nothing else into every request. It is
signed and not stored, so that every process reads it without asking, and it opens the chart's addresses alone. One of a key
lasts for a trading day and stands for the key: what the key may not do any more, the ticket may not do. One of a person who
is signed in to the console lasts for minutes; their page asks for the next one as long as they are signed in.
"""

from __future__ import annotations

import time
from typing import Any, Final

from django.core.signing import BadSignature, Signer

from argus.access import keys
from argus.access.check import authenticate_digest
from argus.access.principal import DATA_TYPES, SCOPE_READ, Limits, Principal
from argus.errors import KEY_INVALID, TICKET_INVALID, ArgusError

SECONDS: Final = 8 * 3600
"""How long a key's ticket is good."""
PERSONS_SECONDS: Final = 15 * 60
"""How long a person's is."""
PREFIX: Final = "argus_udf_"
"""What every ticket begins with; logs take out whatever begins like our keys."""
LONGEST: Final = 400
"""Characters; longer ones are refused unread."""
CONSOLE: Final = Limits(requests_per_minute=600, connections=0, symbols=100, data_types=frozenset(DATA_TYPES), priority=1)
"""What the console's chart may ask for."""


def issue(key: str) -> str:
    """A new ticket of a key that has passed the check."""
    prefix = keys.prefix_of(key)
    if prefix is None:
        raise ArgusError(KEY_INVALID)
    return _sign({"key": [prefix, keys.digest(key)]}, SECONDS)


def issue_to_person(user: int) -> str:
    """A new ticket of somebody who is signed in and may see market data."""
    return _sign({"user": user}, PERSONS_SECONDS)


async def redeem(ticket: str, address: str | None) -> Principal:
    """Who shows the ticket. Raises TICKET_INVALID, and what ``check.authenticate`` raises."""
    content = _content(ticket)
    if "user" in content:
        user = content["user"]
        # Keys count up from 1.
        return Principal(key_id=-user, prefix=f"user-{user}", plan="console", scopes=frozenset({SCOPE_READ}), limits=CONSOLE)
    prefix, digest = content["key"]
    return await authenticate_digest(prefix, digest, address)


def _signer() -> Signer:
    return Signer(salt="argus.udf.ticket", sep=".")


def _sign(content: dict[str, Any], seconds: int) -> str:
    return PREFIX + _signer().sign_object({**content, "until": int(time.time()) + seconds})


def _content(ticket: str) -> dict[str, Any]:
    if len(ticket) > LONGEST:
        raise ArgusError(TICKET_INVALID)
    try:
        content: dict[str, Any] = _signer().unsign_object(ticket.removeprefix(PREFIX))
    except BadSignature:
        raise ArgusError(TICKET_INVALID) from None
    if content["until"] <= time.time():
        raise ArgusError(TICKET_INVALID)
    return content
