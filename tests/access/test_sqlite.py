"""The default database is one SQLite file for many threads: writers wait for each other and are not refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, connections, transaction

from argus.access.models import APIKey, Plan
from argus.access.services import create_key

WRITERS, EACH = 8, 10


@pytest.mark.django_db(transaction=True, serialized_rollback=True)
def test_writers_that_have_read_first_wait_and_none_finds_the_database_locked() -> None:
    if connection.vendor != "sqlite":
        pytest.skip("another database")
    plan = Plan.objects.first()
    assert plan is not None

    def write(number: int) -> None:
        try:
            for _ in range(EACH):
                with transaction.atomic():
                    APIKey.objects.count()
                    create_key(name=f"writer {number}", plan=plan)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))
    assert APIKey.objects.count() == WRITERS * EACH
