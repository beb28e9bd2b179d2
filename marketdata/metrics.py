"""What the way from a source to the channel layer counts."""

from prometheus_client import Counter, Gauge, Histogram

QUOTES = Counter("argus_feed_quotes_total", "Quotes by what became of them", ["feed", "outcome"])
PARSE_ERRORS = Counter("argus_parse_errors_total", "Raw records that did not become a quote", ["terminal", "reason"])
POLLS = Counter("argus_polls_total", "Polls of a terminal by outcome", ["terminal", "outcome"])
POLL_SECONDS = Histogram("argus_poll_seconds", "How long a poll's call to the source took", ["terminal"])
BAR_QUOTES = Counter("argus_bar_quotes_total", "Quotes that bars could not take in as they came, by why", ["terminal", "reason"])
BARS_PUBLISHED = Counter(
    "argus_bars_published_total", "Bars that were published; state: closed or forming", ["feed", "period", "state"]
)
BARS_WANTED = Gauge("argus_bars_wanted", "Symbols of which some client wants bars of a period", ["terminal", "period"])
RECONCILIATIONS = Counter(
    "argus_bar_reconciliations_total", "Comparisons of live bars with the terminal's own, by outcome", ["terminal", "outcome"]
)
EVENTS_PUBLISHED = Counter(
    "argus_events_published_total",
    "Closed bars, trades and changes of status that were published",
    ["feed", "type"],
)
EVENTS_DROPPED = Counter("argus_events_dropped_total", "Own events that nobody has published and that had to be let go", ["feed"])
JOURNAL_FAILURES = Counter(
    "argus_journal_failures_total", "Messages that the journal did not take, by why: refused or unavailable", ["feed", "reason"]
)
JOURNAL_BYTES = Gauge("argus_journal_bytes", "About what the journal keeps of a feed, as its publisher counts it", ["feed"])
PUBLISH_FAILURES = Counter("argus_publish_failures_total", "Messages that the channel layer did not take", ["feed"])
QUEUE_DEPTH = Gauge("argus_feed_queue_depth", "Parsed batches waiting between a source and its publisher", ["terminal"])
ACTIVE = Gauge("argus_feed_active", "1 where this process publishes the feed, 0 where it stands by", ["feed", "terminal"])
PENDING = Gauge("argus_feed_pending", "Own quotes that nobody has published yet", ["feed", "terminal"])
EVENTS_PENDING = Gauge("argus_events_pending", "Own events that nobody has published yet", ["feed", "terminal"])
TRADES = Counter("argus_feed_trades_total", "Trades by what became of them: accepted or duplicates", ["feed", "outcome"])
TERMS = Counter(
    "argus_feed_terms_total", "Terms begun here, by outcome: recovered, or why something may be missing", ["feed", "outcome"]
)
REFERENCE_STEPS = Counter(
    "argus_reference_steps_total", "Steps of the refresh of reference data by outcome", ["terminal", "step", "outcome"]
)
CALENDAR_CONFLICTS = Gauge(
    "argus_calendar_conflicts", "Days of the built-in calendar that the source tells otherwise", ["market"]
)

_OF_FEEDS = (QUEUE_DEPTH, ACTIVE, PENDING, EVENTS_PENDING, BARS_WANTED)
_OF_TERMINALS = (*_OF_FEEDS, PARSE_ERRORS, POLLS, POLL_SECONDS, BAR_QUOTES, RECONCILIATIONS, REFERENCE_STEPS)
_OF_POOLS = (
    QUOTES,
    TRADES,
    BARS_PUBLISHED,
    EVENTS_PUBLISHED,
    EVENTS_DROPPED,
    JOURNAL_FAILURES,
    JOURNAL_BYTES,
    PUBLISH_FAILURES,
    TERMS,
)


def forget_feed(terminal: str) -> None:
    """A terminal's feed does not run here any more: nobody is to read how it last was."""
    for gauge in _OF_FEEDS:
        gauge.remove_by_labels({"terminal": terminal})


def forget_terminal(terminal: str) -> None:
    """There is no such terminal any more."""
    for metric in _OF_TERMINALS:
        metric.remove_by_labels({"terminal": terminal})


def forget_pool(pool: str) -> None:
    """There is no such pool any more."""
    for metric in _OF_POOLS:
        metric.remove_by_labels({"feed": pool})
