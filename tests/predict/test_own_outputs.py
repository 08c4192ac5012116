import numpy as np
import pytest

from ssl_lab.predict.outputs import holds_features, holds_predictions


@pytest.mark.parametrize("head", ["text,translation", "question,text,answer", "words,tags", "text,score,similarity"])
def test_a_table_to_learn_from_is_no_table_of_predictions(head, tmp_path):
    (tmp_path / "mine.csv").write_text(f"{head}\n")
    (tmp_path / "ours.csv").write_text("path,prediction,probability\n")
    assert not holds_predictions(tmp_path / "mine.csv") and holds_predictions(tmp_path / "ours.csv")


def test_images_beside_rows_are_no_features(tmp_path):
    for name, array in {"images": np.zeros((2, 8, 8), np.uint8), "features": np.zeros((2, 8), np.float32)}.items():
        np.save(tmp_path / f"{name}.npy", array)
        (tmp_path / f"{name}.rows.csv").write_text("path,label\n")
    assert not holds_features(tmp_path / "images.npy") and holds_features(tmp_path / "features.npy")
