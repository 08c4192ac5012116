"""Settings of methods of text that follow from the texts and the machine."""

import pytest
from hydra import compose, initialize_config_dir

from ssl_lab.cli.defaults.facts import Facts
from ssl_lab.cli.defaults.text import num_epochs, of_data, of_length, vocab_size
from ssl_lab.cli.paths import config_dir
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.modalities.text import TextSpec


def composed(*args):
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("pretrain", ["data=text_files", "data.path=texts", *args], return_hydra_config=True)


def facts(**given):
    usual = {"spec": TextSpec(length=128, vocab_size=8192), "num_samples": 5000, "labelled": False, "device": "cpu"}
    return Facts(**{**usual, "num_tokens": 300_000, **given})


def chosen(*args, **given):
    cfg = composed(*args)
    made = dict(each.override.split("=", 1) for each in of_data(facts(**given), cfg))
    cfg = composed(*args, *([f"encoder={made['encoder']}"] if "encoder" in made else []))
    return made | dict(each.override.split("=", 1) for each in of_length(facts(**given), cfg, 100))


def test_masked_modelling_on_a_cpu():
    found = chosen("method=mlm")
    assert found["encoder"] == "bert_tiny" and found["data.vocab_size"] == "4096" and found["data.batch_size"] == "32"
    assert 5 <= int(found["trainer.max_epochs"]) <= 20 and "evaluation" not in found
    assert chosen("method=mlm", labelled=True)["evaluation"] == "mlm_features"


def test_causal_modelling_takes_its_framing_and_packs_what_has_no_labels():
    found = chosen("method=causal_lm")
    assert (found["data.tokenizer_kind"], found["data.framing"], found["data.packing"]) == ("bpe", "causal", "true")
    assert found["encoder"] == "gpt2_nano"
    assert "data.packing" not in chosen("method=causal_lm", labelled=True)


def test_span_denoising_takes_a_unigram_tokenizer():
    found = chosen("method=span_denoising")
    assert found["data.tokenizer_kind"] == "unigram" and found["encoder"] == "t5_tiny"


def test_a_tokenizer_that_is_given_and_a_gpu_keep_their_settings():
    assert not [key for key in chosen("method=mlm", "data.tokenizer=bert") if key.startswith("data.vocab")]
    assert set(chosen("method=mlm", device="cuda", num_tokens=10**8)) == set()
    spec = ImageSpec(shape=(1, 8, 8), mean=(0.5,), std=(0.2,))
    assert chosen("method=mlm", spec=spec, num_tokens=None) == {}


def test_a_length_that_is_given_stays():
    assert "trainer.max_epochs" not in chosen("method=mlm", "trainer.max_epochs=3")
    assert "trainer.max_epochs" not in chosen("method=mlm", "trainer=smoke")


@pytest.mark.parametrize(("tokens", "size"), [(10, 1024), (150_000, 2048), (400_000, 4096), (10**9, 8192)])
def test_the_vocabulary_grows_with_the_texts(tokens, size):
    assert vocab_size(tokens) == size


def test_large_encoders_and_large_texts_get_fewer_epochs():
    assert num_epochs(400_000, "tiny") > num_epochs(400_000, "mini") >= num_epochs(10**9, "base") == 1
    assert num_epochs(100, "tiny") == 100


@pytest.mark.parametrize(
    ("method", "encoder", "evaluation"),
    [
        ("mlm", "bert_mini", "mlm"),
        ("causal_lm", "gpt2_mini", "language_modelling"),
        ("span_denoising", "t5_mini", "denoising"),
        ("simcse", "bert_mini", "features"),
    ],
)
def test_a_method_names_its_encoder_and_evaluation_and_the_command_wins(method, encoder, evaluation):
    choices = composed(f"method={method}").hydra.runtime.choices
    assert (choices["encoder"], choices["evaluation"]) == (encoder, evaluation)
    choices = composed(f"method={method}", "encoder=bert_base", "evaluation=none").hydra.runtime.choices
    assert (choices["encoder"], choices["evaluation"]) == ("bert_base", "none")
    assert composed("experiment=simcse_text").hydra.runtime.choices["encoder"] == "bert_base"
