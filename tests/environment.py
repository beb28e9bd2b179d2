"""Loaded before pytest-django reads the settings: the tests' own environment, whatever the shell's is."""

import os
import tempfile

for name in [name for name in os.environ if name.startswith("ARGUS_") and not name.startswith("ARGUS_TEST_")]:
    del os.environ[name]
for name in ("REDIS_URL", "DATABASE_URL"):
    os.environ.pop(name, None)
os.environ["ARGUS_DATA_DIR"] = tempfile.mkdtemp(prefix="argus-test-")
os.environ["ARGUS_LOG_FILE"] = "false"
# Where the PostgreSQL of the tests keeps its sockets; not every machine has one set.
os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="argus-run-"))
