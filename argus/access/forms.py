"""The admin's forms of plans and keys: lists as boxes to tick and as lines."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminTextareaWidget

from argus.access.models import APIKey, Plan, all_data_types, read_scope
from argus.access.principal import DATA_TYPES, SCOPES

DATA_TYPE_NAMES = {
    "quote": _("quote"),
    "price": _("price"),
    "volume": _("volume"),
    "orderbook": _("order book"),
    "status": _("trading status"),
    "trade": _("trades"),
    "kline:1m": _("K-lines, 1 minute"),
    "kline:5m": _("K-lines, 5 minutes"),
    "kline:15m": _("K-lines, 15 minutes"),
    "kline:30m": _("K-lines, 30 minutes"),
    "kline:1h": _("K-lines, 1 hour"),
    "kline:1d": _("K-lines, 1 day"),
}
SCOPE_NAMES = {"read": _("read: market data"), "operate": _("operate: metrics, caches, pools, diagnostics")}


class Lines(forms.CharField):
    """A list of texts, one a line; commas part them too."""

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        return [word.strip() for word in str(value or "").replace(",", "\n").splitlines() if word.strip()]

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool(list(initial or []) != self.to_python(data))


class PlanForm(forms.ModelForm):  # type: ignore[type-arg]
    data_types = forms.MultipleChoiceField(
        label=capfirst(_("data types")),
        initial=all_data_types,
        choices=[(name, DATA_TYPE_NAMES[name]) for name in DATA_TYPES],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
    )

    class Meta:
        model = Plan
        fields = (
            "name",
            "requests_per_minute",
            "connections",
            "symbols",
            "subscriptions",
            "messages_per_second",
            "data_types",
            "priority",
        )


class KeyForm(forms.ModelForm):  # type: ignore[type-arg]
    scopes = forms.MultipleChoiceField(
        label=capfirst(_("scopes")),
        initial=read_scope,
        choices=[(name, SCOPE_NAMES[name]) for name in SCOPES],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
    )
    networks = Lines(
        label=capfirst(_("allowed networks")),
        required=False,
        help_text=APIKey._meta.get_field("networks").help_text,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 4}),
    )

    class Meta:
        model = APIKey
        fields = ("name", "plan", "scopes", "networks", "expires_at")
