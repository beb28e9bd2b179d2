"""Finding instruments by what people type: a code or a part of it, a name, its pinyin or the initials of that.

The database does it, the same on SQLite and PostgreSQL, in one query whose order is total, so pages neither repeat nor skip.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from typing import Any, NamedTuple

from django.db.models import Case, F, IntegerField, Q, QuerySet, Value, When
from django.db.models.functions import Replace

from marketdata.models import Instrument
from marketdata.symbols import SymbolError, parse

LONGEST = 64
"""Characters of a search that are looked at."""


class Found(NamedTuple):
    """A page of instruments; ``after`` is where the next one begins, None where there is none."""

    rows: tuple[Instrument, ...]
    after: tuple[int, str] | None


def find(
    text: str = "",
    *,
    kinds: Collection[str] = (),
    markets: Collection[str] = (),
    quoted: bool | None = None,
    only: Q | None = None,
    limit: int,
    after: tuple[int, str] | None = None,
) -> Found:
    """Instruments in order of how well they fit; without a text all of them, in order of symbols.

    Best first: the code itself; its beginning; the name; the initials; their beginning; the name's beginning; the pinyin's
    beginning; a part of name or code. Of those that fit alike, the ones that the source quotes come first.
    """
    rows = Instrument.objects.all() if only is None else Instrument.objects.filter(only)
    if kinds:
        rows = rows.filter(kind__in=kinds)
    if markets:
        rows = rows.filter(market__in=markets)
    if quoted is not None:
        rows = rows.filter(quoted=quoted)
    ranked: QuerySet[Any] = _ranked(rows, plain(text))
    if after is not None:
        rank, symbol = after
        ranked = ranked.filter(Q(rank__gt=rank) | Q(rank=rank, symbol__gt=symbol))
    page = list(ranked.order_by("rank", "symbol")[: limit + 1])
    more = len(page) > limit
    page = page[:limit]
    return Found(tuple(page), (page[-1].rank, page[-1].symbol) if more else None)


def plain(text: str) -> str:
    """What is looked for: one width, no spaces, no stars (``*ST`` is found as ``ST``), nothing that a database refuses."""
    normal = unicodedata.normalize("NFKC", text)
    return "".join(letter for letter in normal if letter.isprintable() and not letter.isspace() and letter != "*")[:LONGEST]


def _ranked(rows: QuerySet[Instrument], text: str) -> QuerySet[Instrument]:
    if not text:
        return rows.annotate(rank=Value(0, IntegerField()))
    # The exchanges write some names in the width of Chinese characters and with spaces between: 万  科Ａ.
    name = Replace(
        Replace(Replace(Replace(F("name"), Value(" "), Value("")), Value("Ａ"), Value("A")), Value("Ｂ"), Value("B")),
        Value("*"),
        Value(""),
    )
    conditions = (
        Q(symbol__in=_read(text)) | Q(symbol__iexact=text) | Q(symbol__istartswith=f"{text}."),
        Q(symbol__istartswith=text),
        Q(plain_name__iexact=text),
        Q(initials=text.lower()),
        Q(initials__startswith=text.lower()),
        Q(plain_name__istartswith=text),
        Q(pinyin__startswith=text.lower()),
        Q(plain_name__icontains=text) | Q(symbol__icontains=text),
    )
    unquoted = Case(When(quoted=True, then=Value(0)), default=Value(1), output_field=IntegerField())
    fit = Case(
        *(When(condition, then=Value(2 * place)) for place, condition in enumerate(conditions)),
        default=Value(-1),
        output_field=IntegerField(),
    )
    return rows.annotate(plain_name=name, fit=fit).filter(fit__gte=0).annotate(rank=F("fit") + unquoted)


def _read(text: str) -> tuple[str, ...]:
    """The symbols that the text may be in any usual form, such as sz000001 or 000001.XSHE."""
    try:
        return (parse(text),)
    except SymbolError as error:
        return error.candidates
