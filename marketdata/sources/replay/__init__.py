"""Recorded sessions as a source: a reader per file format, one timeline, one clock."""
