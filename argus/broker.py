"""Redis as it carries tasks and their results between the processes: that it does not answer is one error, whoever finds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from kombu.exceptions import OperationalError


class BrokerAway(Exception):
    """What carries tasks and their results does not answer; the text says so, for people."""


@contextmanager
def carried() -> Iterator[None]:
    """Around sending a task and waiting for what it returns. Raises ``BrokerAway``."""
    try:
        yield
    except (OperationalError, redis.RedisError) as error:
        raise BrokerAway(f"the broker does not answer ({type(error).__name__})") from None
    except RuntimeError as error:
        # So Celery says that it cannot reach the results. It wants a restart; in truth the next call connects anew.
        if not isinstance(error.__cause__, redis.RedisError):
            raise
        raise BrokerAway(f"the broker does not answer ({type(error.__cause__).__name__})") from None
