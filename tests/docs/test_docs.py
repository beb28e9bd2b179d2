"""The documents say what the code says: settings, error codes, the protocol, the links between pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from argus import errors
from argus.config import Config
from marketdata.types import DataType, LimitState, TradingStatus
from streaming.selection import Frequency

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def rows(page: Path, heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    text = page.read_text(encoding="utf-8")
    assert f"\n## {heading}\n" in text, f"{page.name} has no section {heading!r}"
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))] for line in lines[2:]]


def setting_rows() -> list[list[str]]:
    """What the settings table must be."""
    table = []
    for name, field in Config.model_fields.items():
        variable = field.alias or f"ARGUS_{name.upper()}"
        default = field.default
        if isinstance(default, tuple):
            default = ",".join(default)
        if isinstance(default, Path):
            default = default.name
        if isinstance(default, bool):
            default = str(default).lower()
        shown = f"`{default:g}`" if isinstance(default, float) else f"`{default}`" if default not in ("", None) else ""
        table.append([f"`{variable}`", shown, str(field.description)])
    return table


def test_every_setting_is_documented_as_it_is() -> None:
    assert rows(DOCS / "settings.md", "Settings") == setting_rows()


def test_every_error_is_documented_as_it_is() -> None:
    expected = [
        [
            str(problem.code),
            f"`{problem.name}`",
            str(problem.status),
            "" if problem.close is None else str(problem.close),
            "yes" if problem.retryable else "no",
            problem_message(problem),
        ]
        for problem in errors.PROBLEMS
    ]
    assert rows(DOCS / "protocol.md", "Errors") == expected


def problem_message(problem: errors.Problem) -> str:
    from django.utils.translation import override

    with override("en"):
        return str(problem.message)


def test_error_codes_and_names_are_unique_and_close_codes_tell_whether_to_come_back() -> None:
    assert len({problem.code for problem in errors.PROBLEMS}) == len(errors.PROBLEMS) == len(errors.BY_NAME)
    for problem in errors.PROBLEMS:
        if problem.close is not None and problem.close >= 4000:
            assert (problem.close < 4100) == problem.retryable, problem


@pytest.mark.parametrize("values", [DataType, TradingStatus, LimitState, Frequency], ids=lambda enum: enum.__name__)
def test_every_value_of_the_protocol_is_documented(values: type) -> None:
    page = (DOCS / "protocol.md").read_text(encoding="utf-8")
    missing = [member.value for member in values if f"`{member.value}`" not in page]  # type: ignore[attr-defined]
    assert missing == []


@pytest.mark.parametrize("document", [*ROOT.glob("*.md"), *DOCS.rglob("*.md")], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_no_page_names_a_path_of_somebodys_machine() -> None:
    for page in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])/(?:home|root|Users|work|tmp)/", text), page


def test_every_metric_that_a_page_names_is_exported() -> None:
    from prometheus_client import REGISTRY

    from marketdata import metrics as _feeds
    from marketdata import reconcile as _bars
    from marketdata.cache import tiers as _cache
    from marketdata.history import metrics as _history
    from marketdata.recordings import metrics as _recordings
    from marketdata.terminals import metrics as _terminals
    from streaming import metrics as _stream
    from streaming import replays as _replays

    assert _bars and _cache and _feeds and _history and _recordings and _replays and _stream and _terminals
    exported = {f"{metric.name}{'_total' if metric.type == 'counter' else ''}" for metric in REGISTRY.collect()}
    for path in DOCS.rglob("*.md"):
        named = set(re.findall(r"`(argus_[a-z_]+)`", path.read_text(encoding="utf-8")))
        assert named <= exported, path.name


def test_every_metric_of_asking_terminals_is_explained() -> None:
    from prometheus_client import Counter, Gauge, Histogram

    from marketdata.terminals import metrics

    page = (DOCS / "operations.md").read_text(encoding="utf-8")
    ours = [one for one in vars(metrics).values() if isinstance(one, Counter | Gauge | Histogram)]
    names = [f"{one._name}{'_total' if isinstance(one, Counter) else ''}" for one in ours]
    assert len(names) >= 8
    assert [name for name in names if f"`{name}`" not in page] == []
