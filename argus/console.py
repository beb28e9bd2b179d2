"""How the admin looks and what its sidebar leads to: unfold's settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse_lazy
from django.utils.translation import gettext_lazy as _

from argus.config import config

SOURCES = {"simulated": _("simulated data"), "replay": _("recorded data"), "qmt": _("QMT")}
"""What the sources of quotes are called where people read."""
LABELS = {"simulated": "warning", "replay": "info", "qmt": "success"}


def environment(request: HttpRequest) -> list[Any]:
    """The badge on every page: nobody must take simulated or recorded data for the market's."""
    return [SOURCES[config.source], LABELS[config.source]]


def title_prefix(request: HttpRequest) -> str:
    """The same, ahead of every tab's title; nothing where the data is the market's."""
    return "" if config.source == "qmt" else f"[{SOURCES[config.source]}]"


def _may(permission: str) -> Callable[[HttpRequest], bool]:
    return lambda request: request.user.has_perm(permission)


def _page(title: Any, icon: str, model: str) -> dict[str, Any]:
    """A sidebar item: the list of a model, for those who may see it."""
    app, name = model.split(".")
    link = reverse_lazy(f"admin:{app}_{name}_changelist")
    return {"title": title, "icon": icon, "link": link, "permission": _may(f"{app}.view_{name}")}


SIDEBAR = [
    {
        "items": [
            {"title": _("Overview"), "icon": "monitoring", "link": reverse_lazy("admin:index")},
            {
                "title": _("Terminals"),
                "icon": "dns",
                "link": reverse_lazy("terminals"),
                "permission": _may("marketdata.view_terminal"),
            },
            {
                "title": _("Chart"),
                "icon": "candlestick_chart",
                "link": reverse_lazy("chart"),
                "permission": _may("marketdata.view_instrument"),
            },
            _page(_("Live connections"), "cable", "streaming.liveconnection"),
        ]
    },
    {
        "title": _("Access"),
        "separator": True,
        "items": [_page(_("API keys"), "key", "access.apikey"), _page(_("Plans"), "speed", "access.plan")],
    },
    {
        "title": _("Market data"),
        "separator": True,
        "items": [
            _page(_("Instruments"), "list_alt", "marketdata.instrument"),
            _page(_("Sectors"), "category", "marketdata.sector"),
            _page(_("Trading dates"), "calendar_month", "marketdata.tradingdates"),
            _page(_("Main contracts"), "star", "marketdata.maincontract"),
            _page(_("Dividends"), "payments", "marketdata.dividends"),
            _page(_("Backfills"), "download", "marketdata.backfill"),
            _page(_("Bar differences"), "difference", "marketdata.bardifference"),
        ],
    },
    {
        "title": _("Connection pool"),
        "separator": True,
        "items": [
            _page(_("Pools"), "hub", "marketdata.pool"),
            _page(_("Settings of terminals"), "tune", "marketdata.terminal"),
        ],
    },
    {
        "title": _("Administration"),
        "separator": True,
        "items": [_page(_("Users"), "person", "auth.user"), _page(_("Groups"), "group", "auth.group")],
    },
    {
        "title": _("For developers"),
        "separator": True,
        "items": [
            {"title": _("API documentation"), "icon": "api", "link": reverse_lazy("docs")},
            {"title": _("Health"), "icon": "ecg_heart", "link": "/health"},
        ],
    },
]

UNFOLD = {
    "SITE_TITLE": "Argus",
    "SITE_HEADER": "Argus",
    "SITE_SUBHEADER": _("Market data service"),
    "SITE_ICON": lambda request: static("favicon.svg"),
    "SITE_URL": None,
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("favicon.svg")}],
    "SHOW_LANGUAGES": True,
    "SHOW_BACK_BUTTON": True,
    "ENVIRONMENT": "argus.console.environment",
    "ENVIRONMENT_TITLE_PREFIX": "argus.console.title_prefix",
    "DASHBOARD_CALLBACK": "monitoring.overview.dashboard",
    "SIDEBAR": {"navigation": SIDEBAR},
    "COLORS": {
        # Tailwind's blue.
        "primary": {
            "50": "oklch(97% .014 254.604)",
            "100": "oklch(93.2% .032 255.585)",
            "200": "oklch(88.2% .059 254.128)",
            "300": "oklch(80.9% .105 251.813)",
            "400": "oklch(70.7% .165 254.624)",
            "500": "oklch(62.3% .214 259.815)",
            "600": "oklch(54.6% .245 262.881)",
            "700": "oklch(48.8% .243 264.376)",
            "800": "oklch(42.4% .199 265.638)",
            "900": "oklch(37.9% .146 265.522)",
            "950": "oklch(28.2% .091 267.935)",
        },
    },
}
