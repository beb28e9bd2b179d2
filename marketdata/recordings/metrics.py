"""What the recorder counts."""

from prometheus_client import Counter

from marketdata.types import DataType

RECORDED = {
    DataType.QUOTE: Counter("argus_recorder_quotes_total", "Quotes written to a recording", ["feed"]),
    DataType.TRADE: Counter("argus_recorder_trades_total", "Trades written to a recording", ["feed"]),
}
DROPPED = Counter("argus_recorder_dropped_total", "Quotes and trades that passed and could not be recorded", ["feed"])
