"""Callbacks that act beside the training steps."""
