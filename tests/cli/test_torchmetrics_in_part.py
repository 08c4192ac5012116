"""The part of torchmetrics that Lightning takes, and the whole of it as soon as more is asked for."""

import subprocess
import sys

PROGRAM = """
import sys
from ssl_lab.cli.torchmetrics_in_part import import_torchmetrics_in_part
import_torchmetrics_in_part()

import lightning
from lightning.pytorch.core import module as taken
HEAVY = ("torchmetrics.functional", "transformers", "torchvision", "scipy.signal")
print([name for name in HEAVY if name in sys.modules])

import torch
import torchmetrics
from torchmetrics.classification import MulticlassAccuracy
assert not hasattr(torchmetrics, "__no_such_name__")
accuracy = torchmetrics.MetricCollection([torchmetrics.Accuracy("multiclass", num_classes=3, average="micro")])
print(accuracy(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 2, 1])))
assert issubclass(MulticlassAccuracy, taken.Metric) and taken.Metric is torchmetrics.Metric
assert isinstance(accuracy, taken.MetricCollection) and torchmetrics.functional.accuracy
before = torchmetrics
import_torchmetrics_in_part()
assert sys.modules["torchmetrics"] is before
print(torchmetrics.__version__)
"""


def test_lightning_takes_a_part_and_anyone_else_the_whole():
    done = subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    heavy, accuracy, version = done.stdout.splitlines()
    assert heavy == "[]" and "0.7500" in accuracy and version[0].isdigit()


def test_a_package_that_is_imported_stays_as_it_is():
    import torchmetrics

    from ssl_lab.cli.torchmetrics_in_part import import_torchmetrics_in_part

    import_torchmetrics_in_part()
    assert sys.modules["torchmetrics"] is torchmetrics and torchmetrics.Metric.__name__ == "Metric"
