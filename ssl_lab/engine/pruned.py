"""The end of a run that a study has given up."""


class PrunedRunError(RuntimeError):
    """The study's pruner ended the run: its objective is behind that of other trials."""

    status = "pruned"
