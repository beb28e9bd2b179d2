"""A day's quotes and trades on disk: recorded as they pass, read again as messages."""
