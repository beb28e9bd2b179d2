"""The child process over an emulated terminal: it connects to its terminal alone, hangs alone, and dies alone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from marketdata.sources.base import Capability, SourceTimeout, SourceUnavailable, State, Unsupported
from marketdata.sources.qmt.process import ZONE
from tests.emulator import EmulatedTerminal
from tests.emulator.control import ROOT
from tests.emulator.datacenter import LOCAL_SERVER_PORT
from tests.sources.conformance import PATIENCE, eventually, in_time
from tests.sources.qmt.conftest import Connect

CODE = "600000.SH"
LACKING = {
    Capability.QUOTES: ["get_full_tick"],
    Capability.BARS: ["get_market_data3"],
    Capability.INSTRUMENTS: ["get_instrument_detail"],
    Capability.SECTORS: ["get_sector_list"],
    Capability.TRADING_DATES: ["get_trading_dates_by_market"],
    Capability.PUSH: ["subscribe_whole_quote", "subscribe_quote tick"],
    Capability.TRADES: ["subscribe_quote l2transaction"],
}


def sitecustomize(directory: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python code that children run at their start, ahead of the stand-in's."""
    (directory / "sitecustomize.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(directory), os.environ["PYTHONPATH"]]))


class TestConnecting:
    def test_a_terminal_that_is_not_there_yet_is_found_when_it_comes(self, started: Connect, terminal: EmulatedTerminal) -> None:
        terminal.kill()
        source = started(terminal.address)
        eventually(lambda: "no terminal answers" in source.status().detail)
        with pytest.raises(SourceUnavailable):
            source.fetch_quotes(timeout=PATIENCE)
        child = source.pid
        terminal.start()
        eventually(lambda: source.status().state == State.UP)
        assert source.pid == child

    def test_the_vendors_own_code_lands_on_another_terminal(self, vendor, terminal: EmulatedTerminal) -> None:  # type: ignore[no-untyped-def]
        with EmulatedTerminal(name="other") as other:
            terminal.kill()
            script = f"""
try:
    xtdata.connect(port={terminal.port})
except Exception:
    pass
landed = [tag()]
xtdata.connect(port={terminal.port})
landed.append(tag())
show(landed)
"""
            landed, _ = vendor(script, **{LOCAL_SERVER_PORT: str(other.port)})
            assert landed == ["other", "other"], "silent cross-wiring: this is what our own connecting has to prevent"

    def test_it_never_lands_on_another_terminal(
        self, started: Connect, terminal: EmulatedTerminal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with EmulatedTerminal(name="other") as other:
            monkeypatch.setenv(LOCAL_SERVER_PORT, str(other.port))
            source = started(terminal.address)
            eventually(lambda: source.status().state == State.UP)
            assert source.status().version == "emulated emulated 1.0"
            terminal.kill()
            eventually(lambda: "no terminal answers" in source.status().detail)
            with pytest.raises(SourceUnavailable):
                source.fetch_quotes([CODE], timeout=PATIENCE)
            assert other.stats()["calls"] == []

    def test_a_wrong_peer_stops_the_child_until_it_is_right(self, started: Connect, terminal: EmulatedTerminal) -> None:
        terminal.set_mode(peer="127.0.0.1:1")
        source = started(terminal.address)
        eventually(lambda: source.status().restarts >= 1)
        eventually(lambda: f"asked for {terminal.address} and connected to 127.0.0.1:1" in source.status().detail)
        assert terminal.called("get_full_tick") == []
        terminal.set_mode(peer="")
        eventually(lambda: source.status().state == State.UP)

    def test_the_status_callback_tells_of_a_lost_connection(self, connected: Connect, terminal: EmulatedTerminal) -> None:
        source = connected(terminal.address)
        child, calls = source.pid, len(terminal.called("hello"))
        terminal.drop()
        eventually(lambda: len(terminal.called("hello")) == calls + 1 and source.status().state == State.UP)
        assert source.pid == child

    def test_a_terminal_that_accepts_and_never_answers_is_given_up(self, started: Connect, terminal: EmulatedTerminal) -> None:
        terminal.set_mode(frozen=True)
        source = started(terminal.address, timeout=1.0)
        eventually(lambda: source.status().restarts >= 1, what="the hanging child replaced")
        terminal.set_mode(frozen=False)
        eventually(lambda: source.status().state == State.UP)


class TestCalls:
    def test_a_hung_call_ends_at_its_deadline_and_nobody_else_feels_it(
        self, connected: Connect, terminal: EmulatedTerminal
    ) -> None:
        with EmulatedTerminal(name="other") as healthy:
            source, other = connected(terminal.address), connected(healthy.address, name="other")
            child, others = source.pid, other.pid
            terminal.set_mode(freeze_on=["get_full_tick"])
            with pytest.raises(SourceTimeout):
                source.fetch_quotes([CODE], timeout=0.5)
            assert other.fetch_quotes([CODE], timeout=PATIENCE).quotes
            terminal.set_mode(freeze_on=[])
            eventually(lambda: source.status().state == State.UP and source.pid not in (None, child))
            assert source.fetch_quotes([CODE], timeout=PATIENCE).quotes
            assert other.pid == others

    def test_a_call_that_waits_for_its_turn_too_long_harms_nobody(self, connected: Connect, terminal: EmulatedTerminal) -> None:
        source = connected(terminal.address)
        child = source.pid
        terminal.set_mode(latency=1.0)
        slow = threading.Thread(target=lambda: source.fetch_quotes([CODE], timeout=PATIENCE))
        asked = len(terminal.called("get_full_tick"))
        slow.start()
        eventually(lambda: len(terminal.called("get_full_tick")) > asked)
        with pytest.raises(SourceTimeout):
            source.fetch_quotes([CODE], timeout=0.05)
        slow.join(PATIENCE)
        assert source.pid == child

    def test_a_crash_of_the_compiled_part_fails_the_call_and_starts_a_new_child(
        self, connected: Connect, terminal: EmulatedTerminal
    ) -> None:
        source = connected(terminal.address)
        child = source.pid
        terminal.set_mode(freeze_on=["get_full_tick"])
        outcome: list[object] = []
        call = threading.Thread(target=lambda: outcome.append(in_time(lambda: source.fetch_quotes([CODE], timeout=PATIENCE))))
        asked = len(terminal.called("get_full_tick"))
        call.start()
        eventually(lambda: len(terminal.called("get_full_tick")) > asked)
        terminal.set_mode(freeze_on=[])
        terminal.crash_clients()
        call.join(PATIENCE)
        assert isinstance(outcome[0], SourceUnavailable)
        eventually(lambda: source.status().state == State.UP and source.pid != child)

    @pytest.mark.parametrize("lacking", LACKING, ids=str)
    def test_a_function_that_is_not_realized_is_unsupported_and_the_terminal_is_up(
        self, connected: Connect, terminal: EmulatedTerminal, lacking: Capability
    ) -> None:
        terminal.set_mode(missing=LACKING[lacking])
        source = connected(terminal.address)
        assert source.capabilities() == frozenset(Capability) - {lacking}

    def test_the_functions_that_one_brokers_terminal_lacked_are_not_needed(
        self, connected: Connect, terminal: EmulatedTerminal
    ) -> None:
        terminal.set_mode(
            missing=["downloadholidaydata", "getperiodlist", "getfullkline", "getopenclosetradetimebystock", "getallsubinfo"]
        )
        assert connected(terminal.address).capabilities() == frozenset(Capability)

    def test_asking_what_is_not_realized_says_so(self, connected: Connect, terminal: EmulatedTerminal) -> None:
        terminal.set_mode(missing=LACKING[Capability.TRADING_DATES])
        source = connected(terminal.address)
        with pytest.raises(Unsupported, match="get_trading_dates"):
            source.fetch_trading_dates("SH", timeout=PATIENCE)

    def test_a_function_that_fails_otherwise_is_no_reason_to_call_it_unsupported(
        self, connected: Connect, terminal: EmulatedTerminal
    ) -> None:
        terminal.set_mode(failing=["get_sector_list"])
        source = connected(terminal.address)
        assert Capability.SECTORS in source.capabilities()
        with pytest.raises(SourceUnavailable, match="the quote server does not answer"):
            source.fetch_sectors(timeout=PATIENCE)

    def test_without_sector_data_the_universe_is_refused_with_what_to_do(
        self, connected: Connect, terminal: EmulatedTerminal
    ) -> None:
        terminal.set_mode(no_sectors=True)
        with pytest.raises(SourceUnavailable, match="download the sector data"):
            connected(terminal.address).universe(timeout=PATIENCE)


class TestProcess:
    def test_only_the_child_has_the_vendors_package(self, connected: Connect, terminal: EmulatedTerminal) -> None:
        connected(terminal.address)
        assert [name for name in sys.modules if name.partition(".")[0] == "xtquant"] == []

    def test_the_child_runs_in_beijings_time(self, connected: Connect, terminal: EmulatedTerminal) -> None:
        source = connected(terminal.address)
        assert psutil.Process(source.pid).environ()["TZ"] == ZONE

    def test_a_child_in_another_zone_refuses_to_work(
        self, started: Connect, terminal: EmulatedTerminal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("marketdata.sources.qmt.process.ZONE", "UTC")
        source = started(terminal.address)
        eventually(lambda: "is not Beijing's time" in source.status().detail)

    def test_beijing_midnight_read_in_utc_is_the_previous_day(self, vendor) -> None:  # type: ignore[no-untyped-def]
        script = "show(xtdata.timetag_to_datetime(1754496000000, '%Y%m%d'))"
        assert vendor(script, TZ="UTC")[0] == "20250806"
        assert vendor(script, TZ=ZONE)[0] == "20250807"

    def test_importing_asks_no_package_index(
        self, started: Connect, terminal: EmulatedTerminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = tmp_path / "asked"
        (tmp_path / "requests.py").write_text(f"import pathlib\ndef get(*_, **__): pathlib.Path({str(asked)!r}).touch()\n")
        (tmp_path / "pkg_resources.py").write_text("class get_distribution:\n    version = ''\n    def __init__(self, _): pass\n")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
        subprocess.run([sys.executable, "-c", "import xtquant"], check=True, timeout=PATIENCE)
        assert asked.exists(), "the vendor's package does ask"
        asked.unlink()
        source = started(terminal.address)
        eventually(lambda: source.status().state == State.UP)
        assert not asked.exists()

    def test_what_the_vendor_prints_goes_to_the_log_and_breaks_nothing(
        self, connected: Connect, terminal: EmulatedTerminal, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = connected(terminal.address)
        terminal.print_in_clients("***** xtdata连接成功 *****\n")
        eventually(lambda: "xtdata连接成功" in caplog.text)
        assert source.fetch_quotes([CODE], timeout=PATIENCE).quotes

    def test_the_request_id_reaches_the_childs_log(
        self, connected: Connect, terminal: EmulatedTerminal, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        connected(terminal.address).fetch_quotes([CODE], timeout=PATIENCE, request_id="req-4711")
        eventually(lambda: "req-4711" in caplog.text)

    def test_the_child_ends_with_its_parent(self, terminal: EmulatedTerminal) -> None:
        script = f"""
import sys, time
from marketdata.sources.qmt.source import QmtSource
source = QmtSource(name="main", address={terminal.address!r}, timeout=30)
source.start()
source.universe(timeout=30)
print(source.pid, file=sys.stderr, flush=True)
sys.stdin.read()
"""
        # Its log goes to standard output, from several threads; standard error is the test's own.
        parent = subprocess.Popen(
            [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        with parent:
            assert parent.stderr is not None
            child = int(parent.stderr.readline())
            assert psutil.pid_exists(child)
            parent.kill()
        eventually(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)

    def test_without_the_package_it_says_what_to_install(
        self, started: Connect, terminal: EmulatedTerminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        blocker = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == "xtquant":
            raise ModuleNotFoundError("no", name=name)
sys.meta_path.insert(0, Blocker())
"""
        sitecustomize(tmp_path, blocker, monkeypatch)
        source = started(terminal.address)
        with pytest.raises(Unsupported, match=r"xtquant is not installed.*pip install -r requirements-qmt\.txt"):
            source.fetch_quotes(timeout=PATIENCE)
        assert (source.status().state, source.status().restarts) == (State.DOWN, 0)
        assert source.capabilities() == frozenset()

    @pytest.mark.skipif(sys.platform == "win32", reason="there the package has its compiled part")
    def test_where_the_compiled_part_does_not_exist_it_says_so(self, started: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PYTHONPATH")
        source = started("127.0.0.1:1")
        eventually(lambda: "made for Windows" in source.status().detail)
        with pytest.raises(Unsupported):
            source.universe(timeout=PATIENCE)

    def test_closing_is_quick_even_while_the_terminal_hangs(self, connected: Connect, terminal: EmulatedTerminal) -> None:
        source = connected(terminal.address)
        child = source.pid
        terminal.set_mode(frozen=True)
        call = threading.Thread(target=lambda: in_time(lambda: source.fetch_quotes(timeout=PATIENCE)))
        call.start()
        began = time.monotonic()
        source.close()
        assert time.monotonic() - began < PATIENCE / 2
        call.join(PATIENCE)
        assert child is not None
        eventually(lambda: not psutil.pid_exists(child))
