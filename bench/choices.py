"""What the fan-out costs where clients choose: filters, slower frequencies, and a second web process."""

from __future__ import annotations

from typing import Any

from bench.fan_out import measure_hub
from bench.load import PASSING
from bench.service import Service, say

FILTERS = 10


def filters(service: Service, connections: int, seconds: float) -> list[dict[str, Any]]:
    """One view for all without a filter, and ten with one: what a sweep costs the web process."""
    results = []
    for count in (1, FILTERS, connections):
        say(f"{connections:,} connections, {count:,} distinct filters")
        found = measure_hub(service, connections, None, seconds, 0, filters=count)
        results.append({"filters": count, "cpu_ms": found["web_cpu"] / found["sweeps"] * 1000, **found})
    return results


def frequencies(service: Service, connections: int, seconds: float) -> list[dict[str, Any]]:
    """Four sweeps per second, sent on as they come, and merged to one message per second and client."""
    results = []
    for frequency in ("realtime", "1s"):
        say(f"{connections:,} connections at {frequency}, four sweeps per second")
        found = measure_hub(service, connections, 50, seconds, 0.25, frequency=frequency)
        share = found["web_cpu"] / found["elapsed"]
        busiest = max(found["slots"]) / max(1, sum(found["slots"]))
        results.append({"frequency": frequency, "cpu_share": share, "busiest": busiest, **found})
    return results


def processes(service: Service, connections: int, seconds: float) -> dict[str, Any]:
    """What a quote costs one web process alone, and each of two that have as many connections each."""
    say(f"one web process, {connections:,} x 50 symbols")
    one = measure_hub(service, connections, 50, seconds, 0)
    say(f"two web processes, {connections:,} x 50 symbols each")
    two = measure_hub(service, 2 * connections, 50, seconds, 0, processes=2)
    return {"one": one, "two": two, "ratio": 2 * one["web_cpu_per_million"] / two["web_cpu_per_million"]}


def report_filters(results: list[dict[str, Any]]) -> list[str]:
    """The figures as a Markdown table."""
    lines = [
        f"| distinct filters, {PASSING} of 5,500 quotes pass each | web CPU, ms per sweep | CPU s per million |",
        "|---|---|---|",
    ]
    for one in results:
        lines.append(f"| {one['filters']:,} | **{one['cpu_ms']:.1f}** | {one['web_cpu_per_million']:.3f} |")
    return lines


def report_frequencies(results: list[dict[str, Any]]) -> list[str]:
    """The figures as a Markdown table."""
    lines = ["| frequency | web CPU | messages per second | of these in the busiest 50 ms of a second |", "|---|---|---|---|"]
    for one in results:
        messages = sum(one["slots"]) / one["elapsed"]
        lines.append(
            f"| {one['frequency']} | **{one['cpu_share'] * 100:.1f} %** | {messages:,.0f} | {one['busiest'] * 100:.1f} % |"
        )
    return lines


def report_processes(result: dict[str, Any]) -> list[str]:
    """The figures as a Markdown table."""
    lines = ["| web processes | CPU s per million: web, Redis | lost |", "|---|---|---|"]
    for name, one in (("one", result["one"]), ("two, together", result["two"])):
        lost = one["expected"] - one["quotes"]
        lines.append(f"| {name} | {one['web_cpu_per_million']:.3f}, {one['redis_cpu_per_million']:.3f} | {lost} |")
    return [*lines, "", f"Two processes carry **{result['ratio']:.2f} times** what one does, each on a processor of its own."]
