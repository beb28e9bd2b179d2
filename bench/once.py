"""``python -m bench.once``: publish one sweep, so that every symbol has a quote, and wait until it must have arrived."""

from __future__ import annotations

import asyncio
import os

import django

ARRIVED = 2.0
"""Seconds."""


async def main() -> None:
    """Publish, wait."""
    from bench.load import Sweeps

    sweeps = Sweeps()
    await sweeps.send(sweeps.next_blob())
    await asyncio.sleep(ARRIVED)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "argus.settings")
    django.setup()
    asyncio.run(main())
