import pytest
from fuzz.overrides import run


@pytest.mark.slow
def test_every_set_of_overrides_builds_or_is_refused_in_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSL_LAB_CACHE", str(tmp_path / "cache"))
    counts, wanting = run(50, seed=1)
    assert not wanting, "\n\n".join(wanting)
    assert counts["built as a whole"] > 5
    assert sum(count for what, count in counts.items() if what.startswith("refused")) > 15
