import copy

import pytest
import torch
from torch import nn

from ssl_lab.teacher import FeatureQueue, Teacher


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_starts_as_a_copy_that_is_never_trained():
    student = small_network()
    teacher = Teacher(student, momentum=0.9)
    x = torch.randn(5, 3)
    torch.testing.assert_close(teacher(x), student(x), rtol=0, atol=0)
    assert not teacher(x).requires_grad
    assert not any(p.requires_grad for p in teacher.parameters())


def test_follows_by_its_equation():
    student = small_network()
    teacher = Teacher(student, momentum=0.9, final_momentum=0.9)
    start = copy.deepcopy(student)
    with torch.no_grad():
        for p in student.parameters():
            p.add_(1.0)
    for _ in range(2):
        teacher.follow(student, progress=0.5)
    for own, first in zip(teacher.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(own, first + 1 - 0.9**2)


def test_buffers_are_its_own():
    student = small_network()
    teacher = Teacher(student, momentum=0.5)
    student(torch.randn(8, 3))
    teacher.follow(student, progress=0.0)
    assert torch.equal(teacher.network[1].running_mean, torch.zeros(4))
    teacher(torch.randn(8, 3))
    assert not torch.equal(teacher.network[1].running_mean, torch.zeros(4))


def test_momentum_rises_along_half_a_cosine():
    teacher = Teacher(small_network(), momentum=0.9, final_momentum=1.0)
    assert [teacher.momentum_at(share) for share in (0, 0.5, 1)] == pytest.approx([0.9, 0.95, 1.0])
    assert teacher.momentum_at(0.25) == pytest.approx(1 - 0.1 * 0.5 * (1 + 0.5**0.5))


@pytest.mark.parametrize("momentum", [(-0.1, 1.0), (0.9, 0.8), (0.9, 1.1)])
def test_refuses_a_momentum_that_falls_or_leaves_the_range(momentum):
    with pytest.raises(ValueError, match="rises within"):
        Teacher(small_network(), momentum=momentum[0], final_momentum=momentum[1])


def test_queue_keeps_the_newest_features_at_unit_length():
    queue = FeatureQueue(size=5, dim=2)
    pushed = torch.randn(12, 2)
    unit = nn.functional.normalize(pushed, dim=1)
    for part in pushed.split(3):
        queue.push(part)
    kept = {tuple(row) for row in queue.features.tolist()}
    assert kept == {tuple(row) for row in unit[-5:].tolist()}


def test_queue_replaces_the_oldest_first():
    queue = FeatureQueue(size=4, dim=2)
    start = queue.features.clone()
    queue.push(torch.eye(2) * 3)
    torch.testing.assert_close(queue.features, torch.cat([torch.eye(2), start[2:]]))


def test_a_batch_larger_than_the_queue_leaves_its_last_features():
    queue = FeatureQueue(size=3, dim=2)
    pushed = torch.randn(8, 2)
    queue.push(pushed)
    torch.testing.assert_close(queue.features, nn.functional.normalize(pushed[-3:], dim=1))


def test_a_queue_is_full_once_as_many_features_were_pushed():
    queue, full = FeatureQueue(size=4, dim=2), []
    for _ in range(3):
        queue.push(torch.randn(2, 2))
        full.append(queue.is_full())
    assert full == [False, True, True]


def test_queue_goes_on_from_a_checkpoint():
    queue, other = FeatureQueue(size=4, dim=2), FeatureQueue(size=4, dim=2)
    queue.push(torch.randn(3, 2))
    other.load_state_dict(queue.state_dict())
    more = torch.randn(2, 2)
    queue.push(more)
    other.push(more)
    assert torch.equal(queue.features, other.features)


def test_nearest_has_the_largest_cosine_whatever_the_scale():
    queue = FeatureQueue(size=20, dim=6)
    x = torch.randn(5, 6)
    cosines = torch.cosine_similarity(x.unsqueeze(1), queue.features.unsqueeze(0), dim=2)
    expected = torch.stack([queue.features[max(range(20), key=row.__getitem__)] for row in cosines])
    assert torch.equal(queue.nearest(x), expected)
    assert torch.equal(queue.nearest(100 * x), expected)
    assert torch.equal(queue.nearest(3 * queue.features), queue.features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(queue.nearest(x), expected)


def test_a_queue_leaves_the_random_stream_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    FeatureQueue(size=4, dim=2)
    assert torch.equal(torch.rand(3), expected)


def test_refuses_an_empty_queue():
    with pytest.raises(ValueError, match="queue_size=0"):
        FeatureQueue(size=0, dim=2)
