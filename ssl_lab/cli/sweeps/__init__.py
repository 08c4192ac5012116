"""Sweeps: grids, Optuna studies, Slurm."""
