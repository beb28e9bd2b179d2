"""The admin's page of live connections: machine-written rows, and the one thing to do with them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from unfold.admin import ModelAdmin
from unfold.decorators import display

from streaming.models import LiveConnection, LiveConnectionQuerySet


@admin.register(LiveConnection)
class LiveConnectionAdmin(ModelAdmin):  # type: ignore[misc]
    list_display = ["connection_id", "key_shown", "plan", "address", "connected_at", "symbols", "frames", "bytes", "behind"]
    list_filter = ["plan", "behind", "process"]
    search_fields = ["connection_id", "prefix", "key__name", "address"]
    list_select_related = ["key"]
    show_full_result_count = False
    actions = ["disconnect_selected"]

    def get_queryset(self, request: HttpRequest) -> LiveConnectionQuerySet:
        return LiveConnection.objects.live().select_related("key")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_disconnect_permission(self, request: HttpRequest) -> bool:
        """Closing connections takes Django's right to change them, which nobody uses to change a row."""
        return request.user.has_perm("streaming.change_liveconnection")

    @display(description=_("API key"), ordering="key__name")  # type: ignore[untyped-decorator]
    def key_shown(self, row: LiveConnection) -> str:
        return f"{row.key.name} ({row.prefix})" if row.key else row.prefix

    @admin.action(description=_("Disconnect"), permissions=["disconnect"])
    def disconnect_selected(self, request: HttpRequest, queryset: QuerySet[LiveConnection]) -> None:
        """Ask the processes that hold them to close these connections; they look once a second."""
        count = queryset.update(disconnect=True)
        text = ngettext("%(count)d connection is being closed.", "%(count)d connections are being closed.", count)
        self.message_user(request, text % {"count": count}, messages.SUCCESS)
