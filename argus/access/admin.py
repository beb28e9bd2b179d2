"""Plans and keys in the admin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from unfold.admin import ModelAdmin
from unfold.decorators import action, display

from argus.access import services
from argus.access.forms import DATA_TYPE_NAMES, KeyForm, PlanForm
from argus.access.models import APIKey, Plan
from argus.access.principal import DATA_TYPES

STATES = (("active", _("active")), ("expired", _("expired")), ("revoked", _("revoked")))


def _in_state(state: str) -> Q:
    expired = Q(expires_at__lte=timezone.now())
    return {
        "active": Q(revoked_at=None) & (Q(expires_at=None) | ~expired),
        "expired": Q(revoked_at=None) & expired,
        "revoked": Q(revoked_at__isnull=False),
    }[state]


class StateFilter(admin.SimpleListFilter):
    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return STATES

    def queryset(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> QuerySet[APIKey]:
        state = self.value()
        return queryset.filter(_in_state(state)) if state in dict(STATES) else queryset


@admin.register(Plan)
class PlanAdmin(ModelAdmin):  # type: ignore[misc]
    form = PlanForm
    list_display = ("name", "requests", "streams", "symbol_limit", "types", "priority", "key_count")
    list_before_template = "admin/list_note.html"
    list_note = _("What the keys of a plan may use, over REST and the stream together. A change acts on live keys at once.")
    ordering = ("requests_per_minute",)
    search_fields = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Plan]:
        plans: QuerySet[Plan] = super().get_queryset(request)
        return plans.annotate(key_count=Count("keys"))

    @display(description=_("requests per minute"), ordering="requests_per_minute")  # type: ignore[untyped-decorator]
    def requests(self, plan: Plan) -> str:
        return f"{plan.requests_per_minute:,}"

    @display(description=_("connections"), ordering="connections")  # type: ignore[untyped-decorator]
    def streams(self, plan: Plan) -> str:
        return f"{plan.connections:,}"

    @display(description=_("symbols"), ordering="symbols")  # type: ignore[untyped-decorator]
    def symbol_limit(self, plan: Plan) -> str:
        return f"{plan.symbols:,}"

    @display(description=_("data types"))  # type: ignore[untyped-decorator]
    def types(self, plan: Plan) -> str:
        if set(plan.data_types) == set(DATA_TYPES):
            return str(_("all"))
        return " · ".join(str(DATA_TYPE_NAMES[name]) for name in plan.data_types)

    @display(description=_("API keys"), ordering="key_count")  # type: ignore[untyped-decorator]
    def key_count(self, plan: Any) -> int:
        return int(plan.key_count)


@admin.register(APIKey)
class APIKeyAdmin(ModelAdmin):  # type: ignore[misc]
    form = KeyForm
    list_display = ("name", "shown_prefix", "plan", "state", "expires_at", "last_used_at", "created_at")
    list_before_template = "admin/list_note.html"
    list_note = _("A key is shown once, when it is made. To take it back, select it and revoke it: its connections close.")
    empty_text = _("There is no key yet; nobody can connect without one.")
    list_filter = (StateFilter, "plan")
    list_select_related = ("plan",)
    search_fields = ("name", "prefix")
    readonly_fields = ("shown_prefix", "state_name", "created_at", "last_used_at", "revoked_at")
    actions = ("revoke",)

    def get_fields(self, request: HttpRequest, obj: APIKey | None = None) -> tuple[str, ...]:
        return KeyForm.Meta.fields if obj is None else KeyForm.Meta.fields + self.readonly_fields

    def save_model(self, request: HttpRequest, obj: APIKey, form: Any, change: bool) -> None:
        if change:
            obj.save()
            return
        secret = services.issue_key(key=obj)
        # The message goes to the next page in a cookie of this very browser and is gone when it has been shown: the key
        # is written down nowhere on our side.
        text = render_to_string("access/new_key.html", {"key": secret.text}, request)
        self.message_user(request, mark_safe(text), messages.WARNING)

    @display(description=_("prefix"), ordering="prefix")  # type: ignore[untyped-decorator]
    def shown_prefix(self, key: APIKey) -> str:
        return f"argus_{key.prefix}_…"

    @display(description=_("state"), label={"active": "success", "expired": "warning", "revoked": "danger"})  # type: ignore[untyped-decorator]
    def state(self, key: APIKey) -> tuple[str, Any]:
        return services.state_of(key, timezone.now()), self.state_name(key)

    @display(description=_("state"))  # type: ignore[untyped-decorator]
    def state_name(self, key: APIKey) -> Any:
        return dict(STATES)[services.state_of(key, timezone.now())]

    @action(description=_("Revoke the selected API keys, for good"), permissions=["change"])  # type: ignore[untyped-decorator]
    def revoke(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> None:
        keys = list(queryset.filter(revoked_at=None))
        count = services.revoke_keys(keys=APIKey.objects.filter(pk__in=[key.pk for key in keys]))
        for key in keys:
            self.log_change(request, key, "Revoked.")
        text = ngettext(
            "%(count)d API key is revoked; its connections close within two seconds.",
            "%(count)d API keys are revoked; their connections close within two seconds.",
            count,
        )
        self.message_user(request, text % {"count": count}, messages.SUCCESS)
