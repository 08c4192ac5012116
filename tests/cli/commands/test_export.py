"""``ssl-lab export`` of real runs: files, model card, and the upload to a hub."""

import os
import re
import subprocess
import sys

import onnxruntime
import pytest
import torch
from cli.hub_server import running_hub
from huggingface_hub import ModelCard
from transformers import AutoTokenizer

from ssl_lab.cli import build as config
from ssl_lab.cli.completion import completions
from ssl_lab.cli.main import main

QUICK = ["data.batch_size=64", "trainer=smoke"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("exporting")


@pytest.fixture(scope="module")
def mae(folder):
    sizes = ["encoder.embed_dim=32", "encoder.depth=2", "encoder.num_heads=2", "method.decoder_dim=16",
             "method.decoder_depth=1", "method.decoder_num_heads=2"]  # fmt: skip
    command = ["pretrain", "method=mae", "encoder=vit_mae_mini", *sizes, *QUICK, "evaluation=label_free"]
    assert main([*command, f"run_dir={folder / 'mae'}"]) == 0
    return folder / "mae"


def export(run_dir, out, *args):
    assert main(["export", f"run={run_dir}", f"out={out}", *args]) == 0
    return (out / "README.md").read_text()


def run_snippet(out, card, monkeypatch, capsys):
    """What the Python in the card prints, run as a reader would run it in the folder."""
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    monkeypatch.chdir(out)
    capsys.readouterr()
    exec(compile(code, "README.md", "exec"), {})
    return capsys.readouterr().out.split()


@pytest.mark.parametrize("format", ["hf", "timm", "onnx", "torch_export"])
def test_a_run_of_images_in_all_formats_with_a_card_that_runs(mae, tmp_path, monkeypatch, capsys, format):
    out = tmp_path / "exported"
    card = export(mae, out, f"format={format}")
    assert list(tmp_path.iterdir()) == [out], "nothing is left beside it"
    front = ModelCard.load(out / "README.md").data
    library = {"hf": "transformers", "torch_export": "pytorch"}.get(format, format)
    assert (front.library_name, front.pipeline_tag) == (library, "image-feature-extraction")
    assert front.tags == ["ssl_lab", "self-supervised-learning", "mae"]
    spec = config.read_setup(mae)[1]
    for text in (
        "# MAE on Digits",
        "without labels",
        "test split of Digits, last checkpoint",
        "RankMe",
        "raw pixels",
        "float32 in [0, 1]",
        f"mean ({spec.mean[0]:.6g}) and dividing by their deviation ({spec.std[0]:.6g})",
        "1 channel\nof 8 x 8 pixels",
        "method=mae encoder=vit_mae_mini",
        "adapt_to_data=false",
        f"ssl-lab export run={mae} out={out} format={format}",
        "Exported with | ssl_lab",
        "## Licence",
    ):
        assert text in card, text
    printed = run_snippet(out, card, monkeypatch, capsys)
    assert re.findall(r"\d+", " ".join(printed)) == ["2", "32"]


def test_a_graph_holds_the_head_that_was_measured_and_not_the_decoder(folder, tmp_path):
    small = ["encoder.widths=[4,8]", "method.decoder.width=64", "method.latent_dim=5", *QUICK, "evaluation=none"]
    assert main(["pretrain", "method=vae", *small, f"run_dir={folder / 'vae'}"]) == 0
    method = config.load_run(folder / "vae")[2]
    batch = method.encoder.spec.example(3)
    export(folder / "vae", tmp_path / "onnx", "format=onnx")
    (found,) = onnxruntime.InferenceSession(tmp_path / "onnx/model.onnx").run(None, {"image": batch["image"].numpy()})
    torch.testing.assert_close(torch.from_numpy(found), method.features(batch), rtol=1e-4, atol=1e-4)
    export(folder / "vae", tmp_path / "program", "format=torch_export")
    found = torch.export.load(tmp_path / "program/model.pt2").module()(batch["image"])
    torch.testing.assert_close(found, method.features(batch), rtol=1e-4, atol=1e-4)
    decoder = sum(p.numel() for p in method.decoder.parameters()) * 4
    for path in (tmp_path / "onnx/model.onnx", tmp_path / "program/model.pt2"):
        assert path.stat().st_size < decoder


def test_the_network_that_was_judged_is_exported(folder, tmp_path):
    small = ["encoder.widths=[4,8]", "method.num_prototypes=16", *QUICK, "evaluation=none"]
    assert main(["pretrain", "method=dino", *small, f"run_dir={folder / 'dino'}"]) == 0
    method = config.load_run(folder / "dino")[2]
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter.add_(1.0)
    batch = method.encoder.spec.example(3)
    export(folder / "dino", tmp_path / "out", "format=torch_export")
    found = torch.export.load(tmp_path / "out/model.pt2").module()(batch["image"])
    torch.testing.assert_close(found, method.features(batch), rtol=1e-4, atol=1e-4)


def test_codes_of_images_are_exported_or_refused(folder, tmp_path, capsys):
    small = ["encoder.widths=[4,8]", *QUICK, "evaluation=none"]
    assert main(["pretrain", "method=vq_vae", *small, "method.num_codes=16", f"run_dir={folder / 'vq'}"]) == 0
    codes = [
        "method=image_gpt",
        "encoder=code_gpt_mini",
        f"encoder.codes=run:{folder / 'vq'}",
        "encoder.embed_dim=16",
        "encoder.depth=2",
    ]
    assert main(["pretrain", *codes, *QUICK, "evaluation=none", f"run_dir={folder / 'gpt'}"]) == 0
    for format in ("hf", "timm", "onnx", "torch_export"):
        capsys.readouterr()
        assert main(["export", f"run={folder / 'gpt'}", f"out={tmp_path / format}", f"format={format}"]) in (0, 1)
        printed = capsys.readouterr()
        if (tmp_path / format).exists():  # loaded back and compared
            assert "Its README.md shows how to load it." in printed.out
        else:
            assert "CodeGPT" in printed.err and "format=" in printed.err and "Traceback" not in printed.err


@pytest.mark.filterwarnings("ignore:Features have collapsed")
@pytest.mark.parametrize("format", ["onnx", "torch_export"])
def test_a_run_of_text_as_a_graph_with_its_tokenizer(folder, tmp_path, monkeypatch, capsys, format):
    run_dir = folder / "simcse"
    if not run_dir.is_dir():
        (folder / "lines.txt").write_text("\n".join(f"The dog runs {count} miles." for count in range(40)))
        data = ["data=text_files", f"data.path={folder / 'lines.txt'}", "data.sample_by=line", "data.vocab_size=128",
                "data.max_length=24", "data.batch_size=8"]  # fmt: skip
        command = ["pretrain", "method=simcse", "encoder=bert_tiny", *data, "trainer=smoke", "trainer.max_steps=3"]
        assert main([*command, "evaluation=none", f"run_dir={run_dir}"]) == 0
    out = tmp_path / "exported"
    card = export(run_dir, out, f"format={format}")
    assert "int64, 2 to 24 tokens" in card and "Nothing was measured." in card
    assert re.findall(r"\d+", " ".join(run_snippet(out, card, monkeypatch, capsys))) == ["2", "128"]
    assert len(AutoTokenizer.from_pretrained(out)("dog " * 50, truncation=True)["input_ids"]) == 24


def python(*words, **environment):
    """In a process of its own: huggingface_hub reads its settings once."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = {**kept, "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1", **environment}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


def test_the_folder_is_uploaded_with_the_users_token(mae, tmp_path):
    out = tmp_path / "out"
    command = ["-m", "ssl_lab.cli.main", "export", f"run={mae}", "format=onnx", f"out={out}"]
    with running_hub() as (hub, address):
        home = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home")}
        done = python(*command, "push_to_hub=me/digits", "private=true", **home)
        assert done.returncode == 0, done.stderr
        assert f"Uploaded to {address}/me/digits" in done.stdout
        assert list(hub.repositories) == ["me/digits"] and hub.repositories["me/digits"]["visibility"] == "private"
        assert hub.files == {path.name: path.read_bytes() for path in out.iterdir()}
        assert set(hub.files) == {"README.md", "config.json", "model.onnx"} and hub.messages == ["MAE on Digits"]
        assert hub.files["model.onnx"] in hub.large.values()

        push = "import pathlib, sys; from ssl_lab.export.hub import push; "
        push += f"push(pathlib.Path({str(out)!r}), 'other/x', private=False, message='')"
        check = ["-c", "from ssl_lab.export.hub import check_hub; check_hub('me/x')"]
        for words, settings, message in (
            (["-c", push], {}, "out was written, but the upload failed to other/x (403"),
            (check, {"HF_TOKEN": "hf_wrong"}, "the hub refuses the token (status 401)"),
            (check, {"HF_TOKEN": ""}, "there is no token"),
            (check, {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ):
            done = python(*words, **home, **settings)
            assert done.returncode == 1 and message in done.stderr.splitlines()[-1], done.stderr
        assert list(hub.repositories) == ["me/digits"]
    for words, message in ((check, "the hub cannot be reached"), (["-c", push], "the upload failed to other/x (")):
        done = python(*words, **home)
        assert done.returncode == 1 and message in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["push_to_hub=digits"], "it names no owner. Give it as push_to_hub=USER/NAME"),
        (["push_to_hub=me/../x"], "it is not the name of a repository"),
        (["private=true"], "Give push_to_hub=USER/NAME, or leave it out"),
    ],
)
def test_a_wrong_name_is_refused_before_anything_is_written(mae, tmp_path, capsys, args, message):
    assert main(["export", f"run={mae}", f"out={tmp_path / 'out'}", *args]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_tab_completes_the_formats():
    assert "push_to_hub=" in completions("ssl-lab export push")
