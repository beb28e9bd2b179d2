"""Every example in docs/backfill.md runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from argus.access import services
from argus.access.models import Plan
from marketdata import universe
from marketdata.history import loader
from marketdata.models import Backfill
from marketdata.universe import Universe
from tests.history.conftest import Market

pytestmark = [pytest.mark.django_db(transaction=True)]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "backfill.md"


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "SECOND_LOOK", -1.0)
    universe.set_current(Universe())


def test_the_commands_run(market: Market) -> None:
    for line in "".join(examples("sh")).splitlines():
        words = shlex.split(line)
        assert words[:4] == ["python3", "run.py", "manage", "backfill"]
        number = [str(Backfill.objects.earliest("pk").pk) if word == "1" else word for word in words[4:]]
        call_command("backfill", *number)
    assert Backfill.objects.count() == 2
    assert set(Backfill.objects.values_list("state", flat=True)) == {"done"}


def test_the_program_runs(
    market: Market, live_server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan.objects.get(name="unlimited")
    _, secret = services.create_key(name="docs", plan=plan, scopes=["read", "operate"], networks=[], expires_at=None)
    monkeypatch.setenv("ARGUS_KEY", secret.text)
    monkeypatch.setenv("ARGUS_URL", live_server.url)
    (program,) = examples("python")
    exec(compile(program, str(PAGE), "exec"), {})
    assert capsys.readouterr().out.startswith("done 100.0 %")
