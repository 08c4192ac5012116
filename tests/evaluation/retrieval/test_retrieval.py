import math

import pytest
import torch
import torch.nn.functional as F
from arrays import ArrayCaptions

from ssl_lab.evaluation.retrieval.retrieval import Retrieval

CPU = torch.device("cpu")
DIRECTIONS = ("image_to_text", "text_to_image")


def random_space(num_images, num_texts, seed=0):
    generator = torch.Generator().manual_seed(seed)
    owners = torch.randint(num_images, (num_texts,), generator=generator)
    owners[:num_images] = torch.arange(num_images)  # each has at least one
    images, texts = (F.normalize(torch.randn(n, 4, generator=generator), dim=1) for n in (num_images, num_texts))
    return images, F.normalize(texts + 0.5 * images[owners], dim=1), owners


def slow_recall(images, texts, owners, k):
    to_text = [bool((owners[(texts @ image).topk(k).indices] == i).any()) for i, image in enumerate(images)]
    to_image = [int(owners[j]) in (images @ text).topk(k).indices.tolist() for j, text in enumerate(texts)]
    return sum(to_text) / len(images), sum(to_image) / len(texts)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_equals_a_loop_with_several_captions_per_image(k):
    space = random_space(20, 57)
    found = Retrieval(recall_at=(k,)).score(*space)
    assert tuple(found[f"retrieval/{d}_r{k}"] for d in DIRECTIONS) == pytest.approx(slow_recall(*space, k))


def test_chance_is_what_random_orders_reach():
    torch.manual_seed(0)
    _, _, owners = random_space(10, 30)
    hits = {direction: [] for direction in DIRECTIONS}
    for _ in range(400):
        images, texts = F.normalize(torch.randn(10, 8), dim=1), F.normalize(torch.randn(30, 8), dim=1)
        found = Retrieval(recall_at=(3,)).score(images, texts, owners)
        for direction in DIRECTIONS:
            hits[direction].append(found[f"retrieval/{direction}_r3"])
    for direction in DIRECTIONS:
        expected = found[f"retrieval/{direction}_r3_chance"]
        assert sum(hits[direction]) / 400 == pytest.approx(expected, abs=0.02)
    assert found["retrieval/text_to_image_r3_chance"] == pytest.approx(0.3)


def test_equal_embeddings_find_nothing_and_among_too_few_candidates_nothing_is_scored():
    images, texts = torch.ones(5, 1), torch.ones(10, 1)
    found = Retrieval(recall_at=(1, 100)).score(images, texts, torch.arange(10) % 5)
    assert all(found[f"retrieval/{direction}_r1"] == 0 for direction in DIRECTIONS)
    assert all(math.isnan(found[f"retrieval/{direction}_r100"]) for direction in DIRECTIONS)
    assert all(found[f"retrieval/{direction}_r100_chance"] == 1 for direction in DIRECTIONS)


@pytest.mark.parametrize("eval_batch_size", [7, 64])
def test_captions_that_are_missing_are_no_candidates(eval_batch_size):
    """Images and captions are embedded by their class: only the first 32 of 64 candidates can be right."""
    num_texts = []

    def by_class(batch):
        if "image" in batch:
            x = batch["image"].float()
            upper = x[:, 0, :4].mean((1, 2)) > x[:, 0, 4:].mean((1, 2))
            return {"image": F.one_hot((~upper).long(), 2).float()}
        num_texts.append(len(batch["input_ids"]))
        assert (batch["attention_mask"].sum(1) > 0).all()
        return {"text": F.one_hot(batch["input_ids"][:, 1] - 5, 2).float()}

    data = ArrayCaptions(eval_batch_size=eval_batch_size)
    found = Retrieval(recall_at=(31, 32)).run(by_class, data, device=CPU)
    assert sum(num_texts) == 64 + 42
    assert found["retrieval/text_to_image_r31"] == 0 and found["retrieval/text_to_image_r32"] == 1


def test_a_bad_k_is_refused():
    with pytest.raises(ValueError, match="every k >= 1"):
        Retrieval(recall_at=(0,))
