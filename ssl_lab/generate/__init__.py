"""Samples of a trained method: texts and image files."""
