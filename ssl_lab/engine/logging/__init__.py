"""Loggers, dashboards and the text log."""
