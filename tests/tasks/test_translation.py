import random

import pytest
import torch
from arrays import ArrayText
from sacrebleu import corpus_bleu, corpus_chrf
from tasks.tiny import encoder, fit, optim

from ssl_lab.data.text.parallel_text import ParallelText
from ssl_lab.evaluation.evaluate import evaluate
from ssl_lab.tasks.translation import Translation, Translations

CPU = torch.device("cpu")
WORDS = {"dog": "Hund", "cat": "Katze", "bird": "Vogel", "red": "rot", "old": "alt", "big": "groß"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Words in order, each with its translation."""
    folder, chance = tmp_path_factory.mktemp("parallel"), random.Random(0)
    for split, num in (("train", 300), ("val", 10), ("test", 20)):
        lines = [[chance.choice(list(WORDS)) for _ in range(chance.randint(4, 5))] for _ in range(num)]
        (folder / f"{split}.en").write_text("\n".join(" ".join(line) for line in lines))
        (folder / f"{split}.de").write_text("\n".join(" ".join(WORDS[w] for w in line) for line in lines))
    return folder


def parallel(folder):
    return ParallelText(
        str(folder),
        "en",
        "de",
        vocab_size=80,
        target_vocab_size=300,
        max_length=8,
        target_max_length=10,
        batch_size=10,
    )


def test_learns(folder, tmp_path):
    data = parallel(folder)
    method = Translation(encoder(data.spec), optim(1e-3), num_decoder_layers=1, dropout=0.0)
    losses = fit(method, data, tmp_path, epochs=5)
    assert losses[-1] < 0.6 * losses[0]
    protocol = Translations()
    found = evaluate(method.capabilities(), [protocol], data, device=CPU)
    assert found["finetune/bleu"] > 50
    assert "tok:13a" in protocol.signature and "nrefs:1" in protocol.signature
    data.eval_batch_size = 3
    assert evaluate(method.capabilities(), [protocol], data, device=CPU) == found
    texts = [
        text.strip()
        for batch in data.eval_dataloader("test")
        for text in data.target_tokenizer.batch_decode(
            method.capabilities()["translations"](batch), skip_special_tokens=True
        )
    ]
    assert found["finetune/bleu"] == pytest.approx(corpus_bleu(texts, [data.references("test")]).score)
    assert found["finetune/chrf"] == pytest.approx(corpus_chrf(texts, [data.references("test")]).score)


def slow_greedy(method, batch):
    """One token after the other, without a cache."""
    spec = method.encoder.spec
    written = spec.targets["target_input_ids"]
    pad, begin, end = written.pad_id, written.begin_id, written.end_id
    states = method.hidden(batch)
    ids = torch.full((len(states), 1), begin)
    for _ in range(written.length - 1):
        logits = method.decoder(
            input_ids=ids, encoder_hidden_states=states, encoder_attention_mask=batch["attention_mask"]
        ).logits
        done = (ids == end).any(1)
        ids = torch.cat([ids, torch.where(done, pad, logits[:, -1].argmax(1)).unsqueeze(1)], 1)
    return ids


def test_greedy_search_is_the_slow_loop_and_beams_are_no_less_probable(folder):
    data = parallel(folder)
    batch = next(iter(data.eval_dataloader("val")))
    method = Translation(encoder(data.spec), optim()).eval()
    with torch.no_grad():
        method.decoder.cls.predictions.decoder.bias[data.spec.targets["target_input_ids"].end_id] += (
            0.3  # so that some end early
        )
        assert torch.equal(method.translate(batch), slow_greedy(method, batch))
    method.num_beams = 4
    with torch.no_grad():
        assert method.translate(batch).shape == (10, 10)


@pytest.mark.parametrize("num_beams", [1, 2])
def test_scores_that_are_not_finite_are_refused(folder, num_beams):
    data = parallel(folder)
    method = Translation(encoder(data.spec), optim(), num_decoder_layers=1, num_beams=num_beams)
    with torch.no_grad():
        method.decoder.cls.predictions.decoder.bias[7] = torch.nan
    with pytest.raises(ValueError, match="Scores of 20 of 20 test translations are not finite"):
        evaluate(method.capabilities(), [Translations()], data, device=CPU)


def test_the_loss_by_its_equation(folder):
    data = parallel(folder)
    method = Translation(encoder(data.spec), optim(), label_smoothing=0.2).eval()
    batch = next(iter(data.eval_dataloader("val")))
    target = batch["target_input_ids"]
    logits = method.decoder(
        input_ids=target[:, :-1],
        attention_mask=batch["target_attention_mask"][:, :-1],
        encoder_hidden_states=method.hidden(batch),
        encoder_attention_mask=batch["attention_mask"],
    ).logits.log_softmax(-1)
    total, count = 0.0, 0
    for row in range(len(target)):
        for t in range(1, target.shape[1]):
            if target[row, t] != data.spec.targets["target_input_ids"].pad_id:
                total -= 0.8 * logits[row, t - 1, target[row, t]] + 0.2 * logits[row, t - 1].mean()
                count += 1
    torch.testing.assert_close(method.training_step(batch, 0), total / count)


@pytest.mark.parametrize("settings", [{"label_smoothing": 1.0}, {"num_beams": 0}, {"num_decoder_layers": -1}])
def test_senseless_settings_are_refused(folder, settings):
    with pytest.raises(ValueError, match="numbers of at least 1"):
        Translation(encoder(parallel(folder).spec), optim(), **settings)


def test_data_without_translations_is_refused():
    with pytest.raises(ValueError, match="Choose data=parallel_text"):
        Translation(encoder(ArrayText().spec), optim())
