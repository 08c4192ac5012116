import torch

from ssl_lab.pretext.packing import positions_in_documents, same_document_mask, starts_of_documents

IDS = torch.tensor([[1, 1, 1, 2, 3, 3, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]])


def test_positions_begin_anew_with_each_document():
    assert positions_in_documents(IDS).tolist() == [[0, 1, 2, 0, 0, 1, 0, 1], list(range(8))]
    assert starts_of_documents(IDS)[0].tolist() == [True, False, False, True, True, False, True, False]


def test_the_mask_equals_a_loop_over_pairs():
    mask = same_document_mask(IDS)
    assert mask.shape == (2, 1, 8, 8)
    for row in range(2):
        for i in range(8):
            for j in range(8):
                assert mask[row, 0, i, j] == (IDS[row, i] == IDS[row, j])
    assert mask.any(-1).all()
