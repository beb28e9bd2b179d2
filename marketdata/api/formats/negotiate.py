"""Which format a client wants: ``format=`` if it says so, else what its ``Accept`` likes best."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from argus.compress import quality
from argus.errors import INVALID_ARGUMENT, NOT_ACCEPTABLE, ArgusError


class Format(StrEnum):
    """How bars are written out; what is preferred first."""

    JSON = "json"
    CSV = "csv"
    ARROW = "arrow"
    PARQUET = "parquet"


MEDIA: Final = {
    Format.JSON: "application/json",
    Format.CSV: "text/csv",
    Format.ARROW: "application/vnd.apache.arrow.stream",
    Format.PARQUET: "application/vnd.apache.parquet",
}


def choose(asked: str | None, accept: str | None) -> Format:
    """The format for the parameter and the header (RFC 9110, 12.5.1). Raises INVALID_ARGUMENT or NOT_ACCEPTABLE."""
    if asked is not None:
        try:
            return Format(asked.strip().lower())
        except ValueError:
            detail = f"There is no format {asked[:40]!r}; there is {', '.join(Format)}."
            raise ArgusError(INVALID_ARGUMENT, detail, parameter="format") from None
    if not accept or not accept.strip():
        return Format.JSON
    ranges = dict(_range(item) for item in accept.split(",") if item.strip())
    liked = {form: _quality(media, ranges) for form, media in MEDIA.items()}
    best = max(liked, key=lambda form: liked[form])
    if not liked[best]:
        detail = f"There is {', '.join(MEDIA.values())}; say which in Accept, or with format=json."
        raise ArgusError(NOT_ACCEPTABLE, detail, parameter="format", available=list(MEDIA.values()))
    return best


def _range(item: str) -> tuple[str, float]:
    media, *parameters = (part.strip().lower() for part in item.split(";"))
    return media, quality(parameters)


def _quality(media: str, ranges: dict[str, float]) -> float:
    """The q of the most specific range that the media type lies in."""
    for name in (media, f"{media.partition('/')[0]}/*", "*/*"):
        if name in ranges:
            return ranges[name]
    return 0.0
