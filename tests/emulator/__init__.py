"""An emulated QMT terminal for tests: a process of its own, reached through the vendor's unmodified Python code."""

from tests.emulator.control import EmulatedTerminal, child_environment

__all__ = ["EmulatedTerminal", "child_environment"]
