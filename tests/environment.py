"""Loaded before pytest-django reads the settings: the tests' own environment, whatever the shell's is."""

import atexit
import os
import shutil
import tempfile


def folder(prefix: str) -> str:
    """One that goes with this process."""
    made = tempfile.mkdtemp(prefix=prefix)
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


for name in [name for name in os.environ if name.startswith("ARGUS_") and not name.startswith("ARGUS_TEST_")]:
    del os.environ[name]
# Without bytecode each of the hundreds of processes that tests start compiles the whole of Argus again.
for name in ("REDIS_URL", "DATABASE_URL", "PYTHONDONTWRITEBYTECODE"):
    os.environ.pop(name, None)
os.environ["ARGUS_DATA_DIR"] = folder("argus-test-")
os.environ["ARGUS_LOG_FILE"] = "false"
# Where the PostgreSQL of the tests keeps its sockets; not every machine has one set.
if "XDG_RUNTIME_DIR" not in os.environ:
    os.environ["XDG_RUNTIME_DIR"] = folder("argus-run-")
