"""What is written of a request to the admin."""

from __future__ import annotations

import pytest
from django.test import Client
from structlog.testing import capture_logs


@pytest.mark.django_db
def test_what_people_search_for_is_not_written_down() -> None:
    with capture_logs() as lines:
        Client().get("/admin/access/apikey/", {"q": "13800138000 张三"})
    (line,) = [line for line in lines if line["event"] == "request_finished"]
    assert line["request"] == "GET /admin/access/apikey/"
