"""Commands whose ``--help`` ends with examples."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandParser, DjangoHelpFormatter


class _Formatter(DjangoHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Leaves the lines of the examples as they are."""


class CommandWithExamples(BaseCommand):
    examples = ""

    def create_parser(self, prog_name: str, subcommand: str, **options: Any) -> CommandParser:
        options |= {"formatter_class": _Formatter, "epilog": f"examples:\n{self.examples}"}
        return super().create_parser(prog_name, subcommand, **options)
