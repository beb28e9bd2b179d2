"""Plans that had every data type go on having every data type, the live K-lines among them."""

from django.db import migrations

BEFORE = {"quote", "price", "volume", "orderbook", "status"}
KLINES = ["kline:1m", "kline:5m", "kline:15m", "kline:30m", "kline:1h", "kline:1d"]


def add_klines(apps, schema_editor):
    plans = apps.get_model("access", "Plan").objects.using(schema_editor.connection.alias)
    for plan in plans.all():
        if set(plan.data_types) >= BEFORE:
            plan.data_types = [*plan.data_types, *(name for name in KLINES if name not in plan.data_types)]
            plan.save(update_fields=["data_types"])


def take_klines_away(apps, schema_editor):
    plans = apps.get_model("access", "Plan").objects.using(schema_editor.connection.alias)
    for plan in plans.all():
        plan.data_types = [name for name in plan.data_types if name not in KLINES]
        plan.save(update_fields=["data_types"])


class Migration(migrations.Migration):
    dependencies = [("access", "0002_default_plans")]
    operations = [migrations.RunPython(add_klines, take_klines_away)]
