"""What history counts."""

from prometheus_client import Counter

REQUESTS = Counter("argus_history_requests_total", "Symbols asked for, by the slowest tier of their bars", ["tier"])
REFUSED = Counter("argus_bars_refused_total", "Bars that a terminal sent and that were not stored", ["reason"])
