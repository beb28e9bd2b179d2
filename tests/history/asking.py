"""A process that asks a terminal for bars, over Redis, as often as it is told to: each line it reads is a terminal's name.

It writes how long it took and what was said. The terminal ``quick`` answers each request with a refusal, all others say nothing.
"""

from __future__ import annotations

import json
import sys
import threading
import time

import django
import redis

SECONDS = 3.0
"""The deadline of each request."""


def answer(url: str) -> None:
    """Be ``quick``'s worker, whatever happens to Redis."""
    from argus.celery import app, queue_of

    while True:
        try:
            client = redis.Redis.from_url(url, protocol=2)
            while True:
                _, message = client.blpop([queue_of("quick")])
                task = json.loads(message)["headers"]["id"]
                app.backend.store_result(task, {"failed": "down", "detail": "it refuses"}, "SUCCESS")
        except (redis.RedisError, RuntimeError):
            time.sleep(0.1)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    django.setup()
    from django.conf import settings

    from marketdata.history import fetch, tasks
    from marketdata.history.fetch import FetchError
    from marketdata.sources.base import Capability
    from marketdata.terminals import dispatch, roster
    from marketdata.terminals.roster import PoolSpec, Roster, TerminalSpec
    from marketdata.terminals.slots import Priority

    dispatch._own = dispatch.Dispatcher(dict)
    threading.Thread(target=answer, args=(settings.CELERY_BROKER_URL,), daemon=True).start()
    say("ready")
    for line in sys.stdin:
        name = line.strip()
        roster._current = Roster({"main": PoolSpec("main", terminals=(TerminalSpec(name, "main"),))})
        began = time.monotonic()
        try:
            fetch._ask(tasks.fetch_bars, ["600000.SH"], ("1d", 0, 1), Capability.BARS, began + SECONDS, Priority.LIVE)
            said = "an answer"
        except FetchError as error:
            said = str(error)
        say(json.dumps({"seconds": time.monotonic() - began, "said": said}))


if __name__ == "__main__":
    main()
