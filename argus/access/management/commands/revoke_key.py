"""``revoke_key``: end an API key, for good."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from argus.access import keys, services
from argus.access.management.examples import CommandWithExamples
from argus.access.models import APIKey


class Command(CommandWithExamples):
    help = (
        "Revoke an API key: it stops working everywhere within two seconds, its connections are closed, and it never works again."
    )
    examples = """\
  manage.py revoke_key 3f9k2m7q
  manage.py revoke_key argus_3f9k2m7q
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("prefix", help="the key's prefix, as list_keys shows it")

    def handle(self, *args: Any, **options: Any) -> None:
        prefix = keys.prefix_in(options["prefix"])
        if prefix is None:
            raise CommandError("That is not a prefix: it has eight letters and digits. list_keys shows those that there are.")
        key = APIKey.objects.filter(prefix=prefix).first()
        if key is None:
            raise CommandError(f"There is no key with the prefix {prefix}. list_keys shows those that there are.")
        if services.revoke_keys(keys=APIKey.objects.filter(pk=key.pk)):
            self.stdout.write(f"{key} is revoked.")
        else:
            self.stdout.write(f"{key} was revoked before.")
