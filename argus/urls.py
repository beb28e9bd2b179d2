"""The addresses that Django answers; ``argus.asgi`` has those ahead of it."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from argus import docs
from monitoring import chart, overview, terminals

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/overview.json", admin.site.admin_view(overview.figures), name="overview-figures"),
    path("admin/chart/", admin.site.admin_view(chart.page), name="chart"),
    path("admin/chart/ticket", admin.site.admin_view(chart.ticket), name="chart-ticket"),
    path("admin/terminals/", admin.site.admin_view(terminals.page), name="terminals"),
    path("admin/terminals.json", admin.site.admin_view(terminals.live), name="terminals-live"),
    path("admin/terminals/pools/<str:name>", admin.site.admin_view(terminals.change_pool), name="terminals-pool"),
    path("admin/terminals/terminals/<str:name>", admin.site.admin_view(terminals.change_terminal), name="terminals-terminal"),
    path("admin/terminals/terminals/<str:name>/probe", admin.site.admin_view(terminals.probe), name="terminals-probe"),
    path("admin/", admin.site.urls),
    path("i18n/", include("django.conf.urls.i18n")),
    path("", include("marketdata.api.urls")),
    path("", include("streaming.urls")),
    path("api/schema", docs.Schema.as_view(), name="schema"),
    path("api/docs", docs.Page.as_view(), name="docs"),
]

handler400 = "argus.pages.bad_request"
handler403 = "argus.pages.forbidden"
handler404 = "argus.pages.not_found"
handler500 = "argus.pages.internal"
