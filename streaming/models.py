"""Who is connected now, as every process writes it down for the admin (``streaming.presence``)."""

from __future__ import annotations

from datetime import timedelta

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

SILENT_AFTER = timedelta(seconds=30)
"""Rows that their process has not confirmed for so long are a dead process's, and count no longer."""


class LiveConnectionQuerySet(models.QuerySet["LiveConnection"]):
    def live(self) -> LiveConnectionQuerySet:
        """The connections of processes that are alive."""
        return self.filter(seen_at__gte=timezone.now() - SILENT_AFTER)

    def dead(self) -> LiveConnectionQuerySet:
        """What dead processes left behind."""
        return self.filter(seen_at__lt=timezone.now() - SILENT_AFTER)


class LiveConnection(models.Model):
    """One WebSocket connection, written by the process that holds it."""

    connection_id = models.CharField(_("connection"), max_length=32, primary_key=True)
    process = models.CharField(_("process"), max_length=80, db_index=True)
    # No constraint: a key may be deleted in the second before its connections are closed.
    key = models.ForeignKey(
        "access.APIKey", models.DO_NOTHING, null=True, db_constraint=False, related_name="+", verbose_name=_("API key")
    )
    prefix = models.CharField(_("key prefix"), max_length=8, blank=True)
    plan = models.CharField(_("plan"), max_length=40, blank=True)
    address = models.GenericIPAddressField(_("address"), null=True)
    connected_at = models.DateTimeField(_("since"))
    symbols = models.PositiveIntegerField(_("symbols"), default=0)
    frames = models.PositiveBigIntegerField(_("frames"), default=0, help_text=_("Messages sent to the client."))
    bytes = models.PositiveBigIntegerField(_("bytes"), default=0)
    behind = models.BooleanField(_("behind"), default=False, help_text=_("The client reads more slowly than the market moves."))
    seen_at = models.DateTimeField(_("last confirmed"), db_index=True)
    disconnect = models.BooleanField(_("disconnect"), default=False)

    objects = LiveConnectionQuerySet.as_manager()

    class Meta:
        verbose_name = _("live connection")
        verbose_name_plural = _("live connections")
        ordering = ["-connected_at", "connection_id"]

    def __str__(self) -> str:
        return self.connection_id
