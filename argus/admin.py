"""Django's users and groups, in the admin's own look."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

VERBS = {"view": _("view"), "add": _("add"), "change": _("change"), "delete": _("delete")}

admin.site.unregister([User, Group])


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):  # type: ignore[misc,type-arg]
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "is_active", "is_staff", "is_superuser", "last_login")
    fieldsets = (
        (None, {"fields": ("username", "password", "email")}),
        (_("Permissions"), {"fields": ("is_active", "is_staff", "is_superuser", "groups")}),
        (_("Important dates"), {"fields": ("last_login", "date_joined")}),
    )
    readonly_fields = ("last_login", "date_joined")
    autocomplete_fields = ("groups",)
    filter_horizontal = ()


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):  # type: ignore[misc]
    filter_horizontal = ()

    def formfield_for_manytomany(self, db_field: Any, request: Any = None, **options: Any) -> Any:
        """The permissions for what the admin shows, in the reader's language: Django stores their names in English."""
        field: Any = super().formfield_for_manytomany(db_field, request, **options)
        if db_field.name == "permissions" and field is not None:
            shown = ContentType.objects.get_for_models(*admin.site._registry).values()
            field.queryset = field.queryset.filter(content_type__in=list(shown))
            field.label_from_instance = _permission_name
        return field


def _permission_name(permission: Permission) -> str:
    kind = permission.content_type
    verb = permission.codename.partition("_")[0]
    return f"{capfirst(kind.name)} · {VERBS.get(verb, verb)}"
