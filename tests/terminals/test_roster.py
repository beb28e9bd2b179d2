"""Which pools and terminals there are: the same in every process soon after a change, and always something."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import OperationalError

from argus.config import Config
from marketdata.terminals import roster, services
from marketdata.terminals.models import Pool, Terminal
from marketdata.terminals.roster import PoolSpec, Roster, TerminalSpec


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    roster.forget()


def test_before_the_first_look_the_settings_terminals_are_the_pool_main(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "config", Config(terminals=("a=127.0.0.1:1", "b")))
    assert {name: (t.pool, t.address) for name, t in roster.current().terminals.items()} == {
        "a": ("main", "127.0.0.1:1"),
        "b": ("main", ""),
    }


@pytest.mark.django_db
def test_a_look_says_whether_anything_has_changed() -> None:
    pool = Pool.objects.create(name="main")
    Terminal.objects.create(pool=pool, name="one", weight=3, capabilities=["bars", "of another version"])
    assert roster.look() is True
    assert roster.look() is False
    spec = roster.current().terminals["one"]
    assert (spec.weight, spec.serving, set(spec.capabilities)) == (3, True, {"bars"})
    Terminal.objects.update(drained=True)
    assert roster.look() is True
    assert not roster.current().terminals["one"].serving


@pytest.mark.django_db(transaction=True)
def test_a_change_is_done_although_nobody_can_look_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    Terminal.objects.create(pool=Pool.objects.create(name="main"), name="one")
    looked: list[None] = []

    def away() -> bool:
        looked.append(None)
        raise OperationalError("no answer")

    monkeypatch.setattr(roster, "look", away)
    services.drain("one", by="test")
    assert (Terminal.objects.get().drained, len(looked)) == (True, 1)


def test_a_pool_serves_what_it_names_and_else_what_no_other_names() -> None:
    pools = (
        PoolSpec("futures", markets=("IF", "SF"), terminals=(TerminalSpec("f", "futures"),)),
        PoolSpec("rest", terminals=(TerminalSpec("r", "rest"),)),
    )
    both = Roster({pool.name: pool for pool in pools})
    assert [getattr(both.pool_of(market), "name", None) for market in ("IF", "SH")] == ["futures", "rest"]
    futures, rest = both.accepts("futures"), both.accepts("rest")
    assert futures is not None
    assert rest is not None
    assert [(futures(symbol), rest(symbol)) for symbol in ("IF2412.IF", "600000.SH")] == [(True, False), (False, True)]
    assert Roster({"rest": pools[1]}).accepts("rest") is None, "the common case costs nothing"
