import datasets
import pytest


@pytest.fixture(autouse=True)
def private_caches(tmp_path_factory, monkeypatch):
    """Nothing is read from or written to the caches of the user."""
    folder = tmp_path_factory.mktemp("caches")
    monkeypatch.setenv("SSL_LAB_CACHE", str(folder / "ssl_lab"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "hf" / "datasets")
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", folder / "hf" / "downloads")
    monkeypatch.setattr(datasets.config, "EXTRACTED_DATASETS_PATH", folder / "hf" / "extracted")
    datasets.disable_progress_bars()
