"""The plans that a fresh installation starts with; the operator may change or delete them."""

from django.db import migrations

ALL = ["quote", "price", "volume", "orderbook", "status"]
LOW, NORMAL, HIGH = 0, 1, 2
PLANS = [
    # name, requests per minute, connections, symbols, data types, priority
    ("demo", 600, 5, 10_000, ALL, NORMAL),
    ("free", 60, 1, 50, ["quote", "price", "status"], LOW),
    ("standard", 600, 5, 500, ALL, NORMAL),
    ("professional", 6_000, 50, 10_000, ALL, HIGH),
    ("unlimited", 1_000_000, 10_000, 100_000, ALL, HIGH),
]


def create_plans(apps, schema_editor):
    plans = apps.get_model("access", "Plan").objects.using(schema_editor.connection.alias)
    for name, requests, connections, symbols, data_types, priority in PLANS:
        plans.get_or_create(
            name=name,
            defaults={
                "requests_per_minute": requests,
                "connections": connections,
                "symbols": symbols,
                "data_types": data_types,
                "priority": priority,
            },
        )


class Migration(migrations.Migration):
    dependencies = [("access", "0001_initial")]
    operations = [migrations.RunPython(create_plans, migrations.RunPython.noop)]
