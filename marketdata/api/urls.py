"""The addresses of market data."""

from django.urls import path

from marketdata.api.terminals import PollTerminal
from marketdata.api.views import FullMarket, LatestQuotes

urlpatterns = [
    path("api/v1/market_data/latest", LatestQuotes.as_view(), name="latest"),
    path("api/v1/market_data/full", FullMarket.as_view(), name="full"),
    path("api/v1/terminals/<str:terminal>/poll", PollTerminal.as_view(), name="poll-terminal"),
    *(path(f"{prefix}latest_market", LatestQuotes.as_view(schema=None)) for prefix in ("", "api/")),
    *(path(f"{prefix}full_market", FullMarket.as_view(schema=None)) for prefix in ("", "api/")),
]
