"""Everything that is logged, by whomever, comes out as one clean JSON line with the ids that it belongs to."""

from __future__ import annotations

import io
import json
import logging
import logging.config
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from _pytest.logging import LogCaptureHandler
from django.conf import settings
from structlog.contextvars import bound_contextvars

from argus.config import Config
from argus.logging import OVERTAKEN, formatter, logging_config, role_of

KEY = "argus_ab12cd34_" + "Zx9-_" * 8 + "Q7w"

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What has been logged since, as the handlers of every process write it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter())
    root = logging.getLogger()
    root.addHandler(handler)
    level = root.level
    root.setLevel(logging.INFO)

    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    yield read
    root.removeHandler(handler)
    root.setLevel(level)


def test_our_own_event_is_one_line_with_its_fields_and_ids(lines: Lines) -> None:
    with bound_contextvars(request_id="r-1", connection_id="c-1"):
        structlog.get_logger("marketdata.feeds").info("polled", terminal="main", quotes=5500, 名称="平安银行")
    (line,) = lines()
    assert line["event"] == "polled" and line["level"] == "info" and line["logger"] == "marketdata.feeds"
    assert line["request_id"] == "r-1" and line["connection_id"] == "c-1"
    assert line["quotes"] == 5500 and line["名称"] == "平安银行"
    assert line["timestamp"].endswith("Z") and line["process"] == "test"


@pytest.mark.parametrize("name", OVERTAKEN)
def test_the_loggers_of_others_go_the_same_way(name: str, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger(name)
    # A server that another test has run in this process may have turned it off (uvicorn does, without an access log).
    monkeypatch.setattr(logger, "propagate", settings.LOGGING["loggers"][name]["propagate"])
    # pytest hangs its own handler on a logger that was turned off.
    assert logger.propagate and all(isinstance(handler, (logging.NullHandler, LogCaptureHandler)) for handler in logger.handlers)
    with bound_contextvars(request_id="r-2"):
        logger.error("it broke for %s at %s", KEY, ("203.0.113.7", 4711))
    (line,) = lines()
    assert line["logger"] == name and line["request_id"] == "r-2"
    assert line["event"] == "it broke for [redacted] at ('[address]', 4711)"


def test_a_record_is_rendered_once_for_all_handlers() -> None:
    record = logging.makeLogRecord({"name": "theirs", "msg": "polled", "levelname": "INFO"})
    line = formatter().format(record)
    assert json.loads(line)["event"] == "polled"
    assert formatter().format(record) is line


def test_access_lines_and_payload_traces_of_the_servers_are_not_let_through(lines: Lines) -> None:
    logging.getLogger("uvicorn.access").info('%s - "%s %s"', "203.0.113.7:1", "GET", "/ws?ticket=hunter2")
    logging.getLogger("websockets.server").debug("> TEXT %s", "hunter2")
    assert lines() == []


def test_the_handshake_line_of_uvicorn_loses_address_and_ticket(lines: Lines) -> None:
    logging.getLogger("uvicorn.error").info('%s - "WebSocket %s" [accepted]', "203.0.113.7:1", "/ws?ticket=hunter2&v=1")
    (line,) = lines()
    assert line["event"] == '[address] - "WebSocket /ws?ticket=[redacted]&v=1" [accepted]'


def test_a_traceback_is_in_the_line_and_holds_no_secret(lines: Lines) -> None:
    def fail(key: str) -> None:
        raise ValueError(f"no plan for {key} of li.lei@example.com at 203.0.113.7, password=hunter2")

    for logger in (structlog.get_logger("ours"), logging.getLogger("theirs")):
        try:
            fail(KEY)
        except ValueError:
            logger.exception("request_failed", exc_info=True)
    for line in lines():
        text = line["exception"]
        assert "Traceback" in text and "in fail" in text and "ValueError: no plan for [redacted]" in text
        for secret in (KEY, "li.lei", "203.0.113.7", "hunter2"):
            assert secret not in json.dumps(line)


def test_a_chained_traceback_is_cleaned_down_to_its_cause(lines: Lines) -> None:
    try:
        try:
            raise ConnectionError(f"redis://:hunter2@10.1.2.3:6379 {KEY}")
        except ConnectionError as cause:
            raise RuntimeError("outer") from cause
    except RuntimeError:
        structlog.get_logger("ours").exception("boom")
    (line,) = lines()
    assert "direct cause" in line["exception"]
    for secret in (KEY, "hunter2", "10.1.2.3"):
        assert secret not in json.dumps(line)


def test_fields_extras_and_contexts_are_cleaned_like_texts(lines: Lines) -> None:
    with bound_contextvars(ip="203.0.113.7", user_agent="Mozilla"):
        structlog.get_logger("ours").info("seen", headers=[(b"x-api-key", KEY.encode())], query=f"key={KEY}", _hidden=KEY)
    logging.getLogger("theirs").warning("seen", extra={"request": f"GET /?key={KEY}", "client": ("203.0.113.7", 1)})
    assert len(lines()) == 2
    for line in lines():
        for secret in (KEY, "203.0.113.7", "Mozilla"):
            assert secret not in json.dumps(line)


def test_what_cannot_be_json_and_line_breaks_do_not_break_the_line(lines: Lines) -> None:
    structlog.get_logger("ours").info("odd\nline", thing=object(), data=b"\xff\x00", nested={1: {2, 3}}, nan=float("nan"))
    (line,) = lines()
    assert line["event"] == "odd\nline" and line["thing"].startswith("<object object")


def test_the_levels_and_files_of_a_process_follow_the_settings(tmp_path: Any) -> None:
    config = Config(data_dir=tmp_path, log_level="ERROR", log_file=True)
    found = logging_config(config)
    assert found["root"] == {"handlers": ["console", "file"], "level": "ERROR"}
    assert found["handlers"]["file"]["directory"] == str(tmp_path / "logs")
    assert logging_config(Config(log_file=False))["root"]["handlers"] == ["console"]
    assert {logger.get("level", "ERROR") for logger in found["loggers"].values()} <= {"ERROR", "CRITICAL"}


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (["/x/manage.py", "up", "--port", "0"], "up"),
        (["manage.py", "serve"], "serve"),
        (["manage.py", "terminal_worker", "guojin"], "worker"),
        (["/x/.venv/bin/celery", "-A", "argus", "worker", "-Q", "terminal.main"], "worker"),
        (["/x/celery/__main__.py", "-A", "argus", "beat"], "beat"),
        (["C:/x/celery.exe", "-A", "argus", "worker"], "worker"),
        (["/x/.venv/bin/uvicorn", "argus.asgi:application"], "serve"),
        (["daphne", "argus.asgi:application"], "serve"),
    ],
)
def test_a_process_is_named_by_its_command_line(command: list[str], role: str) -> None:
    assert role_of(command) == role
