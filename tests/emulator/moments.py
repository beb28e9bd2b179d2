"""Times as the recordings write them."""

from __future__ import annotations

import datetime
from functools import cache
from typing import Final

CHINA: Final = datetime.timezone(datetime.timedelta(hours=8))


@cache
def milliseconds(text: str) -> int:
    """Of ``2021.12.01T09:15:02.000``."""
    moment = datetime.datetime.fromisoformat(text.replace(".", "-", 2)).replace(tzinfo=CHINA)
    return round(moment.timestamp() * 1000)
