"""Contracts of encoders, data modules, methods, protocols, tasks and views: for tests of your own ones."""

from ssl_lab.testing.data import check_data
from ssl_lab.testing.encoders import check_encoder
from ssl_lab.testing.methods import (
    check_features,
    check_labels,
    check_method,
    check_state,
    check_training,
    train,
)
from ssl_lab.testing.protocols import check_protocol
from ssl_lab.testing.tasks import check_task
from ssl_lab.testing.views import check_views

__all__ = [
    "check_data",
    "check_encoder",
    "check_features",
    "check_labels",
    "check_method",
    "check_protocol",
    "check_state",
    "check_task",
    "check_training",
    "check_views",
    "train",
]
