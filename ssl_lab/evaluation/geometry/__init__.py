"""How features lie in space: rank, spread, disentanglement."""
