"""The Slurm of tests/cluster/slurm.py for every test here."""

from cluster.slurm import _cluster, slurm  # noqa: F401
