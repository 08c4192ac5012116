"""Views, encoder and loss have no graph breaks, and compiled they give the same as eagerly."""

import pytest
import torch
from torch import nn

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.encoders.resnet import ResNet
from ssl_lab.heads import Projector
from ssl_lab.losses.contrastive import nt_xent
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.pretext.views import TwoViews, View

SPEC = ImageSpec(shape=(3, 16, 16), mean=(0.5,) * 3, std=(0.25,) * 3)


class Loss(nn.Module):
    """SimCLR's step from images to loss."""

    def __init__(self, encoder):
        super().__init__()
        self.views, self.encoder = TwoViews(View(solarize_prob=0.2)), encoder
        self.projector = Projector(encoder.embed_dim, hidden_dim=16, out_dim=8)

    def forward(self, images):
        z_a, z_b = self.projector(self.encoder.embed(self.views({"image": images}))).chunk(2)
        return nt_xent(z_a, z_b, temperature=0.5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("build", [lambda: ConvNet(SPEC, widths=(8, 16)), lambda: ResNet(SPEC, depth=18)])
def test_one_graph_from_images_to_loss(build):
    torch.manual_seed(0)
    loss = Loss(build())
    images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    compiled = torch.compile(loss, fullgraph=True, dynamic=False, backend="eager")
    values = []
    for fn in (loss, compiled):
        torch.manual_seed(1)
        values.append(fn(images))
    torch.testing.assert_close(*values)
