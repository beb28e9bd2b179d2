"""``backfill``: fetch bars of many symbols and days into the archive, as a job that goes on where it stopped."""

from __future__ import annotations

import time
from datetime import date
from typing import Any

from django.core.management.base import CommandError, CommandParser
from tqdm import tqdm

from argus import requestid
from argus.access.management.examples import CommandWithExamples
from argus.errors import ArgusError
from marketdata import universe
from marketdata.history import backfill, words
from marketdata.history.query import read_day
from marketdata.models import Backfill
from marketdata.types import Period

LOOK_EVERY = 0.5


class Command(CommandWithExamples):
    help = (
        "Fetch bars into the archive. A worker of the service does it; this command starts it, shows it and cancels it. "
        "Ctrl-C leaves the job running."
    )
    examples = """\
  manage.py backfill --symbols 600519.SH,000001.SZ --period 1d --start 2025-01-02 --end 2026-06-30 --wait
  manage.py backfill --symbols 600519.SH,sector:沪深300 --period 1m --start 2026-01-01 --end 2026-06-30
  manage.py backfill --list
  manage.py backfill --resume 3 --wait
  manage.py backfill --cancel 3
"""

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--symbols", help="symbols, names, sector:NAME or market:SH, separated by commas")
        what.add_argument("--resume", type=int, metavar="ID", help="go on with a job that failed, was ended or lost its worker")
        what.add_argument("--cancel", type=int, metavar="ID", help="end a job; what it has fetched stays")
        what.add_argument("--list", action="store_true", help="show the last twenty jobs")
        parser.add_argument("--period", default=Period.D1.value, choices=[period.value for period in backfill.PERIODS])
        parser.add_argument("--start", metavar="DAY", help="the first day")
        parser.add_argument("--end", metavar="DAY", help="the last day; days that have not closed are left out")
        parser.add_argument("--wait", action="store_true", help="show the progress until the job ends")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self._do(**options)
        except ArgusError as error:
            raise CommandError(error.message) from None

    def _do(self, **options: Any) -> None:
        if options["list"]:
            for job in Backfill.objects.all()[:20]:
                self.stdout.write(_line(job))
            return
        if options["cancel"] is not None:
            self.stdout.write(_line(backfill.cancel(options["cancel"])))
            return
        job = backfill.resume(options["resume"]) if options["resume"] is not None else self._start(**options)
        self.stdout.write(_line(job))
        if options["wait"]:
            self._watch(job)

    def _start(self, **options: Any) -> Backfill:
        universe.load()
        resolution = words.resolve([word for word in options["symbols"].split(",") if word.strip()])
        for item in resolution.rejected:
            self.stderr.write(f"{item.word}: {item.reason}", self.style.WARNING)
        if not options["start"] or not options["end"]:
            raise CommandError("Give the first and the last day: --start 2026-01-01 --end 2026-06-30")
        first: date = read_day(options["start"], "start")
        last: date = read_day(options["end"], "end")
        return backfill.start(
            symbols=resolution.symbols, period=Period(options["period"]), first=first, last=last, request_id=requestid.new()
        )

    def _watch(self, job: Backfill) -> None:
        try:
            with tqdm(total=job.chunks_total or None, unit="chunk", file=self.stderr, dynamic_ncols=True) as bar:
                while job.state in backfill.GOES_ON:
                    bar.total = job.chunks_total or None
                    bar.n = job.chunks_done
                    bar.set_postfix_str(f"{job.bars:,} bars {job.detail[:60]}".rstrip())
                    time.sleep(LOOK_EVERY)
                    job.refresh_from_db()
                bar.total, bar.n = job.chunks_total or None, job.chunks_done
                bar.refresh()
        except KeyboardInterrupt:
            self.stderr.write(f"The job goes on without this command. Watch it: --list; end it: --cancel {job.pk}")
            return
        self.stdout.write(_line(job))
        for problem in job.problems[:10]:
            self.stderr.write(f"{problem['symbol']} {problem['first']} to {problem['last']}: {problem['reason']}")
        if job.state == Backfill.State.FAILED:
            raise CommandError(f"It failed: {job.detail}. Go on with it: --resume {job.pk} --wait")


def _line(job: Backfill) -> str:
    told = backfill.progress(job)
    refused = f", refused {sum(job.refused.values()):,} {dict(job.refused)}" if job.refused else ""
    return (
        f"backfill {job.pk}: {job.state} {told['percent']:g} %, {len(job.symbols):,} symbols {job.period} "
        f"{job.start} to {job.end}, {job.bars:,} bars{refused}{': ' + job.detail if job.detail else ''}"
    )
