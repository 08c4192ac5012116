"""Supervised tasks on top of a text encoder."""
