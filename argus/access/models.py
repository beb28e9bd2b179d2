"""Plans and API keys as they are stored.

Every change of a key, and every change of its plan, moves the key's ``changed_at`` (the database's own clock) and
``version``; a key that is deleted leaves a ``KeyRemoval``. That is what ``argus.access.watch`` reads, so that all
processes know of a change within a second. It also holds for ``QuerySet.update`` and for deletion in bulk.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models, transaction
from django.db.models.functions import Now
from django.db.models.signals import post_delete
from django.dispatch import receiver
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from argus.access import address
from argus.access.principal import DATA_TYPES, MESSAGES_PER_SECOND, SCOPE_READ, SCOPES, SUBSCRIPTIONS


def all_data_types() -> list[str]:
    """The default of a plan."""
    return list(DATA_TYPES)


def read_scope() -> list[str]:
    """The default of a key."""
    return [SCOPE_READ]


def _chosen(words: Any, known: tuple[str, ...]) -> list[str]:
    """The words in the known order, or a ValidationError."""
    if not isinstance(words, list | tuple) or not words:
        raise ValidationError(_("Choose at least one."), code="required")
    unknown = [str(word) for word in words if word not in known]
    if unknown:
        message = _("%(unknown)s is not known; there are %(known)s.")
        raise ValidationError(message, code="unknown", params={"unknown": ", ".join(unknown), "known": ", ".join(known)})
    return [word for word in known if word in words]


def _networks(texts: Any) -> list[str]:
    """The networks in their canonical form, each once, or a ValidationError with a line for each wrong one."""
    if not isinstance(texts, list | tuple):
        raise ValidationError(_("Give a list of networks."), code="invalid")
    networks, errors = [], []
    for text in texts:
        params = {"text": text}
        try:
            networks.append(str(address.parse_network(str(text))))
        except address.HostBits as error:
            message = _("%(text)s has bits set to the right of its mask; the network is %(network)s.")
            errors.append(ValidationError(message, code="host_bits", params=params | {"network": error.network}))
        except ValueError:
            message = _("%(text)s is neither an address nor a network, such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32.")
            errors.append(ValidationError(message, code="invalid", params=params))
    if errors:
        raise ValidationError(errors)
    return list(dict.fromkeys(networks))


def _tidy(row: models.Model, **rules: Callable[[Any], Any]) -> None:
    """Put each field into its canonical form, or raise one ValidationError with all that is wrong."""
    errors: dict[str, ValidationError] = {}
    for field, rule in rules.items():
        try:
            setattr(row, field, rule(getattr(row, field)))
        except ValidationError as error:
            errors[field] = error
    if errors:
        raise ValidationError(errors)


class PlanQuerySet(models.QuerySet["Plan"]):
    def update(self, **values: Any) -> int:
        """Like every ``update``; the plans' keys count as changed."""
        with transaction.atomic(using=self.db):
            plans = list(self.values_list("pk", flat=True))
            updated = super().update(**values)
            APIKey.objects.using(self.db).filter(plan__in=plans).touch()
        return updated


class Plan(models.Model):
    """What the keys that have it may use."""

    class Priority(models.IntegerChoices):
        LOW = 0, _("low")
        NORMAL = 1, _("normal")
        HIGH = 2, _("high")

    name = models.CharField(_("name"), max_length=40, unique=True)
    requests_per_minute = models.PositiveIntegerField(
        _("requests per minute"),
        validators=[MinValueValidator(1)],
        help_text=_("REST requests and stream actions together."),
    )
    connections = models.PositiveIntegerField(
        _("connections"), help_text=_("Streaming connections that a key may have open at a time.")
    )
    symbols = models.PositiveIntegerField(
        _("symbols"),
        validators=[MinValueValidator(1)],
        help_text=_("Symbols in one request, and in all subscriptions of one connection."),
    )
    subscriptions = models.PositiveIntegerField(
        _("subscriptions"),
        default=SUBSCRIPTIONS,
        validators=[MinValueValidator(1)],
        help_text=_("Named subscriptions of all connections of a key together."),
    )
    messages_per_second = models.PositiveIntegerField(
        _("messages per second"),
        default=MESSAGES_PER_SECOND,
        validators=[MinValueValidator(1)],
        help_text=_("Messages that one connection may send, whatever they ask for; some seconds' worth may come at once."),
    )
    data_types = models.JSONField(_("data types"), default=all_data_types)
    priority = models.PositiveSmallIntegerField(
        _("priority"), choices=Priority, default=Priority.NORMAL, help_text=_("Higher is served first under load.")
    )

    objects = PlanQuerySet.as_manager()

    class Meta:
        verbose_name = _("plan")
        verbose_name_plural = _("plans")
        ordering = ["priority", "requests_per_minute", "name"]

    def __str__(self) -> str:
        return self.name

    def save(self, **options: Any) -> None:
        """Save; the plan's keys count as changed."""
        with transaction.atomic(using=options.get("using")):
            super().save(**options)
            self.keys.touch()

    def clean(self) -> None:
        """Hold the data types to those that there are."""
        _tidy(self, data_types=lambda words: _chosen(words, DATA_TYPES))


class KeyQuerySet(models.QuerySet["APIKey"]):
    def touch(self) -> int:
        """Count the keys as changed."""
        return super().update(changed_at=Now(), version=models.F("version") + 1)

    def update(self, **values: Any) -> int:
        """Like every ``update``; the keys count as changed, unless only their use was noted."""
        if values.keys() - {"last_used_at"}:
            values |= {"changed_at": Now(), "version": models.F("version") + 1}
        return super().update(**values)


class APIKey(models.Model):
    """One key. The key itself is not here: only its visible prefix and its hash."""

    name = models.CharField(_("name"), max_length=100, help_text=_("Who or what uses the key."))
    prefix = models.CharField(_("prefix"), max_length=8, unique=True, editable=False)
    digest = models.CharField(_("hash"), max_length=64, editable=False)
    plan = models.ForeignKey(Plan, models.PROTECT, related_name="keys", verbose_name=_("plan"))
    scopes = models.JSONField(_("scopes"), default=read_scope)
    networks = models.JSONField(
        _("allowed networks"),
        default=list,
        blank=True,
        help_text=_("Addresses and networks (CIDR), IPv4 or IPv6, one a line. Empty: the key works from everywhere."),
    )
    expires_at = models.DateTimeField(
        _("expires"), null=True, blank=True, help_text=_("The first moment at which the key no longer works. Empty: never.")
    )
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True, editable=False)
    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)
    last_used_at = models.DateTimeField(
        _("last used"), null=True, blank=True, editable=False, help_text=_("To the minute; the start of a connection counts.")
    )
    changed_at = models.DateTimeField(_("changed"), default=timezone.now, editable=False, db_index=True)
    version = models.PositiveBigIntegerField(default=0, editable=False)

    objects = KeyQuerySet.as_manager()

    # What other processes write as well; saving a form must not put an older value back.
    _WRITTEN_ELSEWHERE = frozenset({"id", "changed_at", "version", "last_used_at"})

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        ordering = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix})"

    def save(self, **options: Any) -> None:
        """Save; the key counts as changed."""
        if not self._state.adding and options.get("update_fields") is None:
            names = (field.name for field in self._meta.concrete_fields)
            options["update_fields"] = [name for name in names if name not in self._WRITTEN_ELSEWHERE]
        with transaction.atomic(using=options.get("using")):
            super().save(**options)
            type(self).objects.using(self._state.db).filter(pk=self.pk).touch()

    def clean(self) -> None:
        """Hold scopes to those that there are, networks to such as can be read, and a new key's end to the future."""
        _tidy(self, scopes=lambda words: _chosen(words, SCOPES), networks=_networks, expires_at=self._end)

    def _end(self, moment: datetime | None) -> datetime | None:
        if self._state.adding and moment is not None and moment <= timezone.now():
            raise ValidationError(_("This moment has passed; the key would never work."), code="past")
        return moment


class KeyRemoval(models.Model):
    """A key that was deleted, for the processes that still know it. Kept for a day."""

    key_id = models.PositiveBigIntegerField()
    removed_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return str(self.key_id)


@receiver(post_delete, sender=APIKey)
def _note_removal(instance: APIKey, using: str, **_: Any) -> None:
    removals = KeyRemoval.objects.using(using)
    removals.filter(removed_at__lt=Now() - timedelta(days=1)).delete()
    removals.create(key_id=instance.pk, removed_at=Now())
