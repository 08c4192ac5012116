"""Data modules: raw samples, ignorant of methods."""
