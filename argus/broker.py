"""Redis as it carries tasks and their results between the processes: that it does not answer is one error, whoever finds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
import structlog
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from prometheus_client import Counter

log = structlog.get_logger(__name__)

UNRESTORED = Counter("argus_tasks_unrestored_total", "Tasks that a worker could not give back when its broker was gone")


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


class QoS(kombu_redis.QoS):
    """What a channel has taken and not acknowledged."""

    channel: Any
    _delivered: Any

    def restore_unacked(self, client: Any = None) -> None:
        """Give it back, where Redis is there. Where it is not, the tasks stay in its list of what is unacknowledged, if that is
        still there after it has come again: whoever closes a broken connection must come to the end of it."""
        try:
            super().restore_unacked(client)
        except (*self.channel.connection_errors, redis.RedisError) as error:
            UNRESTORED.inc(len(self._delivered))
            log.warning("tasks_unrestored", count=len(self._delivered), error=repr(error))
            self._delivered.clear()


class Channel(kombu_redis.Channel):
    """A channel that can be closed although its Redis is gone and its connection has forgotten the address."""

    QoS = QoS
    connection: Any

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        # Where closing a connection fails midway, kombu closes the rest of its channels later. It would ask None for the
        # address, and of what closing raises, Celery lets only a lost connection pass: anything else ends the worker.
        if self.connection is None or self.connection.client is None:
            raise redis.ConnectionError("The connection has been closed")
        return super()._connparams(asynchronous)  # type: ignore[misc,no-any-return]  # The stubs leave it out.


class Transport(kombu_redis.Transport):
    """kombu's way over Redis with channels that survive it."""

    Channel = Channel


def survive_redis() -> None:
    """From here on all that kombu connects to Redis in this process does so by our transport. By its name: the setting for a
    transport would show in every address that is logged."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{Transport.__name__}"
