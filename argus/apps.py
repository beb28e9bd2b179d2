"""The Django application of the project itself: its system checks and its texts."""

from django.apps import AppConfig


class ArgusConfig(AppConfig):
    name = "argus"

    def ready(self) -> None:
        """Register the checks; hook request ids into Celery's messages."""
        from argus import checks, requestid

        checks.register_all()
        requestid.connect()
