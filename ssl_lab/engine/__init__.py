"""The training and evaluation loop around a method."""
