import os

import pytest


@pytest.fixture(autouse=True)
def own_environment():
    """What a test leaves in the environment, such as Lightning's LOCAL_RANK, is no business of the next."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def pytest_collection_modifyitems(items):
    """Files with slow tests come first, so that at the end no process waits long for another."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
