"""The set-up behind ``run.py``: a virtual environment with the pinned packages, then the command is handed over to it.

Standard library only, like all that it imports: it runs where nothing is installed yet.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from argus import cli

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
STAMP = VENV / "argus-setup.json"
BASE, QMT, DEV = "requirements.txt", "requirements-qmt.txt", "requirements-dev.txt"

HELP = """\
Argus: market data from QMT terminals, for everything else.

  python3 run.py up [options]        set up what is missing, then run the whole service on port 8001
  python3 run.py test [options]      set up what is missing, then run every test and check (options are pytest's)
  python3 run.py manage COMMAND ...  any of Django's and Argus' own commands

examples:
  python3 run.py up                                    the simulated market
  python3 run.py up --help                             all its options
  python3 run.py up --source qmt --terminal 192.168.1.20:58610
  python3 run.py test -k protocol -x                   some tests only, stop at the first failure
  python3 run.py manage create_key "my strategy"       one more API key

Everything is kept in this folder: packages in .venv, data and logs in var. Delete the two to start anew.
"""


def say(line: str) -> None:
    """One line of progress."""
    print(f"argus: {line}", flush=True)


def refuse(line: str) -> NoReturn:
    """End with one line that says what is wrong and what to do."""
    sys.exit(f"argus: {line}")


class Setup:
    """The virtual environment with what the given requirement files ask for; it is touched only when something changed."""

    def __init__(self, wanted: Sequence[str]) -> None:
        self.wanted = {name: hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in wanted}
        self.version = "{}.{}.{}".format(*sys.version_info[:3])

    def installed(self) -> dict[str, str] | None:
        """Requirement file -> the hash with which it was installed; None if there is no environment that can be used."""
        try:
            stamp = json.loads(STAMP.read_text(encoding="ascii"))
            usable = stamp["python"] == self.version and PYTHON.exists()
            return dict(stamp["files"]) if usable else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def complete(self) -> bool:
        """Nothing to do."""
        installed = self.installed()
        return installed is not None and self.wanted.items() <= installed.items()

    def obstacle(self) -> str:
        """Why the set-up cannot be done here; empty if it can."""
        missing = next((name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None), "")
        if missing:
            package = "python{}.{}-venv".format(*sys.version_info[:2])
            return (
                f"this Python has no module {missing}; install it (Debian, Ubuntu: sudo apt install {package}) and run this again"
            )
        try:
            with tempfile.TemporaryFile(dir=VENV if VENV.is_dir() else ROOT):
                return ""
        except OSError as error:
            return f"the folder {ROOT} cannot be written ({error.strerror}); make it writable, or copy Argus to a folder of yours"

    def run(self) -> None:
        """Make the environment, or bring it up to date."""
        started = time.monotonic()
        with self._alone():
            if self.complete():
                return
            installed = self.installed()
            files = dict(self.wanted)
            if installed is None:
                say(f"making a virtual environment for Python {self.version} in .venv ...")
                self._make()
            else:
                STAMP.unlink()
                # What was installed for another command (the tests, say) is kept up to date too.
                others = [name for name in installed if name not in files and (ROOT / name).exists()]
                files |= Setup(others).wanted
            self._install(list(files))
            STAMP.write_text(json.dumps({"python": self.version, "files": files}, indent=1), encoding="ascii")
        say(f"set up in {time.monotonic() - started:.0f} s.")

    def _make(self) -> None:
        shutil.rmtree(VENV, ignore_errors=True)
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], capture_output=True, text=True, check=False)
        if made.returncode != 0:
            print(made.stdout, made.stderr, file=sys.stderr)
            refuse("the virtual environment could not be made (see above); delete the folder .venv and run this again")

    def _install(self, files: Sequence[str]) -> None:
        lines = [line for name in files for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
        total = len({line.partition("==")[0] for line in lines if "==" in line})
        say(f"installing about {total} packages; the first time this takes a few minutes ...")
        command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--prefer-binary"]
        for name in files:
            command += ["-r", str(ROOT / name)]
        pip = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace")
        assert pip.stdout is not None
        tail: deque[str] = deque(maxlen=15)
        collected = 0
        for line in pip.stdout:
            tail.append(line)
            if line.startswith(("Collecting ", "Requirement already satisfied")):
                collected += 1
                if collected % 10 == 0:
                    say(f"  {collected} of about {total} ...")
            elif line.startswith("Installing collected packages"):
                say("  unpacking ...")
        if pip.wait() != 0:
            sys.stderr.writelines(tail)
            refuse("the packages could not be installed (see above); check the network or the proxy and run this again")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Another ``run.py`` in this folder may be setting up as well: one after the other."""
        with (ROOT / ".venv.lock").open("ab") as file:
            if sys.platform == "win32":
                import msvcrt

                while True:
                    with contextlib.suppress(OSError):  # LK_LOCK gives up after ten seconds; the other may take minutes.
                        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                        break
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def hand_over(arguments: Sequence[str]) -> int:
    """Become the environment's Python: same process, same signals, same exit code; on Windows its parent."""
    command = [str(PYTHON), *arguments]
    # Consoles that are not UTF-8 (Windows, LANG=C) could not show Chinese.
    environment = {**os.environ, "PYTHONUTF8": "1"}
    sys.stdout.flush()
    if sys.platform != "win32":
        os.execve(command[0], command, environment)
    # Ctrl-C and Ctrl-Break reach every process of the console: the child ends itself, and we wait for its exit code.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGBREAK, signal.SIG_IGN)
    return subprocess.run(command, env=environment, check=False).returncode


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    command, *rest = arguments or ["--help"]
    if command in {"-h", "--help", "help"}:
        print(HELP, end="")
        return 0
    if command not in {"up", "test", "manage"}:
        refuse(f"there is no command {command!r}; see: python3 run.py --help")
    settings: dict[str, str] = {}
    if command == "up":
        settings = cli.prepare("up", rest, program="python3 run.py")
    files = [BASE]
    if command == "test" or {**os.environ, **settings}.get("ARGUS_SOURCE") == "qmt":
        files.append(QMT)
    if command == "test":
        files.append(DEV)
    setup = Setup(files)
    if not setup.complete():
        if obstacle := setup.obstacle():
            refuse(obstacle)
        setup.run()
    if command == "test":
        os.chdir(ROOT)
        # One worker more than there are processors, as whole services wait about as long as they compute; a module's tests stay
        # together, for the servers that they share.
        workers = str((os.cpu_count() or 1) + 1)
        # A test that hangs ends the run after eleven minutes; one that is to take longer does so on purpose.
        patience = ["-o", "faulthandler_timeout=3000"] if "--soak" in rest else []
        return hand_over(["-m", "pytest", "-n", workers, "--dist", "loadscope", "--no-loadscope-reorder", *patience, *rest])
    return hand_over([str(ROOT / "manage.py"), *((command, *rest) if command == "up" else rest)])
