"""The launcher ``hydra/launcher=slurm``; it lies where Hydra looks for launchers.

Submission and the start of a trial inside its job are submitit's, by hydra-submitit-launcher (the extra ``slurm``). What
is ours is how the end is told: by Slurm's queue and the runs' summaries, so that a failed trial does not end the sweep,
a killed one is noticed without accounting, and a finished one needs no job.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn

if find_spec("hydra_plugins.hydra_submitit_launcher"):
    from hydra_plugins.hydra_submitit_launcher import submitit_launcher

    class SlurmLauncher(submitit_launcher.SlurmLauncher):
        """Submits the trials of a sweep as one job array, waits for them, and tells how they have ended.

        Args:
            wait: Wait until all trials have ended; False returns when the jobs are queued.
            params: What to ask Slurm for, by the names of conf/hydra/launcher/slurm.yaml.
        """

        def __init__(self, *, wait: bool, **params: Any) -> None:
            super().__init__(**params)
            self.wait = wait

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            """Run the trials that have not finished yet, and return what has become of all."""
            from ssl_lab.cli.sweeps import slurm

            trials = slurm.plan(self.config, self.hydra_context, job_overrides, initial_job_idx)
            todo = [trial for trial in trials if slurm.needs_job(trial)]
            if todo:
                params = {**self.params, **slurm.resources(self.config.trainer, self.params)}
                slurm.submit(self, todo, params, Singleton.get_state())
            if self.wait:
                slurm.wait_for(todo)
            return slurm.returns(trials)

        def __call__(self, *args: Any) -> JobReturn:
            """Run one trial inside its job."""
            from ssl_lab.cli.sweeps import slurm

            returned = super().__call__(*args)
            slurm.conclude(returned)
            return returned
