import os

import pytest


@pytest.fixture(autouse=True)
def own_environment():
    """What a test leaves in the environment, such as Lightning's LOCAL_RANK, is no business of the next."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
