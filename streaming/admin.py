"""The admin's page of live connections: machine-written rows, and the one thing to do with them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from unfold.admin import ModelAdmin
from unfold.decorators import display

from streaming.models import LiveConnection, LiveConnectionQuerySet


@admin.register(LiveConnection)
class LiveConnectionAdmin(ModelAdmin):  # type: ignore[misc]
    list_display = ["short_id", "key_shown", "plan", "address", "since", "symbol_count", "sent", "size", "pace"]
    list_before_template = "admin/list_note.html"
    list_note = _("Who receives the stream now, in every process. The counters are renewed every ten seconds.")
    empty_text = _("Nobody is connected.")
    list_filter = ["plan", "behind", "process"]
    search_fields = ["connection_id", "prefix", "key__name", "address"]
    list_select_related = ["key"]
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

    @display(description=_("connection"))  # type: ignore[untyped-decorator]
    def short_id(self, row: LiveConnection) -> str:
        return row.connection_id[:8]

    @display(description=_("API key"), ordering="key__name")  # type: ignore[untyped-decorator]
    def key_shown(self, row: LiveConnection) -> str:
        return f"{row.key.name} ({row.prefix})" if row.key else row.prefix

    @display(description=_("since"), ordering="connected_at")  # type: ignore[untyped-decorator]
    def since(self, row: LiveConnection) -> str:
        return f"{timezone.localtime(row.connected_at):%m-%d %H:%M:%S}"

    @display(description=_("symbols"), ordering="symbols")  # type: ignore[untyped-decorator]
    def symbol_count(self, row: LiveConnection) -> str:
        return f"{row.symbols:,}"

    @display(description=_("messages"), ordering="frames")  # type: ignore[untyped-decorator]
    def sent(self, row: LiveConnection) -> str:
        return f"{row.frames:,}"

    @display(description=_("volume sent"), ordering="bytes")  # type: ignore[untyped-decorator]
    def size(self, row: LiveConnection) -> str:
        return filesizeformat(row.bytes)

    @display(description=_("keeps up"), ordering="behind", label={"yes": "success", "no": "warning"})  # type: ignore[untyped-decorator]
    def pace(self, row: LiveConnection) -> tuple[str, Any]:
        return ("no", _("behind")) if row.behind else ("yes", _("in time"))

    @admin.action(description=_("Disconnect the selected connections"), permissions=["disconnect"])
    def disconnect_selected(self, request: HttpRequest, queryset: QuerySet[LiveConnection]) -> None:
        """Ask the processes that hold them to close these connections; they look once a second."""
        count = queryset.update(disconnect=True)
        text = ngettext("%(count)d connection is being closed.", "%(count)d connections are being closed.", count)
        self.message_user(request, text % {"count": count}, messages.SUCCESS)
