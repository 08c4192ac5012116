from functools import partial

import pytest
import torch
import torch.nn.functional as F
from arrays import ArrayImages
from data.picture_files import write_captioned

from ssl_lab.data.pair.image_text import ImageTextPairs
from ssl_lab.encoders.convnet import ConvNet
from ssl_lab.encoders.dual import DualEncoder
from ssl_lab.encoders.text_transformer import TextTransformer
from ssl_lab.evaluation.retrieval.zero_shot import ZeroShot
from ssl_lab.losses.contrastive import clip_loss
from ssl_lab.methods.clip import CLIP
from ssl_lab.optim import AdamW
from ssl_lab.pretext.views import View

CPU = torch.device("cpu")


@pytest.fixture
def squares(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LAB_CACHE", str(tmp_path / "cache"))
    settings = {"image_size": None, "vocab_size": 200, "label_column": "colour", "batch_size": 8}
    return ImageTextPairs(str(write_captioned(tmp_path / "squares", num=40)), **settings)


def test_a_trained_clip_knows_the_colours_by_their_names(squares):
    torch.manual_seed(0)
    text = partial(TextTransformer, size="tiny", dropout=0.0)
    encoder = DualEncoder(squares.spec, image=partial(ConvNet, widths=(8,)), text=text)
    method = CLIP(encoder, AdamW(), View(), projection_dim=8)
    optimizer, _ = AdamW(lr=3e-3).build(method, total_steps=30)
    for epoch in range(8):
        loader = squares.train_dataloader()
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            optimizer.zero_grad()
            z_image, z_text = method.project_images(batch["image"]), method.project_texts(batch)
            clip_loss(z_image, z_text, logit_scale=method.log_scale.exp()).backward()
            optimizer.step()
    protocol = ZeroShot(templates=("a {} square", "{}"))
    found = protocol.run(method.capabilities()["joint_embedding"], squares, device=CPU)
    assert found["zero_shot/top1"] == 1


def test_classes_are_means_of_unit_vectors_of_their_sentences(squares):
    def by_length(batch):
        """A text is a direction that depends on its number of tokens, an image on its colour."""
        if "image" in batch:
            return {"image": F.one_hot(batch["image"][:, 0, 0, 0].long() // 100, 4).float()}
        return {"text": F.one_hot(batch["attention_mask"].sum(1) % 4, 4).float()}

    names = ["blue", "light_red"]
    classes = ZeroShot(templates=("{}", "a {} square"))._embed_classes(by_length, names, squares.tokenizer, CPU)
    lengths = [[len(squares.tokenizer(t.format(n))["input_ids"]) for t in ("{}", "a {} square")] for n in names]
    expected = torch.stack([F.one_hot(torch.tensor(found) % 4, 4).float().mean(0) for found in lengths])
    torch.testing.assert_close(classes, F.normalize(expected, dim=1))


def test_other_images_need_a_tokenizer(squares, tmp_path):
    def embed(batch):
        return {kind: torch.ones(len(next(iter(batch.values()))), 2) for kind in ("image", "text")}

    with pytest.raises(ValueError, match=r"ArrayImages has no tokenizer. Set evaluation\.zero_shot\.tokenizer"):
        ZeroShot().run(embed, ArrayImages(), device=CPU)
    squares.tokenizer.save_pretrained(tmp_path / "tokenizer")
    found = ZeroShot(tokenizer=str(tmp_path / "tokenizer")).run(embed, ArrayImages(), device=CPU)
    assert found["zero_shot/top1"] == 0.5


def test_templates_without_a_place_for_the_name_are_refused():
    with pytest.raises(ValueError, match=r"found \['a photo'\]"):
        ZeroShot(templates=("a photo",))
