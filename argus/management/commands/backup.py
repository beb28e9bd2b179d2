"""``backup``: the database and the archive into a folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from tqdm import tqdm

from argus import backup
from argus.access.management.examples import CommandWithExamples
from argus.config import config


class Command(CommandWithExamples):
    help = "Write the database and the archive (bars, recordings) into a folder, with a checksum for each file."
    examples = """\
  manage.py backup /backups/argus-2026-11-21
  manage.py backup /backups/keys-only --without-archive
  manage.py backup /backups/argus-2026-11-21 --check      is it whole and undamaged?
"""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, help="a new or empty folder")
        parser.add_argument(
            "--without-archive", action="store_true", help="the database alone; restored, it leaves the archive there as it is"
        )
        parser.add_argument("--check", action="store_true", help="read a backup that is there and compare every checksum")

    def handle(self, *_args: Any, folder: Path, without_archive: bool, check: bool, **_options: Any) -> None:
        try:
            with tqdm(unit="file", disable=None, leave=False) as bar:
                if check:
                    manifest = backup.check(folder, step_of(bar))
                else:
                    manifest = backup.make(folder, config.archive, with_archive=not without_archive, on_step=step_of(bar))
        except backup.BackupError as error:
            raise CommandError(str(error)) from None
        sizes = ", ".join(f"{name} {size / 1e6:,.1f} MB" for name, size in backup.sizes(manifest))
        done = "is whole" if check else "is written"
        self.stdout.write(f"{folder} {done}: {sum(manifest.rows.values()):,} rows, {len(manifest.files):,} files ({sizes})")


def step_of(bar: Any) -> backup.Step:
    def step(name: str, done: int, total: int) -> None:
        bar.total = total
        bar.set_postfix_str(name[-40:], refresh=False)
        bar.update(done - bar.n)

    return step
