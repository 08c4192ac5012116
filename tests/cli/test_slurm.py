"""What the Slurm launcher decides before it asks Slurm; tests/cluster runs it."""

import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from ssl_lab.cli import slurm


@pytest.mark.parametrize(
    ("accelerator", "devices", "gpus", "tasks", "gpus_asked"),
    [
        ("cpu", 2, None, 2, None),
        ("gpu", 4, None, 4, 4),
        ("gpu", [0, 1], None, 2, 2),
        ("gpu", "auto", 8, 8, 8),
        ("auto", "auto", None, 1, None),
        ("auto", -1, 2, 2, 2),
    ],
)
def test_a_node_runs_a_task_for_each_device(accelerator, devices, gpus, tasks, gpus_asked):
    trainer = OmegaConf.create({"accelerator": accelerator})
    found = slurm.resources(trainer, {"tasks_per_node": devices, "gpus_per_node": gpus})
    assert found == {"tasks_per_node": tasks, "gpus_per_node": gpus_asked}


def test_all_gpus_of_a_job_need_a_number():
    trainer = OmegaConf.create({"accelerator": "gpu"})
    with pytest.raises(ValueError, match="Set hydra.launcher.gpus_per_node"):
        slurm.resources(trainer, {"tasks_per_node": "auto", "gpus_per_node": None})


def test_a_machine_without_slurm_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="there is no srun here"):
        slurm.submit(print, [], {"submitit_folder": str(tmp_path / "%j"), "timeout_min": 60}, None)


def test_without_the_extra_one_line_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['hydra_plugins.hydra_submitit_launcher'] = None; from ssl_lab.cli.main import main; "
        "sys.exit(main(['pretrain', '-m', 'seed=1,2', 'hydra/launcher=slurm']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr.startswith("ssl-lab: hydra/launcher=slurm needs hydra-submitit-launcher")
    assert "pip install 'ssl_lab[slurm]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
