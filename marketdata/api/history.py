"""History over REST: from a request's parameters to bars in a format, the same for the plain route and the DRF view."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from itertools import chain
from typing import Any, Final

import msgspec

from argus import compress
from argus.access.principal import Principal
from argus.errors import BAD_JSON, INVALID_ARGUMENT, NOT_READY, SYMBOL_LIMIT, ArgusError
from argus.streamed import Reply
from marketdata import market_time
from marketdata.api import cursor, latest
from marketdata.api.formats import arrow, csv, json, parquet
from marketdata.api.formats.json import Position
from marketdata.api.formats.negotiate import MEDIA, Format, choose
from marketdata.api.query import Query, allow_symbols, calendar_for, refuse_if_nothing, refuse_others, words_of
from marketdata.cache.tiers import Tier
from marketdata.calendar import SHANGHAI
from marketdata.history.query import POINT_IN_TIME, HistoryQuery, make
from marketdata.history.service import Prepared, estimate, prepare, prepare_now
from marketdata.history.words import resolve, resolve_now
from marketdata.universe import EVERYTHING, Rejected, Resolution

PARAMETERS: Final = frozenset(
    {"symbols", "period", "start", "end", "count", "adjust", "as_of", "fields", "format", "limit", "cursor"}
)
TERMINAL_NAMES: Final = {
    "stock_list": "symbols",
    "start_time": "start",
    "end_time": "end",
    "dividend_type": "adjust",
    "field_list": "fields",
}
"""What xtdata.get_market_data calls a parameter -> what it is called here."""

LIMIT: Final = 10_000
MAX_LIMIT: Final = 100_000
"""Rows of a page of JSON."""
MAX_WORDS: Final = 20_000
"""Symbols, sectors and markets that one request may name, whatever the plan."""
LONGEST_BODY: Final = 2 * 1024 * 1024
"""Bytes of a body: more than 100,000 symbols, which are then refused as such."""
QUICK: Final = 1_000
QUICK_SYMBOLS: Final = 20
"""Rows and symbols that are answered on the event loop: a millisecond's work, and a hop to a thread costs as much."""
SMALL: Final = 1024
"""Bytes below which compression gains nothing."""
STAMP: Final = "end"
"""Where in its time a bar is stamped."""
IMMUTABLE: Final = "private, max-age=31536000, immutable"
REVALIDATE: Final = "private, no-cache"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request, read. ``part`` is what is to be prepared for it: a page's own symbols and range, or all of ``query``."""

    query: HistoryQuery
    part: HistoryQuery
    pages: HistoryQuery
    """The query with its ends fixed, in which cursors go forward; the query itself where there are no pages."""
    rejected: tuple[Rejected, ...]
    may_change: bool
    """Whether symbols were asked for by sector, market, ``*`` or an instrument's name, which may stand for others tomorrow."""
    format: Format
    limit: int
    begin: Position
    request_id: str


def read_now(parameters: Query, principal: Principal, accept: str | None, request_id: str) -> Asked | None:
    """Read and check a request's parameters without waiting; None where the database must be asked about a symbol."""
    words = _words(parameters, principal)
    resolution = resolve_now(words)
    return None if resolution is None else _asked(parameters, principal, accept, request_id, words, resolution)


def read(parameters: Query, principal: Principal, accept: str | None, request_id: str) -> Asked:
    """The same, blocking. Raises ``ArgusError``, which names the parameter, and nothing else."""
    words = _words(parameters, principal)
    return _asked(parameters, principal, accept, request_id, words, resolve(words))


def _words(parameters: Query, principal: Principal) -> list[str]:
    refuse_others(parameters, PARAMETERS)
    words = words_of(parameters, "symbols")
    if not words:
        raise ArgusError(INVALID_ARGUMENT, "Name at least one symbol: ?symbols=000001.SZ,600000.SH", parameter="symbols")
    allow_symbols(principal, len(words), "symbols")
    if len(words) > MAX_WORDS:
        detail = f"These are {len(words):,}; one request may name {MAX_WORDS:,}. Name sectors or markets, or ask in parts."
        raise ArgusError(SYMBOL_LIMIT, detail, limit=MAX_WORDS, count=len(words), parameter="symbols")
    return words


def _asked(
    parameters: Query, principal: Principal, accept: str | None, request_id: str, words: Sequence[str], resolution: Resolution
) -> Asked:
    form = choose(_single(parameters, "format"), accept)
    limit = _limit(_single(parameters, "limit"), form)
    refuse_if_nothing(resolution, "symbols")
    allow_symbols(principal, len(resolution.symbols), "symbols")
    if not resolution.symbols:
        detail = "The source has not told its symbols yet; try again shortly, or name them one by one."
        raise ArgusError(NOT_READY, detail, parameter="symbols", retry_after=2)
    period = _single(parameters, "period")
    query = make(
        symbols=resolution.symbols,
        period="1d" if period is None else period,
        start=_single(parameters, "start"),
        end=_single(parameters, "end"),
        count=_single(parameters, "count"),
        adjust=_single(parameters, "adjust"),
        as_of=_single(parameters, "as_of"),
        fields=_fields(words_of(parameters, "fields")),
        calendar=calendar_for(resolution.symbols),
    )
    text = _single(parameters, "cursor")
    if form is not Format.JSON:
        if text is not None:
            detail = f"Only JSON comes in pages; {form} is one answer: leave the cursor out."
            raise ArgusError(INVALID_ARGUMENT, detail, parameter="cursor")
        pages, part, begin = query, query, Position(0, None)
    else:
        pages, begin = (cursor.fixed(query, market_time.now()), Position(0, None)) if text is None else cursor.read(text, query)
        last = begin.symbol + cursor.per_page(pages, limit)
        part = msgspec.structs.replace(pages, symbols=pages.symbols[begin.symbol : last])
    return Asked(
        query=query,
        part=part,
        pages=pages,
        rejected=resolution.rejected,
        may_change=any(word == EVERYTHING or ":" in word or not word.isascii() for word in words),
        format=form,
        limit=limit,
        begin=begin,
        request_id=request_id,
    )


def from_terminal_names(parameters: Query) -> Query:
    """The parameters with xtdata's names and conventions taken for ours: an empty time and a count of -1 say nothing."""
    named: dict[str, list[str]] = {}
    for name, values in parameters.items():
        ours = TERMINAL_NAMES.get(name, name)
        kept = [value for value in values if not (ours in ("start", "end", "fields") and value == "")]
        kept = [value for value in kept if not (ours == "count" and value == "-1")]
        if kept:
            named.setdefault(ours, []).extend(kept)
    return named


def from_body(body: bytes, query: Collection[str] = ()) -> Query:
    """The parameters of a POST: a JSON object; ``symbols`` and ``fields`` may be lists. Raises BAD_JSON, INVALID_ARGUMENT.

    ``query``: what stands in the address, which is refused: it would count for nothing.
    """
    for name in query:
        raise ArgusError(INVALID_ARGUMENT, f"A POST has its parameters in the body; {name[:40]!r} is not.", parameter=name[:40])
    try:
        given = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArgusError(BAD_JSON, f"The body cannot be read: {error}.") from None
    if not isinstance(given, dict):
        raise ArgusError(BAD_JSON, "The body is not a JSON object of parameters.")
    return {name: _values(name, value) for name, value in given.items() if value is not None}


def _values(name: str, value: Any) -> list[str]:
    many = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | int) and not isinstance(item, bool) for item in many):
        raise ArgusError(INVALID_ARGUMENT, f"{name[:40]} is a text, a whole number or a list of texts.", parameter=name[:40])
    return [str(item) for item in many]


def answer_now(asked: Asked, headers: Mapping[str, str]) -> Reply | None:
    """The answer, if all of it is in this process's memory and it is small: no waiting, for the event loop."""
    if len(asked.part.symbols) > QUICK_SYMBOLS or estimate(asked.part, market_time.now()) > QUICK:
        return None
    prepared = prepare_now(asked.part)
    return None if prepared is None else reply(asked, prepared, headers, quick=True)


def answer(asked: Asked, headers: Mapping[str, str], seconds: float) -> Reply:
    """The answer, prepared within so many seconds. Blocking."""
    prepared = prepare(asked.part, deadline_seconds=seconds, request_id=asked.request_id)
    return reply(asked, prepared, headers, quick=False)


def reply(asked: Asked, prepared: Prepared, headers: Mapping[str, str], *, quick: bool) -> Reply:
    """The answer to a request with these headers (names in lower case). Encodes its first bytes, so it takes a moment."""
    about = _file_about(asked, prepared)
    form = asked.format
    coding = compress.IDENTITY if form is Format.PARQUET else compress.choose(headers.get("accept-encoding"))
    fields = [
        ("vary", "Accept, Accept-Encoding, Authorization, X-API-Key"),
        ("cache-control", IMMUTABLE if _is_final(asked, prepared) else REVALIDATE),
        ("cache-status", cache_status(prepared.tiers)),
        *_said(asked, prepared),
    ]
    tags = {name: _etag(asked, prepared, about, name) for name in (coding, compress.IDENTITY)}
    if _is_known(headers.get("if-none-match"), tags.values()):
        return Reply(status=304, headers=[*fields, ("etag", tags[coding])], chunks=iter(()), quick=True)
    chunks = _write(asked, prepared, about)
    head, ended = _head(chunks)
    small = ended and len(head) < SMALL
    if small:
        coding = compress.IDENTITY
    body = compress.compressed(chain((head,), chunks), coding)
    if quick or small:
        # All of it is here: of a known length it is sent in one piece.
        whole = b"".join(body)
        fields.append(("content-length", str(len(whole))))
        body = iter((whole,))
    if coding != compress.IDENTITY:
        fields.append(("content-encoding", coding))
    if form in (Format.CSV, Format.PARQUET):
        fields.append(("content-disposition", f'attachment; filename="{_file_name(asked.query)}.{form}"'))
    content = [("content-type", MEDIA[form] + ("; charset=utf-8; header=present" if form is Format.CSV else ""))]
    return Reply(
        status=200,
        headers=[*content, *fields, ("etag", tags[coding])],
        chunks=body,
        quick=quick,
    )


def _said(asked: Asked, prepared: Prepared) -> Iterator[tuple[str, str]]:
    """The headers that say of the bars what there is to say, in every format: CSV has no other place for it."""
    yield "argus-source", prepared.source
    yield "argus-as-of", _as_of(prepared)
    yield "argus-stale", "true" if prepared.stale else "false"
    if prepared.age is not None:
        yield "argus-age", f"{prepared.age:.3f}"
    yield "argus-stamp", STAMP
    if prepared.adjustment is not None:
        yield "argus-adjustment", prepared.adjustment.algorithm
    if prepared.forming_from is not None:
        yield "argus-forming-from", str(prepared.forming_from)
    if prepared.missing:
        yield "argus-missing", str(len(prepared.missing))
    if asked.rejected:
        yield "argus-rejected", str(len(asked.rejected))


def _as_of(prepared: Prepared) -> str:
    return datetime.fromtimestamp(prepared.as_of / 1000, SHANGHAI).isoformat(timespec="milliseconds")


def cache_status(tiers: Mapping[Tier, int]) -> str:
    """The ``Cache-Status`` (RFC 9211): a hit where no terminal had to be asked; the detail counts the symbols of each tier."""
    fetched = tiers.get(Tier.TERMINAL, 0)
    verdict = "hit" if not fetched else "fwd=partial" if len(tiers) > 1 else "fwd=miss"
    detail = ", ".join(f"{tier}={count}" for tier, count in sorted(tiers.items()))
    return f'argus; {verdict}; detail="{detail}"'


def _write(asked: Asked, prepared: Prepared, about: bytes) -> Iterator[bytes]:
    parts, query = prepared.parts(), asked.query
    if asked.format is Format.CSV:
        return csv.write(parts, query.symbols, query.fields)
    if asked.format is Format.ARROW:
        return arrow.write(parts, query.symbols, query.fields, about)
    if asked.format is Format.PARQUET:
        return parquet.write(parts, query.symbols, query.fields, about)

    def page_about(end: Position | None) -> bytes:
        following = asked.begin.symbol + len(asked.part.symbols)
        if end is None and following < len(query.symbols):
            end = Position(following, None)
        text = None if end is None else cursor.write(query, asked.pages, end)
        return _page_about(asked, prepared, text)

    return json.write(parts, query.symbols, query.fields, limit=asked.limit, begin=asked.begin, about=page_about)


def _about(asked: Asked, prepared: Prepared) -> dict[str, Any]:
    return {
        "period": asked.query.period,
        "stamp": STAMP,
        "adjust": asked.query.adjust,
        "adjustment": prepared.adjustment,
        "source": prepared.source,
        "stale": prepared.stale,
        "forming_from": prepared.forming_from,
        "missing": prepared.missing,
        "rejected": latest.refusals(asked.rejected),
    }


def _file_about(asked: Asked, prepared: Prepared) -> bytes:
    """What files say of themselves: the same for the same bars, whoever asks and whichever tier has them."""
    return msgspec.json.encode(_about(asked, prepared), order="deterministic")


def _page_about(asked: Asked, prepared: Prepared, following: str | None) -> bytes:
    about = _about(asked, prepared) | {
        "as_of": _as_of(prepared),
        "age": prepared.age,
        "tiers": prepared.tiers,
        "cursor": following,
    }
    return msgspec.json.encode(about | {"request_id": asked.request_id})


def _is_final(asked: Asked, prepared: Prepared) -> bool:
    """Whether the very same request will be answered the same for ever."""
    query = asked.query
    relative = query.end is None or query.count is not None or asked.may_change
    later_dividends = query.adjust in POINT_IN_TIME and query.as_of is None
    return prepared.closed and not (relative or later_dividends or prepared.missing or prepared.stale or asked.rejected)


def _etag(asked: Asked, prepared: Prepared, about: bytes, coding: str) -> str:
    """Strong where the same tag means the same bytes. A page of JSON has its request's id and tiers in it: its tag is weak."""
    place = f"{asked.format} {asked.limit} {asked.begin.symbol} {asked.begin.after}"
    if asked.format is Format.JSON and _may_have_cursor(asked, prepared):
        place += f" {asked.pages.end}"
    seed = b"\n".join((prepared.etag.encode(), asked.query.canonical(), place.encode(), about))
    tag = f'"{blake2b(seed, digest_size=16).hexdigest()}-{coding}"'
    return f"W/{tag}" if asked.format is Format.JSON else tag


def _may_have_cursor(asked: Asked, prepared: Prepared) -> bool:
    """Whether a page was asked for with a cursor or may give one out: an end is fixed in it, beyond which no page goes."""
    more = asked.begin.symbol + len(asked.part.symbols) < len(asked.query.symbols)
    return more or asked.begin != Position(0, None) or prepared.rows is None or prepared.rows > asked.limit


def _is_known(if_none_match: str | None, tags: Iterable[str]) -> bool:
    """Whether the client has it (RFC 9110, 13.1.2: by weak comparison)."""
    if if_none_match is None:
        return False
    given = {item.strip().removeprefix("W/") for item in if_none_match.split(",")}
    return "*" in given or any(tag.removeprefix("W/") in given for tag in tags)


def _head(chunks: Iterator[bytes]) -> tuple[bytes, bool]:
    """The first bytes of a body, and whether they are all of it. What goes wrong here is still a problem document."""
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= SMALL:
            return head, False
    return head, True


def _file_name(query: HistoryQuery) -> str:
    first = query.symbols[0] if len(query.symbols) == 1 else f"{len(query.symbols)}-symbols"
    return f"{first}-{query.period}" + ("" if query.adjust == "none" else f"-{query.adjust}")


def _single(parameters: Query, name: str) -> str | None:
    values = parameters.get(name, ())
    if len(values) > 1:
        raise ArgusError(INVALID_ARGUMENT, f"{name} is given {len(values)} times; give it once.", parameter=name)
    return values[0] if values else None


def _limit(text: str | None, form: Format) -> int:
    if text is None:
        return LIMIT
    if form is not Format.JSON:
        raise ArgusError(INVALID_ARGUMENT, f"Only JSON comes in pages; {form} is one answer: leave limit out.", parameter="limit")
    word = text.strip()
    if not (word.isascii() and word.isdigit() and len(word) <= 6 and 1 <= int(word) <= MAX_LIMIT):
        detail = f"{word[:40]!r} rows cannot be a page: 1 to {MAX_LIMIT:,} can."
        raise ArgusError(INVALID_ARGUMENT, detail, parameter="limit")
    return int(word)


def _fields(names: Sequence[str]) -> list[str]:
    """``symbol`` and ``time`` are in every answer, asked for or not."""
    return ["time", *(name for name in names if name not in ("time", "symbol"))] if names else []
