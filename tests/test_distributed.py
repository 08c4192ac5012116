import pytest
from torch import nn

from ssl_lab.distributed import SyncBatchNorm, synchronise_batch_norm


class NormWithActivation(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: the activation would be lost."""

    def forward(self, x):
        return super().forward(x).relu()


def test_a_batch_norm_that_does_more_is_refused_not_replaced():
    with pytest.raises(ValueError, match="sync_batchnorm=false"):
        synchronise_batch_norm(nn.Sequential(nn.Conv2d(1, 2, 3), NormWithActivation(2)))


def test_plain_ones_are_replaced_and_keep_their_parameters():
    plain = nn.Sequential(nn.Sequential(nn.BatchNorm2d(2)), nn.BatchNorm1d(3))
    weights = [module.weight for module in plain.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    synced = [module for module in synchronise_batch_norm(plain).modules() if isinstance(module, SyncBatchNorm)]
    assert [module.weight for module in synced] == weights
