"""The default database is one SQLite file for many threads: writers wait for each other and are not refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, connections, transaction

from argus.access.models import APIKey
from tests.access.factory import make_key, make_plan

WRITERS, EACH = 8, 10


@pytest.mark.django_db(transaction=True)
def test_writers_that_have_read_first_wait_and_none_finds_the_database_locked() -> None:
    if connection.vendor != "sqlite":
        pytest.skip("another database")
    plan = make_plan()

    def write(_: int) -> None:
        try:
            for _ in range(EACH):
                with transaction.atomic():
                    APIKey.objects.count()
                    make_key(plan)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))
    assert APIKey.objects.count() == WRITERS * EACH
