"""Which symbols a request for history may name: those that the source quotes, and those of which it ever told."""

from __future__ import annotations

from collections.abc import Iterable

from argus.errors import UNKNOWN_SYMBOL
from marketdata import models, universe
from marketdata.symbols import parse
from marketdata.universe import Rejected, Resolution


def resolve_now(words: Iterable[str]) -> Resolution | None:
    """What words stand for, without waiting; None where the database must be asked about a symbol that is not quoted."""
    resolution = universe.resolve(words, universe.current())
    return None if any(item.problem is UNKNOWN_SYMBOL for item in resolution.rejected) else resolution


def resolve(words: Iterable[str]) -> Resolution:
    """The same, with instruments that are stored and not quoted (delisted ones, contracts, indices); blocking."""
    asked = list(words)
    resolution = universe.resolve(asked, universe.current())
    unknown = {item.word: parse(item.word) for item in resolution.rejected if item.problem is UNKNOWN_SYMBOL}
    if not unknown:
        return resolution
    stored = set(models.Instrument.objects.filter(symbol__in=set(unknown.values())).values_list("symbol", flat=True))
    symbols: dict[str, None] = {}
    rejected: list[Rejected] = []
    for word in asked:
        if unknown.get(word) in stored:
            symbols[unknown[word]] = None
            continue
        one = universe.resolve((word,), universe.current())
        symbols.update(dict.fromkeys(one.symbols))
        rejected.extend(one.rejected)
    return Resolution(tuple(symbols), resolution.everything, tuple(rejected))
