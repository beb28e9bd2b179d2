"""The running server of the streaming tests serves here as well."""

from tests.streaming.conftest import clean_process, key, server

__all__ = ["clean_process", "key", "server"]
