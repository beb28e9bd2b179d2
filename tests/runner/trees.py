"""Copies of the project to run ``run.py`` in: a tiny one that really sets itself up, and a whole one that is set up already."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

from argus import launch

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv*", "var", "__pycache__", ".*_cache", ".hypothesis", "node_modules", "bench")

# -S: without the tests' own site-packages, as on a machine where nothing but Python is installed.
RUN = [sys.executable, "-S", "run.py"]

MANAGE = """\
import json, os, signal, sys, time

if sys.argv[1:2] == ["wait"]:
    def leave(number, frame):
        print("got", signal.Signals(number).name, flush=True)
        sys.exit(7)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    print("waiting", os.getpid(), flush=True)
    while True:
        time.sleep(0.01)
import tiny
print(json.dumps({"arguments": sys.argv[1:], "tiny": tiny.VERSION, "prefix": sys.prefix, "utf8": sys.flags.utf8_mode}))
sys.exit(int(sys.argv[-1]) if sys.argv[-1].isdigit() else 0)
"""


def environment(**settings: str) -> dict[str, str]:
    """The shell's environment without our settings."""
    ours = ("ARGUS_", "PYTHONUTF8", "DJANGO_SETTINGS_MODULE", "REDIS_URL", "DATABASE_URL", "COVERAGE")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | settings


def run(tree: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """``run.py`` in the tree, to its end."""
    return subprocess.run([*RUN, *arguments], cwd=tree, env=environment(**settings), capture_output=True, text=True, timeout=120)


def wheel(directory: Path, version: str) -> str:
    """A requirement line for a package ``tiny`` that exists nowhere but here, with a stand-in for pytest inside."""
    path = directory / f"tiny-{version}-py3-none-any.whl"
    files = {
        "tiny.py": f"VERSION = {version!r}\n",
        "pytest/__init__.py": "",
        "pytest/__main__.py": "import json, os, sys\nprint(json.dumps([sys.argv[1:], os.getcwd()]))\nsys.exit(5)\n",
        f"tiny-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n",
        f"tiny-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"tiny-{version}.dist-info/RECORD"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr(record, "".join(f"{name},,\n" for name in (*files, record)))
    return f"tiny @ {path.as_uri()}\n"


def tiny_tree(directory: Path) -> Path:
    """The project's own ``run.py``, around almost nothing."""
    tree = directory / "tiny tree"  # A space, as in many people's paths.
    (tree / "argus").mkdir(parents=True)
    for name in ("run.py", "argus/__init__.py", "argus/cli.py", "argus/launch.py"):
        shutil.copy(ROOT / name, tree / name)
    (tree / "manage.py").write_text(MANAGE)
    (tree / launch.BASE).write_text(wheel(directory, "1.0"))
    (tree / launch.QMT).write_text("# nothing more\n")
    (tree / launch.DEV).write_text("# nothing more\n")
    return tree


def whole_tree(directory: Path) -> Path:
    """The whole project in a folder of its own, set up: its environment sees the packages of the one that runs the tests."""
    tree = directory / "argus"
    shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
    venv.create(tree / ".venv", symlinks=os.name != "nt")
    scheme = {"base": str(tree / ".venv"), "platbase": str(tree / ".venv")}
    here = Path(sysconfig.get_path("purelib", vars=scheme))
    (here / "tests.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))
    setup = launch.Setup([launch.BASE])
    stamp = {"python": setup.version, "files": setup.wanted}
    (tree / ".venv" / launch.STAMP.name).write_text(json.dumps(stamp))
    return tree
