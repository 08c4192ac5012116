"""Evaluation, pictures and saving: values that refuse what is no cadence."""

import pytest

from ssl_lab.engine.callbacks.evaluation import Evaluation
from ssl_lab.engine.callbacks.pictures import Pictures
from ssl_lab.engine.checkpoints.saving import Saving

WRONG = [
    (Evaluation, {"every_n_epochs": 0}, "evaluate_every_n_epochs=0. Set it to 1 or more."),
    (Evaluation, {"every_n_epochs": None}, "evaluate_every_n_epochs=null. Set it to 1 or more."),
    (Evaluation, {"max_train_samples": 0}, "evaluate_max_train_samples=0. Set it to 1 or more, or to null for all"),
    (Pictures, {"every_n_epochs": 0}, "pictures_every_n_epochs=0. Set it to 1 or more, or to null for no pictures."),
    (Saving, {"every_n_minutes": -1.0}, "save_every_n_minutes=-1.0. Set it to 0 or more."),
    (Saving, {"every_n_minutes": float("nan")}, "save_every_n_minutes=nan. Set it to 0 or more."),
    (Saving, {"every_n_minutes": None}, "save_every_n_minutes=null. Set it to 0 or more."),
    (Saving, {"every_n_steps": -2}, "save_every_n_steps=-2. Set it to 1 or more, or to null for saving by time alone."),
]


@pytest.mark.parametrize(("value", "settings", "told"), WRONG)
def test_what_is_no_cadence_is_refused_by_its_setting(value, settings, told):
    with pytest.raises(ValueError) as caught:
        value(**settings)
    assert str(caught.value).startswith(f"Cannot use {told}")


def test_the_least_cadences_are_fine():
    Evaluation(every_n_epochs=1, max_train_samples=1)
    Evaluation(max_train_samples=None)
    Pictures(every_n_epochs=None)
    Saving(every_n_minutes=0, every_n_steps=1)
