import math
from functools import partial

import pytest
import torch
from ranks.cases.clip import FixedCrop, make
from ranks.fixed import CAPTIONED, captioned

from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.encoders.dual import DualEncoder
from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.losses.contrastive import clip_loss
from ssl_lab.methods.clip import CLIP
from ssl_lab.optim import AdamW, decay_groups


@pytest.fixture
def method():
    torch.manual_seed(0)
    return make().double()


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_a_step_is_both_directions_over_the_projected_pairs(method):
    batch = captioned(0)
    loss = method.training_step(batch, 0)
    z_image, z_text = method.project_images(batch["image"].double() / 255), method.project_texts(batch)
    torch.testing.assert_close(loss, clip_loss(z_image, z_text, logit_scale=torch.tensor(1 / 0.07).double()))


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_the_scale_is_learned_without_decay_and_stays_below_its_bound(method):
    method.training_step(captioned(0), 0).backward()
    assert method.log_scale.grad != 0
    without_decay = [p for group in decay_groups(method, weight_decay=0.2)[1:] for p in group["params"]]
    assert any(p is method.log_scale for p in without_decay)
    method.log_scale.data.fill_(9.0)
    method.after_step()
    assert method.log_scale.exp().item() == pytest.approx(100)
    method.log_scale.data.fill_(0.5)
    method.after_step()
    assert method.log_scale == 0.5


def test_the_common_space_has_unit_vectors_of_what_the_batch_holds(method):
    embed = method.float().capabilities()["joint_embedding"]
    batch = captioned(0)
    z = embed(batch)
    assert z["image"].shape == z["text"].shape == (len(batch["index"]), 8)
    for vectors in z.values():
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
    image_only = embed({"image": batch["image"]})
    assert set(image_only) == {"image"} and torch.equal(image_only["image"], z["image"])
    texts = {name: batch[name] for name in ("input_ids", "attention_mask")}
    assert set(embed(texts)) == {"text"}


def test_a_scale_beyond_the_bound_is_refused():
    encoder = DualEncoder(CAPTIONED, image=partial(ConvNet, widths=(8,)), text=partial(TextTransformer, size="tiny"))
    assert CLIP(encoder, AdamW(), FixedCrop()).log_scale.item() == pytest.approx(math.log(1 / 0.07))
    with pytest.raises(ValueError, match=r"temperature=0\.005 and max_logit_scale=100"):
        CLIP(encoder, AdamW(), FixedCrop(), temperature=0.005)
