"""run.log holds warnings and errors, and stays small."""

import logging
import warnings

import pytest

from ssl_lab.engine.logging.text_log import LOG, text_log


def test_warnings_and_errors_are_written_and_shown(tmp_path, capsys):
    shown, handlers = warnings.showwarning, list(logging.root.handlers)
    with pytest.raises(ValueError), warnings.catch_warnings():
        warnings.simplefilter("always")
        with text_log(tmp_path):
            LOG.info("step 3: eval/knn/top1 0.5")
            warnings.warn("features have collapsed", stacklevel=1)
            logging.getLogger("some.library").warning("retrying")
            raise ValueError("no such thing")
    text = (tmp_path / "run.log").read_text()
    for part in ("eval/knn/top1 0.5", "UserWarning: features have collapsed", "WARNING retrying", "Traceback"):
        assert text.count(part) == 1, part
    assert "ValueError: no such thing" in text and "has finished" not in text
    assert warnings.showwarning is shown and logging.root.handlers == handlers and not LOG.level


def test_it_rotates(tmp_path):
    with text_log(tmp_path, max_bytes=2000, num_old=2):
        for step in range(1000):
            LOG.info("step %d: nothing new", step)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["run.log", "run.log.1", "run.log.2"]
    assert all(path.stat().st_size <= 2000 for path in tmp_path.iterdir())
    assert "has finished" in (tmp_path / "run.log").read_text()
