"""The table of pitfalls names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.sources.qmt import PITFALLS


@pytest.mark.parametrize("pitfall", PITFALLS)
def test_every_pitfall_has_its_test(pitfall: str) -> None:
    module, _, name = PITFALLS[pitfall].partition("::")
    text = (Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8")
    assert re.search(rf"def {name}\(", text)
