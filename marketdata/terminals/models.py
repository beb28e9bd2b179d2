"""Pools and terminals as the database has them, and what processes last reported of them.

Written by people (the admin, REST, a declaration at the start) and checked in one place, ``clean``, whoever writes; every
process reads them as ``roster``'s frozen specs.
"""

from __future__ import annotations

import re
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from argus.config import config
from marketdata.exchanges import MARKET_OF_NAME
from marketdata.terminals import windows
from marketdata.terminals.balance import STRATEGIES

MOST_SLOTS: Final = 64
MOST_WEIGHT: Final = 100
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_ADDRESS: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:,=\[\]]+):(\d{1,5})")


class Role(models.TextChoices):
    """Who goes first."""

    ACTIVE = "active", pgettext_lazy("role of a terminal", "active")
    STANDBY = "standby", pgettext_lazy("role of a terminal", "standby")


_STRATEGY_NAMES: Final = {
    "round_robin": _("round robin"),
    "least_connections": _("least connections"),
    "weighted_round_robin": _("weighted round robin"),
    "random": _("random"),
}


def check_name(name: str) -> None:
    """A name stands in queues, groups, metrics and addresses. Raises ``ValidationError``."""
    if not _NAME.fullmatch(name):
        raise ValidationError(_("use letters, digits, - and _, beginning with a letter or a digit"))


def check_address(address: str) -> None:
    """HOST:PORT. Raises ``ValidationError``."""
    found = _ADDRESS.fullmatch(address)
    if not found or not 0 < int(found[1]) < 65536:
        raise ValidationError(_("%(address)s is not HOST:PORT, such as 127.0.0.1:58610") % {"address": repr(address)})


def check_maintenance(text: str) -> None:
    """See ``windows``. Raises ``ValidationError``."""
    try:
        windows.parse(text)
    except ValueError as error:
        raise ValidationError(str(error)) from None


def check_markets(text: str) -> None:
    """Names of markets, separated by commas. Raises ``ValidationError``."""
    for word in markets_of(text):
        if MARKET_OF_NAME.get(word) != word:
            raise ValidationError(_("%(market)s is not a market, such as SH, SZ, BJ, IF") % {"market": repr(word)})


def markets_of(text: str) -> tuple[str, ...]:
    """The markets that a pool's field names, in its order."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


class Pool(models.Model):
    """Terminals that stand in for each other. One of them at a time publishes the pool's feed."""

    name = models.CharField(_("name"), max_length=50, unique=True, validators=[check_name])
    strategy = models.CharField(
        _("strategy"),
        max_length=30,
        default="least_connections",
        choices=[(name, _STRATEGY_NAMES[name]) for name in STRATEGIES],
        help_text=_("By which requests are divided among the terminals."),
    )
    markets = models.CharField(
        _("markets"),
        max_length=200,
        blank=True,
        default="",
        validators=[check_markets],
        help_text=_("Those that this pool serves, separated by commas; empty: all that no other pool names."),
    )
    min_size = models.PositiveSmallIntegerField(
        _("least slots"),
        default=2,
        validators=[MinValueValidator(1), MaxValueValidator(MOST_SLOTS)],
        help_text=_("Requests that each terminal is asked at a time, at the least."),
    )
    max_size = models.PositiveSmallIntegerField(
        _("most slots"), default=4, validators=[MinValueValidator(1), MaxValueValidator(MOST_SLOTS)]
    )
    size = models.PositiveSmallIntegerField(
        _("fixed slots"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(MOST_SLOTS)],
        help_text=_("Set by hand; empty: grown and shrunk by queue time and latency."),
    )
    hedge = models.BooleanField(
        _("hedge"), default=True, help_text=_("Ask a second terminal where the first takes longer than nearly always.")
    )
    declared = models.BooleanField(
        _("declared"), default=False, editable=False, help_text=_("By the settings, which are applied again at every start.")
    )

    class Meta:
        ordering = ["name"]
        verbose_name = _("pool")
        verbose_name_plural = _("pools")

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """What the fields cannot know of each other. Raises ``ValidationError``."""
        if self.min_size and self.max_size and self.min_size > self.max_size:
            raise ValidationError({"min_size": _("it is larger than the most slots")})
        if self.size and self.min_size and self.max_size and not self.min_size <= self.size <= self.max_size:
            raise ValidationError({"size": _("it must lie between the least and the most slots")})
        mine = set(markets_of(self.markets))
        for other in Pool.objects.exclude(pk=self.pk):
            if both := mine.intersection(markets_of(other.markets)):
                values = {"markets": ", ".join(sorted(both)), "pool": other.name}
                raise ValidationError({"markets": _("%(markets)s: the pool %(pool)s serves that") % values})
            if not mine and not markets_of(other.markets):
                raise ValidationError({"markets": _("the pool %(pool)s serves all markets") % {"pool": other.name}})


class Terminal(models.Model):
    """One terminal of a pool: where it is, what it may be asked, when it is expected to be away."""

    pool = models.ForeignKey(Pool, models.CASCADE, related_name="terminals", verbose_name=_("pool"))
    name = models.CharField(
        _("name"),
        max_length=50,
        unique=True,
        validators=[check_name],
        help_text=_("Its worker consumes the queue terminal.NAME."),
    )
    address = models.CharField(
        _("address"), max_length=200, blank=True, default="", help_text=_("HOST:PORT of the terminal, as seen by its worker.")
    )
    role = models.CharField(
        _("role"),
        max_length=10,
        choices=Role.choices,
        default=Role.ACTIVE,
        help_text=_("A standby publishes and answers only where no active terminal can."),
    )
    weight = models.PositiveSmallIntegerField(
        _("weight"), default=1, validators=[MinValueValidator(1), MaxValueValidator(MOST_WEIGHT)]
    )
    concurrent = models.PositiveSmallIntegerField(
        _("concurrent requests"),
        default=4,
        validators=[MinValueValidator(1), MaxValueValidator(MOST_SLOTS)],
        help_text=_("What the terminal stands at a time, whoever asks."),
    )
    per_second = models.PositiveIntegerField(
        _("requests per second"), null=True, blank=True, validators=[MinValueValidator(1)], help_text=_("Empty: no limit.")
    )
    maintenance = models.CharField(
        _("maintenance"),
        max_length=300,
        blank=True,
        default="",
        validators=[check_maintenance],
        help_text=_('When it is expected to be away, in Shanghai time: "daily 05:00-05:40; sat-sun 00:00-24:00".'),
    )
    enabled = models.BooleanField(_("enabled"), default=True)
    drained = models.BooleanField(
        _("drained"), default=False, help_text=_("It finishes what it has, is asked nothing more and publishes nothing.")
    )
    declared = models.BooleanField(_("declared"), default=False, editable=False)
    version = models.CharField(_("version"), max_length=100, blank=True, default="", editable=False)
    capabilities = models.JSONField(_("capabilities"), default=list, editable=False)
    probed_at = models.DateTimeField(_("probed"), null=True, editable=False)

    class Meta:
        ordering = ["name"]
        verbose_name = _("terminal")
        verbose_name_plural = _("terminals")

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """What the fields cannot know of the settings. Raises ``ValidationError``."""
        if self.address:
            try:
                check_address(self.address)
            except ValidationError as error:
                raise ValidationError({"address": error}) from None
        elif config.source == "qmt":
            raise ValidationError({"address": _("a QMT terminal needs its address, HOST:PORT")})


class Report(models.Model):
    """What a process last said of a terminal or of a pool: machine-written, read where people look, gone when it is old."""

    class Subject(models.TextChoices):
        TERMINAL = "terminal"
        POOL = "pool"
        PROBE = "probe"

    subject = models.CharField(max_length=10, choices=Subject.choices)
    name = models.CharField(max_length=50)
    process = models.CharField(max_length=100)
    seen_at = models.DateTimeField()
    body: models.JSONField[Any, Any] = models.JSONField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["subject", "name", "process"], name="report_once")]

    def __str__(self) -> str:
        return f"{self.subject} {self.name} {self.process}"
