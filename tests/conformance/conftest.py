"""Both servers as real processes, without any source behind them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.peer import LARGEST, Server
from tests.e2e.service import Service, call, free_port, get, wait_for


@pytest.fixture(scope="package", params=["uvicorn", "daphne"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One of the two. Its clients have a flow of heartbeats, and little time for what they owe."""
    settings = {"ARGUS_SEND_TIMEOUT": "1", "ARGUS_HEARTBEAT_INTERVAL": "0.05", "ARGUS_MAX_MESSAGE_SIZE": str(LARGEST)}
    service = Service(tmp_path_factory.mktemp(request.param), ARGUS_AUTH_TIMEOUT="60", **settings)
    key = service.install_with_key()
    port = free_port()
    service.start("web", "-m", "tests.conformance.target", request.param, str(port))
    try:
        live = wait_for(lambda: call("GET", port, "/health/live")[0] == 200, f"{request.param}:\n{service.log('web')}")
        assert live
        yield Server(port, lambda: service.log("web"))
        gone = "argus_stream_connections 0.0"
        wait_for(lambda: gone in get(port, "/metrics", key)[1], "nothing to be left of the clients", 20)
        assert "Traceback" not in service.log("web"), service.log("web")[-6000:]
    finally:
        service.close()
