"""A run on a CPU is evaluated twice, by the number of epochs that it has, and without labels by what needs none."""

import pytest
from omegaconf import OmegaConf

from ssl_lab.cli.defaults import labels
from ssl_lab.cli.defaults.cadence import of_length
from ssl_lab.cli.defaults.facts import Facts
from ssl_lab.modalities.image import ImageSpec


@pytest.mark.parametrize(
    ("device", "epochs", "every"), [("cpu", 7, ["4"]), ("cpu", 1, ["1"]), ("cpu", -1, []), ("cuda", 7, [])]
)
def test_half_of_the_epochs(device, epochs, every):
    facts = Facts(spec=ImageSpec(shape=(1, 8, 8)), num_samples=100, labelled=True, device=device)
    found = of_length(facts, OmegaConf.create({"trainer": {"max_epochs": epochs}}), 10)
    assert [choice.override for choice in found] == [f"evaluate_every_n_epochs={each}" for each in every]


@pytest.mark.parametrize(
    ("labelled", "protocols", "found"),
    [(False, ["knn", "linear", "few_label"], 1), (True, ["knn", "linear", "few_label"], 0), (False, ["elbo"], 0)],
)
def test_probes_need_labels(labelled, protocols, found):
    facts = Facts(spec=ImageSpec(shape=(1, 8, 8)), num_samples=100, labelled=labelled, device="cpu")
    cfg = OmegaConf.create({"evaluation": dict.fromkeys(protocols, {})})
    assert [choice.override for choice in labels.of_data(facts, cfg)] == ["evaluation=label_free"] * found
