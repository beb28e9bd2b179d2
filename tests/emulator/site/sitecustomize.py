"""Gives the vendor's package its compiled module where there is none: the stand-in that talks to an emulated terminal.

Python imports this file at its start where its folder is on PYTHONPATH (``tests.emulator.child_environment``), so the
code under test has no hook of any kind.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any


class _StandIn:
    """Finds ``xtquant.datacenter`` in ``tests/emulator/datacenter.py``, ahead of everybody."""

    def find_spec(self, name: str, _path: Any = None, _target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "xtquant.datacenter":
            return None
        return spec_from_file_location(name, Path(__file__).parent.parent / "datacenter.py")


sys.meta_path.insert(0, _StandIn())
