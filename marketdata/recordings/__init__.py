"""A day's quotes on disk: recorded as they pass, read again as messages."""
