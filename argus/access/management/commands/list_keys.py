"""``list_keys``: the API keys that there are, without the keys themselves."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from argus.access import services
from argus.access.management.examples import CommandWithExamples
from argus.access.models import APIKey

COLUMNS = ("PREFIX", "NAME", "PLAN", "SCOPES", "STATE", "EXPIRES", "LAST USED", "NETWORKS")


def _moment(value: datetime | None) -> str:
    return f"{timezone.localtime(value):%Y-%m-%d %H:%M}" if value else "-"


class Command(CommandWithExamples):
    help = "List the API keys that work; with --all also those that have expired or were revoked."
    examples = """\
  manage.py list_keys
  manage.py list_keys --all
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--all", action="store_true", help="also the expired and the revoked ones")

    def handle(self, *args: Any, **options: Any) -> None:
        now = timezone.now()
        rows = [COLUMNS]
        for key in APIKey.objects.select_related("plan"):
            state = services.state_of(key, now)
            if state == "active" or options["all"]:
                networks = " ".join(key.networks) or "-"
                times = _moment(key.expires_at), _moment(key.last_used_at)
                rows.append((key.prefix, key.name, key.plan.name, " ".join(key.scopes), state, *times, networks))
        widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
        for row in rows:
            self.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if len(rows) == 1:
            self.stderr.write("There are none: create_key makes one.")
