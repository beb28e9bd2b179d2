"""``restore``: a backup into this installation's database and archive."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from tqdm import tqdm

from argus import backup
from argus.access.management.examples import CommandWithExamples
from argus.config import config
from argus.management.commands.backup import step_of


class Command(CommandWithExamples):
    help = "Bring a backup into this installation. Stop Argus first. Nothing is changed before every checksum has been compared."
    examples = """\
  manage.py restore /backups/argus-2026-11-21
  manage.py restore /backups/argus-2026-11-21 --replace   also where there are users and files already: they are deleted
"""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, help="what the command backup has written")
        parser.add_argument("--replace", action="store_true", help="delete what is here")

    def handle(self, *_args: Any, folder: Path, replace: bool, **_options: Any) -> None:
        try:
            with tqdm(unit="file", disable=None, leave=False) as bar:
                manifest = backup.restore(folder, config.archive, replace=replace, on_step=step_of(bar))
        except backup.BackupError as error:
            raise CommandError(str(error)) from None
        rows = sum(manifest.rows.values())
        self.stdout.write(f"restored {rows:,} rows and {len(manifest.files) - 1:,} files of {manifest.created_at}")
