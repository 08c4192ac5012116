"""Encoders: one network family per file."""
