"""What history counts and times."""

from prometheus_client import Counter, Histogram

REQUESTS = Counter("argus_history_requests_total", "Symbols asked for, by the slowest tier of their bars", ["tier"])
FETCHES = Counter("argus_fetch_total", "Fetches from a terminal by outcome", ["terminal", "outcome"])
FETCH_SECONDS = Histogram("argus_fetch_seconds", "How long a fetch took, from asking the worker to its answer", ["terminal"])
REFUSED = Counter("argus_bars_refused_total", "Bars that a terminal sent and that were not stored", ["reason"])
