"""Logs: structured JSON, one line an event, with the request id that the event belongs to.

Every record goes one way, whoever wrote it (our own code through structlog, Django, uvicorn, Daphne and Celery through
``logging``): the same fields are added, secrets and personal data are taken out (``argus.redact``), and the line is
written to the console and, if the settings say so, to the process' own file (``argus.logfile``).
"""

from __future__ import annotations

import json
import logging
import logging.config
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog
from django.conf import settings
from structlog.typing import EventDict, Processor, WrappedLogger

from argus import redact
from argus.config import Config, config

QUIET = {
    # Each of these says for every task or request what django-structlog says already, or writes client addresses.
    "celery.app.trace": "WARNING",
    "celery.worker.strategy": "WARNING",
    "celery.beat": "WARNING",
    "uvicorn.access": "WARNING",
    "daphne.http_protocol": "WARNING",
    "daphne.ws_protocol": "WARNING",
    "django.channels.server": "WARNING",
    "django.request": "ERROR",
    # A scanner that guesses host names would fill the log with tracebacks; it gets its 400.
    "django.security.DisallowedHost": "CRITICAL",
    # These trace frames, queries or selectors at DEBUG: payloads have no place in a log.
    "websockets": "INFO",
    "asyncio": "INFO",
    "django.db.backends": "INFO",
    "django.template": "INFO",
    "uvicorn.error": "INFO",
    "autobahn": "INFO",
    "kombu": "INFO",
    "amqp": "INFO",
    "twisted": "INFO",
    "httpx": "WARNING",
    "httpcore": "WARNING",
}
"""Loggers of others and the lowest level of each that is let through."""

OVERTAKEN = (
    "uvicorn",
    "uvicorn.error",
    "uvicorn.access",
    "daphne",
    "django",
    "django.server",
    "celery",
    "celery.task",
    "celery.redirected",
)
"""Loggers that bring handlers of their own: these are taken away, so that everything passes the redaction."""


def role_of(command: Sequence[str]) -> str:
    """What a process is, by its command line; it names the log file."""
    program, *arguments = command or [""]
    name = Path(program).name.removesuffix(".exe")
    if name == "celery" or Path(program).parts[-2:] == ("celery", "__main__.py"):
        return "beat" if "beat" in arguments else "worker"
    if name in {"uvicorn", "daphne"}:
        return "serve"
    if name == "manage.py" and arguments[:1] in (["up"], ["serve"]):
        return arguments[0]
    if name == "manage.py" and arguments[:1] == ["terminal_worker"]:
        return "worker"
    return "test" if "pytest" in sys.modules else "manage"


ROLE = role_of(sys.argv)


def _add_process(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    event["process"] = ROLE
    event.pop("color_message", None)  # uvicorn's second version of the same text.
    return event


def _redact(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    clean: dict[str, Any] = {name: event.pop(name) for name in ("timestamp", "level") if name in event}
    clean["event"] = redact.clean(event.pop("event", ""))
    clean.update((name, redact.field(name, value)) for name, value in event.items())
    return clean


def _render(_logger: WrappedLogger, _name: str, event: EventDict) -> str:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"))


def _shared() -> list[Processor]:
    """What happens to every event, ours or others', before it is rendered."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]


class _Once(structlog.stdlib.ProcessorFormatter):
    """Renders a record once: console, file and the file's look at its size would each ask for the same line."""

    def format(self, record: logging.LogRecord) -> str:
        line: str | None = getattr(record, "argus_line", None)
        if line is None:
            line = record.argus_line = super().format(record)
        return line


def formatter() -> logging.Formatter:
    """The one formatter: JSON, redacted."""
    return _Once(
        foreign_pre_chain=[*_shared(), structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _add_process,
            structlog.processors.format_exc_info,
            _redact,
            _render,
        ],
    )


def logging_config(config: Config) -> dict[str, Any]:
    """The dictConfig of every process of Argus.

    ``up`` and management commands speak to a person: their console shows warnings only while a file takes the rest.
    """
    levels = logging.getLevelNamesMapping()
    console = {"class": "logging.StreamHandler", "formatter": "json", "level": config.log_level}
    handlers: dict[str, dict[str, Any]] = {"console": console}
    if config.log_file:
        handlers["file"] = {
            "()": "argus.logfile.OwnFileHandler",
            "directory": str(config.data_dir / "logs"),
            "role": ROLE,
            "formatter": "json",
        }
        if ROLE in {"up", "manage"}:
            console["level"] = max(config.log_level, "WARNING", key=levels.__getitem__)
    loggers: dict[str, dict[str, Any]] = {name: {"handlers": [], "propagate": True} for name in OVERTAKEN}
    for name, level in QUIET.items():
        loggers.setdefault(name, {})["level"] = max(level, config.log_level, key=levels.__getitem__)
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "argus.logging.formatter"}},
        "handlers": handlers,
        "loggers": loggers,
        "root": {"handlers": list(handlers), "level": config.log_level},
    }


def _own_secrets() -> Iterator[str]:
    """The secrets in the settings, which must not appear even inside a text of unknown shape."""
    yield settings.SECRET_KEY
    for url in (config.database_url, config.redis_url):
        if password := urlsplit(url).password:
            yield from (password, unquote(password))


def configure(logging_settings: dict[str, Any]) -> None:
    """Django's LOGGING_CONFIG hook; Celery's setup calls it too."""
    redact.never_log(_own_secrets())
    logging.config.dictConfig(logging_settings)
    if structlog.is_configured():
        # Loggers that were used keep the processors of then: others would be for some of them alone.
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
