"""Prints a new key without limits, after the benchmark's market has been put into the database."""

from __future__ import annotations

import os
import sys

import django


def main() -> None:
    """``python -m bench.prepare``, with the settings in the environment."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "argus.settings")
    django.setup()
    from argus.access import services
    from argus.access.models import Plan
    from bench.market import SYMBOLS
    from marketdata import universe
    from marketdata.types import Instrument

    universe.save_reference(
        source="simulated", instruments=[Instrument(symbol=symbol, source="simulated") for symbol in SYMBOLS], sectors={}
    )
    plan = Plan.objects.create(
        name="bench",
        requests_per_minute=10_000_000,
        connections=100_000,
        symbols=100_000,
        subscriptions=100_000,
        data_types=["quote"],
        priority=2,
    )
    _, secret = services.create_key(name="bench", plan=plan)
    sys.stdout.write(secret.text + "\n")


if __name__ == "__main__":
    main()
