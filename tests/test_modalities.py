from collections import Counter

import torch
from arrays import ArrayImages, ArrayText


def test_images_are_their_pixels():
    datamodule = ArrayImages(shape=(3, 4, 5))
    image = datamodule.columns("test")["image"]
    features = datamodule.spec.raw({"image": image})
    torch.testing.assert_close(features, torch.stack([x.flatten() / 255 for x in image]))
    torch.testing.assert_close(datamodule.spec.raw({"image": image / 255}), features)


def test_text_is_the_words_that_occur():
    datamodule = ArrayText()
    batch = datamodule.as_batch(datamodule.columns("test"))
    batch["input_ids"][:, 0] = 2  # a special
    batch["input_ids"][:, 1] = batch["input_ids"][:, 2]  # a word twice
    features = datamodule.spec.raw(batch)
    assert features.shape == (64, 40)
    for row, ids, mask in zip(features, batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True):
        counts = Counter(i for i, m in zip(ids, mask, strict=True) if m and i not in datamodule.spec.special_ids)
        length = sum(count**2 for count in counts.values()) ** 0.5
        torch.testing.assert_close(row, torch.tensor([counts[i] / length for i in range(40)]))


def test_a_text_without_words_is_zero():
    datamodule = ArrayText()
    ids = torch.zeros(2, 12, dtype=torch.int64)
    features = datamodule.spec.raw({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert features.abs().max() == 0
