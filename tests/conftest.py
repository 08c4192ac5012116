import os

import pytest


@pytest.fixture(autouse=True)
def own_environment():
    """What a test leaves in the environment, such as Lightning's LOCAL_RANK, is no business of the next."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """What was kept before the tests, such as numbers of former code, is not read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_LAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def pytest_collection_modifyitems(items):
    """Those that wait for Slurm come first, then files with slow tests, so that at the end no process waits for another."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (not _on_slurm(item.nodeid), item.path not in slow))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """One process has all tests of a file, which share what is dear to make, and one has all that use Slurm."""
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "slurm" if _on_slurm(nodeid) else nodeid.partition("::")[0]

    config.option.loadscopereorder = False  # the order above stays
    return Files(config, log)


def _on_slurm(nodeid):
    return nodeid.startswith("tests/cluster/test_slurm")
