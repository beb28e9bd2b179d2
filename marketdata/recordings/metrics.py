"""What the recorder counts."""

from prometheus_client import Counter

RECORDED = Counter("argus_recorder_quotes_total", "Quotes written to a recording", ["feed"])
DROPPED = Counter("argus_recorder_dropped_total", "Quotes that passed and could not be recorded", ["feed"])
