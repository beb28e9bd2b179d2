"""What a source told of trading dates, main contracts and index weights, as saved in the database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from django.db import transaction
from django.utils import timezone

from marketdata import universe
from marketdata.models import MainContract, Sector, TradingDates


@transaction.atomic
def save_trading_dates(*, source: str, market: str, dates: Sequence[str]) -> None:
    """Replace a market's trading dates (ISO); rows of another source, whose market this is not, go."""
    stored = TradingDates.objects.filter(market=market).values_list("dates", "source").first()
    gone, _ = TradingDates.objects.exclude(source=source).exclude(market=market).delete()
    TradingDates.objects.update_or_create(
        market=market, defaults={"dates": list(dates), "source": source, "refreshed_at": timezone.now()}
    )
    if gone or stored != (list(dates), source):
        universe.bump()


@transaction.atomic
def save_main_contracts(*, source: str, contracts: Mapping[str, str], among: Callable[[str], bool] = lambda _: True) -> None:
    """Replace all main contracts (``among``: all of such products): product, such as ``IF.IF``, and symbol."""
    stored = {product: symbol for product, symbol in MainContract.objects.values_list("product", "symbol") if among(product)}
    MainContract.objects.filter(product__in=stored.keys() - contracts.keys()).delete()
    now = timezone.now()
    MainContract.objects.bulk_create(
        [MainContract(product=product, symbol=symbol, source=source, refreshed_at=now) for product, symbol in contracts.items()],
        batch_size=200,
        update_conflicts=True,
        unique_fields=["product"],
        update_fields=["symbol", "source", "refreshed_at"],
    )
    if stored != dict(contracts):
        universe.bump()


@transaction.atomic
def save_weights(*, source: str, index: str, weights: Mapping[str, float]) -> None:
    """Replace an index's constituents, the heaviest first, and their weights in percent; its sector bears the index's symbol."""
    ordered = dict(sorted(weights.items(), key=lambda item: (-item[1], item[0])))
    stored = Sector.objects.filter(name=index).values_list("weights", flat=True).first()
    Sector.objects.update_or_create(
        name=index,
        defaults={"symbols": list(ordered), "weights": ordered, "source": source, "refreshed_at": timezone.now()},
    )
    if stored != ordered:
        universe.bump()
