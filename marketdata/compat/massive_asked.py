"""What a Massive REST request asks for, and what most of its answers have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote as quoted
from urllib.parse import urlencode

from argus.access.principal import Principal
from argus.errors import INVALID_ARGUMENT, UNSUPPORTED, ArgusError
from argus.streamed import Reply
from marketdata import universe
from marketdata.api.query import Query, allow_symbols, refuse_if_nothing
from marketdata.compat.reply import json_reply

PREFIX: Final = "/compat/massive"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request of a caller who has been let in. ``path``: what the address names; ``address``: without the prefix."""

    principal: Principal
    address: str
    path: Mapping[str, str]
    query: Query
    headers: Mapping[str, str]
    origin: str
    request_id: str

    def reply(self, **fields: Any) -> Reply:
        """The answer."""
        return json_reply({"status": "OK", "request_id": self.request_id, **fields}, self.headers)

    def next_url(self, address: str, **others: str) -> str:
        """Where the next page is: this request at another address of Massive's, with other parameters."""
        given = {name: values[0] for name, values in self.query.items()} | others
        return f"{self.origin}{PREFIX}{quoted(address)}?{urlencode(given)}"


def one(symbols: tuple[str, ...]) -> tuple[str]:
    """The only symbol. Raises INVALID_ARGUMENT where the ticker stands for several."""
    if len(symbols) != 1:
        detail = f"The ticker stands for {len(symbols)} instruments; name one."
        raise ArgusError(INVALID_ARGUMENT, detail, parameter="ticker")
    return (symbols[0],)


def resolved(asked: Asked, words: Sequence[str], *, quoted: bool = True) -> tuple[str, ...]:
    """The symbols that words stand for, as many as the plan allows."""
    allow_symbols(asked.principal, len(words), "ticker")
    resolution = universe.resolve(words, universe.current(), quoted=quoted)
    refuse_if_nothing(resolution, "ticker")
    allow_symbols(asked.principal, len(resolution.symbols), "ticker")
    return resolution.symbols


def stocks_only(asked: Asked) -> None:
    """Raise UNSUPPORTED where the address names another market than stocks."""
    if asked.path["market"] != "stocks":
        raise ArgusError(UNSUPPORTED, f"There is no market {asked.path['market'][:40]!r} here; there is stocks.")
