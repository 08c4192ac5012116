"""A run of text resumes with the ids it began with, or not at all."""

from ssl_lab.cli.main import main


def test_a_text_that_has_changed_is_no_resume(tmp_path, capsys):
    corpus = tmp_path / "text.txt"
    corpus.write_text(
        "\n\n".join(f"the {word} cat sat on mat {k}" for k in range(12) for word in ("red", "old", "big"))
    )
    command = [
        "pretrain",
        "method=mlm",
        "data=text_files",
        f"data.path={corpus}",
        "data.max_length=8",
        "encoder=bert_tiny",
    ]
    command += [
        "data.vocab_size=120",
        "data.batch_size=8",
        "evaluation=none",
        "force=true",
        f"run_dir={tmp_path / 'run'}",
    ]
    assert main([*command, "trainer.max_epochs=1"]) == 0
    before = (tmp_path / "run" / "tokenizer" / "tokenizer.json").read_bytes()
    assert main([*command, "trainer.max_epochs=2", "ckpt=last"]) == 0
    corpus.write_text(corpus.read_text().replace("cat", "hen"))
    capsys.readouterr()
    assert main([*command, "trainer.max_epochs=3", "ckpt=last"]) == 1
    assert "gives another tokenizer" in capsys.readouterr().err
    assert (tmp_path / "run" / "tokenizer" / "tokenizer.json").read_bytes() == before
