"""Plans that had every data type go on having every data type, the trades among them."""

from django.db import migrations

BEFORE = ["quote", "price", "volume", "orderbook", "status"]
TRADE = "trade"
KLINES = ["kline:1m", "kline:5m", "kline:15m", "kline:30m", "kline:1h", "kline:1d"]


def add_trades(apps, schema_editor):
    plans = apps.get_model("access", "Plan").objects.using(schema_editor.connection.alias)
    for plan in plans.all():
        if set(plan.data_types) >= {*BEFORE, *KLINES} and TRADE not in plan.data_types:
            plan.data_types = [*BEFORE, TRADE, *KLINES]
            plan.save(update_fields=["data_types"])


def take_trades_away(apps, schema_editor):
    plans = apps.get_model("access", "Plan").objects.using(schema_editor.connection.alias)
    for plan in plans.all():
        plan.data_types = [name for name in plan.data_types if name != TRADE]
        plan.save(update_fields=["data_types"])


class Migration(migrations.Migration):
    dependencies = [("access", "0003_klines")]
    operations = [migrations.RunPython(add_trades, take_trades_away)]
