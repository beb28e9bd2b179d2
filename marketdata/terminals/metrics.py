"""What asking terminals counts and times."""

from prometheus_client import Counter, Gauge, Histogram

FETCHES = Counter("argus_fetch_total", "Requests to a terminal by outcome", ["terminal", "outcome"])
FETCH_SECONDS = Histogram("argus_fetch_seconds", "How long a terminal took, from asking its worker to the answer", ["terminal"])
QUEUE_SECONDS = Histogram(
    "argus_terminal_queue_seconds",
    "How long a request waited for one of a terminal's slots",
    ["terminal", "priority"],
    buckets=(0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
HEDGES = Counter("argus_terminal_hedges_total", "Requests for which a second terminal was asked as well", ["terminal", "outcome"])
IN_FLIGHT = Gauge("argus_terminal_in_flight", "Requests that a terminal is being asked", ["terminal"])
WAITING = Gauge("argus_terminal_waiting", "Requests that wait for one of a terminal's slots", ["terminal"])
SLOTS = Gauge("argus_terminal_slots", "Requests that a terminal may be asked at a time", ["terminal"])
BREAKER = Gauge("argus_terminal_breaker", "A terminal's breaker: 0 closed, 1 half open, 2 open", ["terminal"])


def forget_terminal(terminal: str) -> None:
    """There is no such terminal any more; its gauges go with its line."""
    for metric in (FETCHES, FETCH_SECONDS, QUEUE_SECONDS, HEDGES):
        metric.remove_by_labels({"terminal": terminal})
