"""Supervised tasks on an encoder, one file each."""
