"""What operators ask of the three tiers over REST: what lies where, to empty them, to tidy them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec
from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from argus import requestid
from argus.access.drf import OperateScope
from argus.config import config
from argus.errors import INVALID_ARGUMENT, INVALID_SYMBOL, NOT_READY, ArgusError
from marketdata.cache.metrics import Counted
from marketdata.cache.tiers import BASES, CACHES, Busy, HotKey, Optimized, Stats, Tier, TierStats, tiers
from marketdata.symbols import SymbolError, parse
from marketdata.types import Period

T = TypeVar("T")

SECONDS: Final = 10
"""Seconds that one optimization takes at most unless told otherwise."""
LONGEST: Final = 60

EXAMPLE_STATS = Stats(
    market="qmt",
    hit_rate=0.9312,
    lookups=18240,
    tiers={
        Tier.L1: TierStats(
            True, 812, 241172480, 268435456, True, 0.8811, Counted(hits=16071, misses=2169, writes=2010, evictions=1198)
        ),
        Tier.L2: TierStats(True, 2210, 330301440, None, True, 0.2877, Counted(hits=624, misses=1545, writes=1302)),
        Tier.L3: TierStats(True, 5511, 912680550, None, True, 0.1877, Counted(hits=290, misses=1255, writes=1020)),
    },
    hottest=[HotKey("000001.SZ", Period.M1, "2026-08", 3120)],
)
EXAMPLE_OPTIMIZED = Optimized(
    finished=True,
    files=5511,
    checked=5511,
    rewritten=3,
    corrupt=0,
    swept=1,
    expired=14,
    warmed=120,
    bytes_before=912680550,
    bytes_after=912240128,
    seconds=8.412,
)

TIER = OpenApiParameter(
    "tier", OpenApiTypes.STR, description=_("Which tiers, separated by commas; all if it is left out."), enum=list(CACHES)
)
SYMBOL = OpenApiParameter(
    "symbol",
    OpenApiTypes.STR,
    description=_("One symbol alone, in any usual form."),
    examples=[OpenApiExample("one symbol", value="000001.SZ")],
)
PERIOD = OpenApiParameter(
    "period",
    OpenApiTypes.STR,
    description=_("One of the periods that are kept; all others are computed from them."),
    enum=list(BASES),
)
DURATION = OpenApiParameter(
    "seconds",
    {"type": "integer", "minimum": 1, "maximum": LONGEST, "default": SECONDS},
    description=_("How long it may take; what is left over is done by the next one."),
)


def _responds(description: Any, example: Mapping[str, Any]) -> dict[Any, Any]:
    value = {**_process(), **example, "request_id": "5b2f7c0e9a6d4a0f8c1e3b7d2f4a6c8e"}
    value["process"] = "web-1:4711"
    shown = OpenApiExample("an answer", value=value)
    return {200: OpenApiResponse(OpenApiTypes.OBJECT, description=description, examples=[shown])}


def _process() -> dict[str, Any]:
    """Whose counts these are."""
    return {"process": f"{socket.gethostname()}:{os.getpid()}", "shared": bool(config.redis_url)}


class CacheStats(APIView):
    """L1, L2 and L3: how much lies there, how often they had what was asked, which blocks are asked for most."""

    permission_classes = [OperateScope]

    @extend_schema(
        operation_id="cache_stats",
        summary=_("What lies in the three tiers, and how often they had what was asked"),
        tags=["operate"],
        responses=_responds(
            _(
                "Counts are those of one process (`process`) since it started; what lies in l2 and l3 is everybody's. `entries` "
                "are blocks in l1, values in l2, files in l3. Without Redis (`shared` is false) l2 is off."
            ),
            msgspec.to_builtins(EXAMPLE_STATS),
        ),
    )
    def get(self, request: Request) -> Response:
        """Read the tiers."""
        _parameters(request)
        return _answer(msgspec.to_builtins(tiers().stats()))


class ClearCache(APIView):
    """Deletes blocks; they are fetched again when somebody asks for them."""

    permission_classes = [OperateScope]

    @extend_schema(
        operation_id="cache_clear",
        summary=_("Empty the tiers, or delete one symbol or period from them"),
        tags=["operate"],
        parameters=[TIER, SYMBOL, PERIOD],
        responses=_responds(
            _("How many blocks (l1), values (l2) and files (l3) were deleted. l1 is emptied in all processes."),
            {"cleared": {"l1": 812, "l2": 2210, "l3": 5511}},
        ),
    )
    def delete(self, request: Request) -> Response:
        """Delete, and say how much."""
        given = _parameters(request, "tier", "symbol", "period")
        words = [word.strip() for word in given.get("tier", "").split(",") if word.strip()]
        chosen = [_one_of(Tier, CACHES, word, "tier") for word in words]
        if "tier" in given and not chosen:
            raise ArgusError(INVALID_ARGUMENT, f"Name at least one tier: {', '.join(CACHES)}.", parameter="tier")
        symbol = _symbol(given["symbol"]) if "symbol" in given else None
        period = _one_of(Period, BASES, given["period"], "period") if "period" in given else None
        removed = tiers().clear(chosen or None, symbol, period)
        return _answer({"cleared": {tier.value: count for tier, count in removed.items()}})


class OptimizeCache(APIView):
    """Checks and tidies the files, drops what has expired, brings the hottest blocks back into memory."""

    permission_classes = [OperateScope]

    @extend_schema(
        operation_id="cache_optimize",
        summary=_("Check and tidy the tiers"),
        tags=["operate"],
        request=None,
        parameters=[DURATION],
        responses=_responds(
            _("What was done. `finished` is false where the time was up: the next call goes on from there."),
            msgspec.to_builtins(EXAMPLE_OPTIMIZED),
        ),
    )
    def post(self, request: Request) -> Response:
        """Do it, within the time that was given."""
        given = _parameters(request, "seconds")
        text = given.get("seconds", str(SECONDS))
        if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= LONGEST):
            detail = f"{text[:40]!r} is not a number of seconds from 1 to {LONGEST}."
            raise ArgusError(INVALID_ARGUMENT, detail, parameter="seconds")
        try:
            done = tiers().optimize(float(text))
        except Busy:
            raise ArgusError(NOT_READY, "Another optimization is under way; ask again when it is done.", retry_after=5) from None
        return _answer(msgspec.to_builtins(done))


def _answer(body: Mapping[str, Any]) -> Response:
    return Response({**_process(), **body, "request_id": requestid.current()}, headers={"Cache-Control": "no-store"})


def _parameters(request: Request, *known: str) -> dict[str, str]:
    """The parameters, each given once; a misspelt one is an error, because silence would do something else."""
    for name in request.query_params:
        if name not in known:
            there = f"there is {', '.join(known)}" if known else "there is none"
            detail = f"There is no parameter {name[:40]!r} here; {there}."
            raise ArgusError(INVALID_ARGUMENT, detail, parameter=name[:40])
        if len(request.query_params.getlist(name)) > 1:
            raise ArgusError(INVALID_ARGUMENT, f"{name} is given more than once.", parameter=name)
    return {name: str(request.query_params[name]) for name in request.query_params}


def _one_of(read: Callable[[str], T], choices: tuple[T, ...], word: str, parameter: str) -> T:
    try:
        choice = read(word)
    except ValueError:
        choice = None
    if choice is None or choice not in choices:
        detail = f"There is no {parameter} {word[:40]!r} here; there is {', '.join(map(str, choices))}."
        raise ArgusError(INVALID_ARGUMENT, detail, parameter=parameter)
    return choice


def _symbol(text: str) -> str:
    try:
        return parse(text)
    except SymbolError as error:
        raise ArgusError(INVALID_SYMBOL, f"{text[:80]!r}: {error.reason}.", parameter="symbol") from None
