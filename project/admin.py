"""Accounts and groups in the admin, whose rights only a recent password changes."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.actions import delete_selected as confirm_deletion
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest

from messaging.admin import recent_password


class RightsAdmin(admin.ModelAdmin):
    """Asks for the password again before anything is added, changed or deleted."""

    actions = ("delete_selected",)
    delete_selected = recent_password(confirm_deletion)

    @recent_password
    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Add or change."""
        return super().changeform_view(request, *args, **kwargs)

    @recent_password
    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Delete one."""
        return super().delete_view(request, *args, **kwargs)


class AccountAdmin(RightsAdmin, UserAdmin):
    """Accounts."""

    @recent_password
    def user_change_password(
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> Any:
        """Set the password of any account, which needs no old one."""
        return super().user_change_password(request, *args, **kwargs)


class RoleAdmin(RightsAdmin, GroupAdmin):
    """Groups, of which some are roles."""


for model, its_admin in ((User, AccountAdmin), (Group, RoleAdmin)):
    admin.site.unregister(model)
    admin.site.register(model, its_admin)
