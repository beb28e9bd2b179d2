"""What is written of a request to the admin."""

from __future__ import annotations

import pytest
from django.test import Client


@pytest.mark.django_db
def test_what_people_search_for_is_not_written_down(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        Client().get("/admin/access/apikey/", {"q": "13800138000 张三"})
    assert "GET /admin/access/apikey/" in caplog.text
    assert "13800138000" not in caplog.text
    assert "张三" not in caplog.text
