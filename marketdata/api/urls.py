"""The addresses of market data."""

from typing import Any

from django.urls import path

from marketdata.api import reference_views as reference
from marketdata.api.backfills import Backfills, OneBackfill
from marketdata.api.bar_differences import BarDifferences
from marketdata.api.cache import CacheStats, ClearCache, OptimizeCache
from marketdata.api.history_view import History
from marketdata.api.pools import OnePool, OneTerminal, Pools, Scale, ScaleOne
from marketdata.api.pools_live import HealthCheck, HealthCheckOfOne, Metrics, MetricsOfOne
from marketdata.api.terminals import PollTerminal
from marketdata.api.views import FullMarket, LatestQuotes
from marketdata.compat.udf_api import UdfTicket

OLD: dict[str, Any] = {"schema": None, "terminal_names": True}
"""Names that earlier users know: not in the schema, and parameters may be called as xtdata calls them."""
POOL = "api/v1/connection_pool"

urlpatterns = [
    path("api/v1/market_data/latest", LatestQuotes.as_view(), name="latest"),
    path("api/v1/market_data/full", FullMarket.as_view(), name="full"),
    path("api/v1/cache/stats", CacheStats.as_view(), name="cache-stats"),
    path("api/v1/cache/clear", ClearCache.as_view(), name="cache-clear"),
    path("api/v1/cache/optimize", OptimizeCache.as_view(), name="cache-optimize"),
    path("api/v1/market_data/history", History.as_view(), name="history"),
    path("api/v1/market_data/bar_differences", BarDifferences.as_view(), name="bar-differences"),
    path("api/v1/backfills", Backfills.as_view(), name="backfills"),
    path("api/v1/backfills/<int:number>", OneBackfill.as_view(), name="backfill"),
    path("api/v1/terminals/<str:terminal>/poll", PollTerminal.as_view(), name="poll-terminal"),
    path(f"{POOL}/pools", Pools.as_view(), name="pools"),
    path(f"{POOL}/pools/<str:name>", OnePool.as_view(), name="pool"),
    path(f"{POOL}/pools/<str:name>/terminals/<str:terminal>", OneTerminal.as_view(), name="pool-terminal"),
    path(f"{POOL}/pools/<str:name>/metrics", MetricsOfOne.as_view(), name="pool-metrics"),
    path(f"{POOL}/pools/<str:name>/health_check", HealthCheckOfOne.as_view(), name="pool-health-check"),
    path(f"{POOL}/pools/<str:name>/scale", ScaleOne.as_view(), name="pool-scale"),
    path(f"{POOL}/metrics", Metrics.as_view(), name="pools-metrics"),
    path(f"{POOL}/health_check", HealthCheck.as_view(), name="pools-health-check"),
    path(f"{POOL}/scale", Scale.as_view(), name="pools-scale"),
    path("api/v1/udf/ticket", UdfTicket.as_view(), name="udf-ticket"),
    path("api/v1/trading_dates", reference.TradingDates.as_view(), name="trading-dates"),
    path("api/v1/calendar/day", reference.CalendarDay.as_view(), name="calendar-day"),
    path("api/v1/instruments", reference.Instruments.as_view(), name="instruments"),
    path("api/v1/instruments/<path:symbol>", reference.InstrumentDetail.as_view(), name="instrument"),
    path("api/v1/sectors", reference.Sectors.as_view(), name="sectors"),
    path("api/v1/sectors/<path:sector>", reference.SectorDetail.as_view(), name="sector"),
    path("api/v1/indices", reference.Indices.as_view(), name="indices"),
    path("api/v1/etfs", reference.Etfs.as_view(), name="etfs"),
    path("api/v1/futures", reference.Futures.as_view(), name="futures"),
    path("api/v1/futures/<str:product>/main", reference.MainContract.as_view(), name="main-contract"),
    path("api/v1/options", reference.Options.as_view(), name="options"),
    *(path(f"{prefix}latest_market", LatestQuotes.as_view(schema=None)) for prefix in ("", "api/")),
    *(path(f"{prefix}full_market", FullMarket.as_view(schema=None)) for prefix in ("", "api/")),
    *(path(f"{prefix}hist_kline", History.as_view(**OLD)) for prefix in ("", "api/")),
    *(path(name, reference.TradingDates.as_view(**OLD)) for name in ("trading_dates", "api/get_trading_dates")),
    *(path(f"{prefix}instrument_detail", reference.InstrumentDetail.as_view(**OLD)) for prefix in ("", "api/")),
    *(path(f"{prefix}stock_list", reference.SectorDetail.as_view(**OLD)) for prefix in ("", "api/")),
]
