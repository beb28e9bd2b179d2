"""A real server over a simulated market whose clock stands still, for other vendors' own clients."""

from __future__ import annotations

import pytest

from tests.history import conftest as history
from tests.history.conftest import Market, _own_tiers, market, symbols
from tests.streaming.conftest import clean_process, key, patience, server

__all__ = ["_own_tiers", "clean_process", "key", "market", "market_with_moutai", "patience", "server", "symbols"]


@pytest.fixture
def market_with_moutai(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Market:
    """A simulated market that is large enough to have 600519.SH."""
    monkeypatch.setattr(history, "SYMBOLS", 2000)
    made: Market = request.getfixturevalue("market")
    return made
