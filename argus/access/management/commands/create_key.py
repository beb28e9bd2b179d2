"""``create_key``: make an API key and print it, this one time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from argus.access import services
from argus.access.management.examples import CommandWithExamples
from argus.access.models import Plan
from argus.access.principal import SCOPE_READ, SCOPES

UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def moment(text: str, now: datetime) -> datetime:
    """When a key expires: after a span (12h, 30d, 4w), at a moment, or at the end of a day, in the service's time zone."""
    span, unit = text[:-1], text[-1:].lower()
    try:
        if unit in UNITS and span.isdecimal():
            return now + int(span) * UNITS[unit]
        day = parse_date(text)
        if day is not None:
            return timezone.make_aware(datetime.combine(day + timedelta(days=1), datetime.min.time()))
        at = parse_datetime(text)
    except (ValueError, OverflowError):
        at = None
    if at is None:
        raise CommandError(f"--expires {text!r} cannot be read: give 12h, 30d, 4w, 2026-12-31 or 2026-12-31T15:00+08:00.")
    return timezone.make_aware(at) if timezone.is_naive(at) else at


class Command(CommandWithExamples):
    help = "Make an API key. The key alone goes to standard output, once; what is said about it goes to standard error."
    examples = """\
  manage.py create_key "risk desk"
  manage.py create_key backtest --plan professional --expires 90d
  manage.py create_key monitoring --scopes read operate --networks 10.0.0.0/8 2001:db8::/32
  KEY=$(manage.py create_key strategy --plan standard)
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="who or what uses the key")
        parser.add_argument("--plan", default="standard", help="the plan's name (default: standard)")
        parser.add_argument("--scopes", nargs="+", default=[SCOPE_READ], choices=SCOPES, help="what it may do (default: read)")
        parser.add_argument("--expires", metavar="WHEN", help="12h, 30d, 4w, a date (its end) or a moment (default: never)")
        parser.add_argument(
            "--networks", nargs="+", default=[], metavar="CIDR", help="addresses and networks it may be used from (default: all)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        plan = Plan.objects.filter(name=options["plan"]).first()
        if plan is None:
            names = ", ".join(Plan.objects.values_list("name", flat=True))
            raise CommandError(f"There is no plan {options['plan']!r}. There are: {names or 'none; make one in the admin'}.")
        expires_at = moment(options["expires"], timezone.now()) if options["expires"] else None
        try:
            key, secret = services.create_key(
                name=options["name"],
                plan=plan,
                scopes=options["scopes"],
                networks=options["networks"],
                expires_at=expires_at,
            )
        except ValidationError as error:
            lines = (f"{field}: {message}" for field, texts in error.message_dict.items() for message in texts)
            raise CommandError("\n".join(lines)) from None
        until = f"until {timezone.localtime(expires_at):%Y-%m-%d %H:%M:%S %z}" if expires_at else "for ever"
        self.stderr.write(f"{key}: plan {plan}, {', '.join(key.scopes)}, {until}. This is shown once:", self.style.NOTICE)
        self.stdout.write(secret.text)
