import pytest
import torch
from ranks.fixed import IMAGES, FixedViews, images

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.losses.contrastive import nt_xent, supcon
from ssl_lab.methods.supcon import SupCon
from ssl_lab.optim import SGD

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")


def make(**settings):
    torch.manual_seed(0)
    encoder = ConvNet(IMAGES, widths=(8, 16))
    return SupCon(encoder, SGD(), FixedViews(), hidden_dim=16, projection_dim=8, **settings).double()


def projections(method, batch):
    return method.projector(method.encoder.embed(FixedViews()(batch))).chunk(2)


def test_the_loss_reads_the_labels():
    method, batch = make(), images(0)
    expected = supcon(*projections(method, batch), batch["label"], temperature=0.1)
    torch.testing.assert_close(method.training_step(batch, 0), expected)


def test_a_class_for_every_image_makes_it_simclr():
    method, batch = make(), images(0)
    expected = nt_xent(*projections(method, batch), temperature=0.1)
    torch.testing.assert_close(method.training_step({**batch, "label": batch["index"]}, 0), expected)


def test_data_without_labels_and_a_temperature_of_nothing_are_refused():
    batch = {name: column for name, column in images(0).items() if name != "label"}
    with pytest.raises(ValueError, match=r"only \['image', 'index'\]. Choose a data="):
        make().training_step(batch, 0)
    with pytest.raises(ValueError, match="temperature must be positive"):
        make(temperature=0.0)
