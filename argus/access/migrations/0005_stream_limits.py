"""Plans say how many subscriptions a key may have and how many messages a connection may send; those that exist lose nothing."""

import django.core.validators
from django.db import migrations, models

OF_A_CONNECTION = 64
"""The subscriptions that every connection could have before there was a limit of the key's."""


def allow_what_was_allowed(apps, schema_editor):
    plans = apps.get_model("access", "Plan").objects.using(schema_editor.connection.alias)
    for plan in plans.all():
        plan.subscriptions = max(plan.subscriptions, OF_A_CONNECTION * plan.connections)
        plan.messages_per_second = max(plan.messages_per_second, -(-plan.requests_per_minute // 60))
        plan.save(update_fields=["subscriptions", "messages_per_second"])


class Migration(migrations.Migration):
    dependencies = [("access", "0004_trades")]
    operations = [
        migrations.AddField(
            model_name="plan",
            name="subscriptions",
            field=models.PositiveIntegerField(
                default=100000,
                help_text="Named subscriptions of all connections of a key together.",
                validators=[django.core.validators.MinValueValidator(1)],
                verbose_name="subscriptions",
            ),
        ),
        migrations.AddField(
            model_name="plan",
            name="messages_per_second",
            field=models.PositiveIntegerField(
                default=100,
                help_text="Messages that one connection may send, whatever they ask for; some seconds' worth may come at once.",
                validators=[django.core.validators.MinValueValidator(1)],
                verbose_name="messages per second",
            ),
        ),
        migrations.RunPython(allow_what_was_allowed, migrations.RunPython.noop),
    ]
