"""Pools declared by the environment or a file: applied at every start, and never against what people did besides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from argus.config import Config
from marketdata.terminals import declare, models, roster
from marketdata.terminals.declare import DeclarationError
from marketdata.terminals.models import Pool, Terminal

pytestmark = pytest.mark.django_db

FILE = """
[[pools]]
name = "stocks"
strategy = "weighted_round_robin"
markets = ["SH", "SZ", "BJ"]
max_size = 6

[[pools.terminals]]
name = "guojin"
address = "127.0.0.1:58610"
weight = 2
maintenance = "daily 05:00-05:40"

[[pools.terminals]]
name = "guosheng"
address = "127.0.0.1:58611"
role = "standby"

[[pools]]
name = "futures"
markets = "IF,SF"

[[pools.terminals]]
name = "yinhe"
address = "127.0.0.1:58612"
"""


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    roster.forget()


def declare_file(monkeypatch: pytest.MonkeyPatch, path: Path, text: str) -> bool:
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(declare, "config", Config(pools=path))
    return declare.apply()


def test_where_nothing_is_declared_and_nothing_is_there_the_pool_main_is_made_once() -> None:
    assert declare.apply() is True
    assert [(pool.name, [t.name for t in pool.terminals.all()]) for pool in Pool.objects.all()] == [("main", ["main"])]
    Terminal.objects.all().delete()
    assert declare.apply() is False
    assert not Terminal.objects.exists(), "what people removed stays removed"


def test_over_qmt_it_is_the_terminal_of_this_machine_until_somebody_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    declare.apply()
    monkeypatch.setattr(declare, "config", Config(source="qmt"))
    monkeypatch.setattr(models, "config", Config(source="qmt"))
    assert declare.apply() is True, "what was made for a source without addresses gets one"
    assert Terminal.objects.get().address == "127.0.0.1:58610"
    Terminal.objects.update(address="127.0.0.1:58611")
    assert declare.apply() is False
    assert Terminal.objects.get().address == "127.0.0.1:58611", "what people changed stays"
    Pool.objects.all().delete()
    assert declare.apply() is True
    assert Terminal.objects.get().address == "127.0.0.1:58610"


def test_a_file_declares_pools_with_their_terminals(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert declare_file(monkeypatch, tmp_path / "pools.toml", FILE) is True
    pools = roster.current().pools
    assert {name: [t.name for t in pool.terminals] for name, pool in pools.items()} == {
        "stocks": ["guojin", "guosheng"],
        "futures": ["yinhe"],
    }
    stocks = pools["stocks"]
    assert (stocks.strategy, stocks.markets, stocks.min_size, stocks.max_size) == (
        "weighted_round_robin",
        ("SH", "SZ", "BJ"),
        2,
        6,
    )
    first, second = stocks.terminals
    assert (first.address, first.weight, len(first.maintenance), first.role) == ("127.0.0.1:58610", 2, 1, "active")
    assert second.role == "standby"
    assert [pool and pool.name for pool in map(roster.current().pool_of, ("SZ", "IF", "HK"))] == ["stocks", "futures", None]


def test_applying_it_twice_changes_nothing_and_keeps_what_it_does_not_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    declare_file(monkeypatch, tmp_path / "pools.toml", FILE)
    Terminal.objects.filter(name="guojin").update(drained=True, concurrent=5)
    assert declare_file(monkeypatch, tmp_path / "pools.toml", FILE) is False
    row = Terminal.objects.get(name="guojin")
    assert (row.drained, row.concurrent) == (True, 5)


def test_what_is_declared_no_more_goes_and_what_people_added_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    declare_file(monkeypatch, tmp_path / "pools.toml", FILE)
    Terminal.objects.create(name="mine", pool=Pool.objects.get(name="stocks"), address="127.0.0.1:1")
    shorter = FILE[: FILE.index('[[pools.terminals]]\nname = "guosheng"')]
    assert declare_file(monkeypatch, tmp_path / "pools.toml", shorter) is True
    assert set(Terminal.objects.values_list("name", flat=True)) == {"guojin", "mine"}
    assert list(Pool.objects.values_list("name", flat=True)) == ["stocks"]


def test_pools_may_be_renamed_and_exchange_their_markets_and_the_terminals_keep_what_is_theirs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    declare_file(monkeypatch, tmp_path / "pools.toml", FILE)
    Terminal.objects.filter(name="guojin").update(drained=True)
    text = FILE.replace('"stocks"', '"shares"').replace('["SH", "SZ", "BJ"]', '["IF"]').replace('"IF,SF"', '"SH,SZ"')
    assert declare_file(monkeypatch, tmp_path / "pools.toml", text) is True
    pools = {pool.name: (pool.markets, [t.name for t in pool.terminals.all()]) for pool in Pool.objects.all()}
    assert pools == {"shares": ("IF", ["guojin", "guosheng"]), "futures": ("SH,SZ", ["yinhe"])}
    assert Terminal.objects.get(name="guojin").drained


def test_the_pool_that_was_made_by_itself_makes_way_for_one_of_another_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    declare.apply()
    text = '[[pools]]\nname = "stocks"\n[[pools.terminals]]\nname = "main"\naddress = "127.0.0.1:1"'
    assert declare_file(monkeypatch, tmp_path / "pools.toml", text) is True
    assert [(pool.name, [t.name for t in pool.terminals.all()]) for pool in Pool.objects.all()] == [("stocks", ["main"])]


def test_the_environment_names_the_terminals_of_main(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declare, "config", Config(terminals=("a=127.0.0.1:1", "b=127.0.0.1:2")))
    assert declare.apply() is True
    monkeypatch.setattr(declare, "config", Config(terminals=("b=127.0.0.1:3",)))
    assert declare.apply() is True
    assert list(Terminal.objects.values_list("name", "address", "declared")) == [("b", "127.0.0.1:3", True)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[pools", "is not TOML"),
        ("", "declares no pool"),
        ("pools = 3", "write each of its pools as a table"),
        ('[[pools]]\nstrategy = "random"', "has no name"),
        ('[[pools]]\nname = "a"\nstrateggy = "random"', "strateggy is not known; known are"),
        ('[[pools]]\nname = "a"\nstrategy = "best"', "pool a: "),
        ('[[pools]]\nname = "a"\nmin_size = 9', "larger than the most slots"),
        ('[[pools]]\nname = "a b"', "use letters, digits"),
        ('[[pools]]\nname = "a\\u0000"', "use letters, digits"),
        ('[[pools]]\nname = "a"\nmin_size = "two"', "pool a: "),
        ('[[pools]]\nname = "a"\nmax_size = inf', "pool a: "),
        ('[[pools]]\nname = "a"\nmarkets = 3', "'3' is not a market"),
        ('[[pools]]\nname = "a"\n[[pools.terminals]]\nname = "t"\nweight = [1]', "terminal t: "),
        ('[[pools]]\nname = "a"\n[[pools.terminals]]\nname = "t"\naddress = 58610', "terminal t: '58610' is not HOST:PORT"),
        ('[[pools]]\nname = "a"\n[[pools.terminals]]\nname = "t"\nrole = "second"', "terminal t: "),
        ('[[pools]]\nname = "a"\nmarkets = ["XX"]', "'XX' is not a market"),
        ('[[pools]]\nname = "a"\n[[pools]]\nname = "a"', "names the pool a twice"),
        ('[[pools]]\nname = "a"\n[[pools]]\nname = "b"', "pool a: the pool b serves all markets"),
        ('[[pools]]\nname = "a"\n[[pools.terminals]]\nname = "t"\naddress = "nowhere"', "terminal t: 'nowhere' is not HOST:PORT"),
        ('[[pools]]\nname = "a"\n[[pools.terminals]]\nname = "t"\nmaintenance = "5 am"', "terminal t: "),
        (
            '[[pools]]\nname = "a"\n[[pools.terminals]]\nname = "t"\n[[pools.terminals]]\nname = "t"',
            "names the terminal t twice",
        ),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, says: str
) -> None:
    declare_file(monkeypatch, tmp_path / "good.toml", FILE)
    with pytest.raises(DeclarationError) as failed:
        declare_file(monkeypatch, tmp_path / "bad.toml", text)
    assert says in str(failed.value)
    assert set(Pool.objects.values_list("name", flat=True)) == {"stocks", "futures"}


def test_a_file_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(declare, "config", Config(pools=tmp_path / "none.toml"))
    with pytest.raises(DeclarationError, match="cannot be read"):
        declare.apply()
