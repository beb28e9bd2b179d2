"""The documents say what the code says: settings, error codes, the protocol, the links between pages."""

from __future__ import annotations

import re
from collections.abc import Callable
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

    from argus import broker as _broker
    from marketdata import metrics as _feeds
    from marketdata import reconcile as _bars
    from marketdata.cache import tiers as _cache
    from marketdata.history import metrics as _history
    from marketdata.recordings import metrics as _recordings
    from marketdata.terminals import metrics as _terminals
    from streaming import metrics as _stream
    from streaming import replays as _replays

    assert _bars and _broker and _cache and _feeds and _history and _recordings and _replays and _stream and _terminals
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


def test_every_metric_of_the_stream_is_explained() -> None:
    from streaming.metrics import Counters, StreamCollector

    collector = StreamCollector()
    counters = Counters()
    collector.watch(counters)
    exported = [f"{metric.name}{'_total' if metric.type == 'counter' else ''}" for metric in collector.collect()]
    assert len(exported) >= 20
    pages = [(DOCS / name).read_text(encoding="utf-8") for name in ("operations.md", "limits.md")]
    # A counter with a label is named with it.
    assert [name for name in exported if not any(re.search(rf"`{name}[`{{]", page) for page in pages)] == []


WORDS: dict[float, str] = {2: "two", 3: "three", 5: "five", 10: "ten", 30: "thirty"}
"""Numbers as the pages write them out."""


RATE = int(Config.model_fields["admit_per_second"].default)


def limits_of_the_code() -> list[str]:
    """What the page of limits says in numbers."""
    from argus.access.limits.base import LEASE, RENEW
    from argus.access.principal import MESSAGES_PER_SECOND, SUBSCRIPTIONS
    from streaming import admission, merging, overload, throttle
    from streaming.overload import Level
    from streaming.runtime import TICK
    from streaming.session import MAX_REFUSED
    from streaming.subscriptions import MAX_SUBSCRIPTIONS

    least, most = (ms // 1000 for ms in overload.RECONNECT_AFTER_MS)
    assert (admission.SHARE, merging.MERGE_AFTER / 4) == (1 / 4, 1 / 2), "the page writes these out"
    assert (overload.RISE, overload.LOW, overload.LONGEST_FALL) == (1, 1 / 2, 60), "these too"
    return [
        f"`ARGUS_ADMIT_PER_SECOND` ({RATE}) of each web process, twice as many at once",
        f"at {RATE} per second the last of 5,000 is told {5_000 / RATE - admission.BURST:g} seconds",
        f"nobody is told more than {admission.LONGEST}",
        f"Of the {WORDS[admission.BURST]} seconds' worth that the bucket holds",
        "forgotten at a quarter of the rate",
        f"{WORDS[throttle.BURST]} seconds' worth at once",
        f"{WORDS[throttle.PATIENCE]} seconds' worth of messages refused",
        f"{throttle.UNKNOWN} per second, as above; {MAX_REFUSED} refusals",
        f"| subscriptions of a connection | {MAX_SUBSCRIPTIONS} |",
        f"renews every {WORDS[RENEW]} seconds; those of a process that dies count no more after {WORDS[LEASE]}",
        f"A new plan has {SUBSCRIPTIONS:,} subscriptions",
        f"and {MESSAGES_PER_SECOND} messages per second",
        f"measures itself {1 / TICK:g} times a second, over the last {WORDS[overload.WINDOW]} seconds",
        f"`argus_stream_busy` | {overload.BUSY:g} |",
        f"`argus_stream_late` | {overload.LATE:g} s |",
        f"(of the last one) | {overload.LAG:g} s |",
        f"for one second without a break, so the last is reached after {WORDS[Level.SHED_LOW]} at the earliest",
        f"under half of every mark for {WORDS[overload.FALL]} seconds",
        f"has to rise again within {overload.RELAPSE:g} s) this time doubles, to a minute at most",
        f"served every {Level.MERGE_LOW.interval:g} s",
        f"the same for normal priority, every {Level.MERGE_NORMAL.interval:g} s",
        f"as 2, every {Level.SHED_LOW.interval:g} s",
        f"{overload.SHED_SHARE:.0%} per second, at least {overload.SHED_LEAST:g}, are".replace("%", " %"),
        f"more than {merging.MERGE_AFTER:g} s late",
        "until it is below half a second",
        f"between {least} and {most} seconds",
    ]


def scale_of_the_code() -> list[str]:
    """What the page of scaling says of settings and constants; the rest of its numbers is measured."""
    from argus.access.limits.base import RENEW
    from marketdata.demand import SLOTS
    from marketdata.publisher import SNAPSHOT_INTERVAL
    from streaming.audience import SLICE, SLICES
    from streaming.saved import HELD

    assert SNAPSHOT_INTERVAL == 1, "the page writes it out"
    return [
        f"| handshakes that a web process lets in | {RATE} per second |",
        f"`clients / ({RATE} N)` seconds, {100_000 / RATE / 10:g} s for 100,000 clients and 10 processes",
        f"held for {HELD} s, so `N >= clients / {HELD * RATE:,}`",
        f"takes a lease that is renewed every {WORDS[RENEW]} seconds",
        f"1,000,000 connections renew {1_000_000 / RENEW:,.0f} leases a second",
        f"**{SLOTS} web processes with clients of bars or trades**: they say what they want in {SLOTS} numbered places",
        f"spread over up to {SLICES} phases of the interval, a phase for each {SLICE} of them until there are {SLICES * SLICE:,}",
        "at most once a second, from the publisher",
    ]


def faults_of_the_code() -> list[str]:
    """How long the page of the faults says that Redis is waited for, and until what was lost is there again."""
    from argus.access.limits.base import RENEW
    from marketdata import journal, lease, publish
    from streaming import saved

    assert (journal.TIMEOUT, saved.RENEW) == (lease.TTL / 4, 120), "the page names one for both, and writes it out"
    return [
        f"longer than {journal.TIMEOUT:g} s (journal, lease) or {publish.SEND_TIMEOUT:g} s (channel layer) counts as none",
        f"cannot be renewed for {lease.TTL:g} s nobody publishes",
        f"written again within two minutes, connections are counted again within {WORDS[RENEW]} seconds",
    ]


def trades_of_the_code() -> list[str]:
    """How many symbols' trades a terminal carries."""
    from marketdata.sources.qmt.trades import LIMIT

    return [f"A terminal carries the trades of {LIMIT} symbols at a time"]


@pytest.mark.parametrize(
    ("page", "numbers"),
    [
        ("limits", limits_of_the_code),
        ("scaling", scale_of_the_code),
        ("architecture", faults_of_the_code),
        ("protocol", trades_of_the_code),
    ],
)
def test_the_numbers_of_a_page_are_those_of_the_code(page: str, numbers: Callable[[], list[str]]) -> None:
    text = " ".join((DOCS / f"{page}.md").read_text(encoding="utf-8").split())
    assert [phrase for phrase in numbers() if phrase not in text] == []
