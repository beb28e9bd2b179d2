"""Reference data as the sources last told it: instruments, sectors, and the revision by which processes notice a change.

All rows are machine-written: those of instruments and sectors by ``marketdata.universe``, the others by the rooms they belong to.
"""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from marketdata.exchanges import Kind
from marketdata.terminals.models import Pool, Report, Terminal

__all__ = [
    "Backfill",
    "BarDifference",
    "Dividends",
    "Instrument",
    "MainContract",
    "Pool",
    "Report",
    "Revision",
    "Sector",
    "Terminal",
    "TradingDates",
]

KINDS = {
    Kind.STOCK: _("stock"),
    Kind.B_SHARE: _("B share"),
    Kind.PREFERRED: _("preferred share"),
    Kind.INDEX: _("index"),
    Kind.FUND: _("fund"),
    Kind.CONVERTIBLE: _("convertible bond"),
    Kind.BOND: _("bond"),
    Kind.REPO: _("repo"),
    Kind.FUTURE: _("future"),
    Kind.OPTION: _("option"),
    Kind.CRYPTO: _("crypto pair"),
}


class Instrument(models.Model):
    """One instrument; an empty field is not known."""

    symbol = models.CharField(_("symbol"), max_length=32, unique=True)
    name = models.CharField(_("name"), max_length=100, blank=True, default="")
    kind = models.CharField(
        _("kind"), max_length=20, blank=True, default="", choices=[(kind.value, text) for kind, text in KINDS.items()]
    )
    market = models.CharField(_("market"), max_length=10)
    price_tick = models.FloatField(_("price tick"), null=True, blank=True)
    lot = models.PositiveIntegerField(_("lot"), null=True, blank=True)
    listed = models.DateField(_("listed"), null=True, blank=True)
    delisted = models.DateField(_("delisted"), null=True, blank=True)
    multiplier = models.FloatField(_("multiplier"), null=True, blank=True)
    underlying = models.CharField(_("underlying"), max_length=32, blank=True, default="")
    option_type = models.CharField(
        _("option type"), max_length=4, blank=True, default="", choices=[("call", _("call")), ("put", _("put"))]
    )
    strike = models.FloatField(_("strike"), null=True, blank=True)
    pinyin = models.CharField(
        _("pinyin"), max_length=200, blank=True, default="", help_text=_("The name in pinyin, without spaces.")
    )
    initials = models.CharField(_("pinyin initials"), max_length=50, blank=True, default="")
    quoted = models.BooleanField(_("quoted"), default=True, help_text=_("Whether the source quotes it at present."))
    source = models.CharField(_("source"), max_length=20)
    refreshed_at = models.DateTimeField(_("refreshed"))

    class Meta:
        ordering = ["symbol"]
        verbose_name = _("instrument")
        verbose_name_plural = _("instruments")
        indexes = [
            models.Index(fields=["market", "symbol"], name="instrument_by_market"),
            models.Index(fields=["kind", "symbol"], name="instrument_by_kind"),
            models.Index(fields=["underlying", "symbol"], name="instrument_by_underlying"),
        ]

    def __str__(self) -> str:
        return f"{self.symbol} {self.name}".rstrip()


class Sector(models.Model):
    """A named list of symbols."""

    name = models.CharField(_("name"), max_length=100, unique=True)
    symbols = models.JSONField(_("symbols"), default=list)
    weights = models.JSONField(
        _("weights"), null=True, blank=True, help_text=_("Of an index: constituent and weight in percent.")
    )
    source = models.CharField(_("source"), max_length=20)
    refreshed_at = models.DateTimeField(_("refreshed"))

    class Meta:
        ordering = ["name"]
        verbose_name = _("sector")
        verbose_name_plural = _("sectors")

    def __str__(self) -> str:
        return self.name


class TradingDates(models.Model):
    """The days on which a market trades, as far as a source has told."""

    market = models.CharField(_("market"), max_length=10, unique=True)
    dates = models.JSONField(_("dates"), default=list, help_text=_("ISO dates in order."))
    source = models.CharField(_("source"), max_length=20)
    refreshed_at = models.DateTimeField(_("refreshed"))

    class Meta:
        ordering = ["market"]
        verbose_name = _("trading dates")
        verbose_name_plural = _("trading dates")

    def __str__(self) -> str:
        return self.market


class MainContract(models.Model):
    """The contract of a futures product that a source calls its main one."""

    product = models.CharField(_("product"), max_length=20, unique=True)
    symbol = models.CharField(_("symbol"), max_length=32)
    source = models.CharField(_("source"), max_length=20)
    refreshed_at = models.DateTimeField(_("refreshed"))

    class Meta:
        ordering = ["product"]
        verbose_name = _("main contract")
        verbose_name_plural = _("main contracts")

    def __str__(self) -> str:
        return f"{self.product} {self.symbol}"


class Dividends(models.Model):
    """All that an instrument has given since its listing; a row without any means that the source was asked and said so."""

    symbol = models.CharField(_("symbol"), max_length=32, unique=True)
    rows = models.JSONField(_("dividends"), default=list, help_text=_("In order of ex-dates, all per share and before tax."))
    source = models.CharField(_("source"), max_length=20)
    refreshed_at = models.DateTimeField(_("refreshed"))

    class Meta:
        ordering = ["symbol"]
        verbose_name = _("dividends")
        verbose_name_plural = _("dividends")

    def __str__(self) -> str:
        return self.symbol


class Backfill(models.Model):
    """A long fetch of bars: what was asked, how far it has come, and what was refused."""

    class State(models.TextChoices):
        WAITING = "waiting", _("waiting")
        RUNNING = "running", _("running")
        DONE = "done", _("done")
        FAILED = "failed", _("failed")
        CANCELLED = "cancelled", _("cancelled")

    symbols = models.JSONField(_("symbols"), default=list)
    period = models.CharField(_("period"), max_length=5)
    start = models.DateField(_("start"))
    end = models.DateField(_("end"))
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.WAITING)
    chunks_done = models.PositiveIntegerField(_("chunks done"), default=0)
    chunks_total = models.PositiveIntegerField(_("chunks"), default=0)
    bars = models.PositiveBigIntegerField(_("bars"), default=0)
    refused = models.JSONField(_("refused"), default=dict, help_text=_("Reason and how many bars were not stored for it."))
    problems = models.JSONField(
        _("problems"), default=list, help_text=_("The first hundred of what could not be fetched, and why.")
    )
    detail = models.TextField(_("detail"), blank=True, default="")
    request_id = models.CharField(_("request id"), max_length=64, blank=True, default="")
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    beat_at = models.DateTimeField(_("last sign of life"), null=True, blank=True)
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("backfill")
        verbose_name_plural = _("backfills")

    def __str__(self) -> str:
        return f"{self.pk} {self.period} {self.start} {self.end}"


class BarDifference(models.Model):
    """Where a bar that was built from quotes differs from the terminal's own."""

    symbol = models.CharField(_("symbol"), max_length=32)
    period = models.CharField(_("period"), max_length=5)
    time = models.DateTimeField(_("end"))
    field = models.CharField(_("field"), max_length=20)
    built = models.FloatField(_("built"), null=True, blank=True)
    terminal = models.FloatField(_("terminal's"), null=True, blank=True)
    found_at = models.DateTimeField(_("found"), auto_now_add=True)

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("bar difference")
        verbose_name_plural = _("bar differences")
        constraints = [models.UniqueConstraint(fields=["symbol", "period", "time", "field"], name="bar_difference_once")]

    def __str__(self) -> str:
        return f"{self.symbol} {self.period} {self.time:%Y-%m-%d %H:%M} {self.field}"


class Revision(models.Model):
    """One row that counts up with every change of the reference data."""

    ONLY = 1
    """The row's primary key."""

    number = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return str(self.number)
