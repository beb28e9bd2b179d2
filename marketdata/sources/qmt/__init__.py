"""The QMT source: the vendor's client in a child process, and what owns that process."""
