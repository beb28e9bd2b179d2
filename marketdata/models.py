"""Reference data as the sources last told it: instruments, sectors, and the revision by which processes notice a change.

All rows are machine-written, by ``marketdata.universe.save_reference`` alone.
"""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from marketdata.exchanges import Kind

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
    quoted = models.BooleanField(_("quoted"), default=True, help_text=_("Whether the source quotes it at present."))
    source = models.CharField(_("source"), max_length=20)
    refreshed_at = models.DateTimeField(_("refreshed"))

    class Meta:
        ordering = ["symbol"]
        verbose_name = _("instrument")
        verbose_name_plural = _("instruments")
        indexes = [models.Index(fields=["market", "symbol"], name="instrument_by_market")]

    def __str__(self) -> str:
        return f"{self.symbol} {self.name}".rstrip()


class Sector(models.Model):
    """A named list of symbols."""

    name = models.CharField(_("name"), max_length=100, unique=True)
    symbols = models.JSONField(_("symbols"), default=list)
    source = models.CharField(_("source"), max_length=20)
    refreshed_at = models.DateTimeField(_("refreshed"))

    class Meta:
        ordering = ["name"]
        verbose_name = _("sector")
        verbose_name_plural = _("sectors")

    def __str__(self) -> str:
        return self.name


class Revision(models.Model):
    """One row that counts up with every change of the reference data."""

    ONLY = 1
    """The row's primary key."""

    number = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return str(self.number)
