"""Pictures of a run, as pixels."""
