"""Geometry of features: rank, spread, disentanglement."""
