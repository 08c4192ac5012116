"""Whoever draws a picture says its title and explanation, and report and dashboard show them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from arrays import ArrayImages
from engine.tiny import Tiny, TinyEncoder, trainer
from report.fake_runs import write_picture, write_run

from ssl_lab.captions import Caption
from ssl_lab.engine.callbacks.pictures import Pictures, show
from ssl_lab.engine.pretrain import pretrain
from ssl_lab.report.dashboard.details import read_details
from ssl_lab.report.dashboard.index import RunIndex
from ssl_lab.report.page import write_report
from ssl_lab.report.pictures import captions_of
from ssl_lab.runs.read import read_run
from ssl_lab.types import Drawing, ImageGrid, MaskedText

TRUST = Caption(title="Trust <of> images", explanation="How sure it is & where.", same_tiles=True)
GAUGE = Caption(title="A gauge", explanation="Red where it fails.", order=0)
RIDDLES = Caption(title="Riddles", explanation="What the model makes of riddles.")
ORDER = ["Reconstructions", "Samples", "Interpolations", "Latent dimensions", "Nearest train images",
         "Map of the features", "Nearest by features", "Principal components of the features", "Attention",
         "Similarities", "Hidden words", "Next words", "Cut-out words", "Views"]  # fmt: skip
BEFORE = ("views", "reconstructions", "samples", "interpolations", "traversals", "nearest_neighbours", "neighbours",
          "feature_map", "attention", "projection", "similarities", "masked_sentences", "next_words",
          "denoised_sentences")  # fmt: skip


class Own(Tiny):
    """Draws as no other method does."""

    def pictures(self, batch):
        images = batch["image"][None, :4] / 255
        pixels = np.full((5, 6, 3), int(self.global_step), dtype=np.uint8)
        return {
            "trust": ImageGrid(images=images / (1 + self.global_step), caption=TRUST),
            "gauge": Drawing(pixels=pixels, caption=GAUGE),
            "without_words": ImageGrid(images=images),
        }


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "own"
    data = ArrayImages(num_samples=32)
    lightning = trainer(folder, epochs=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *args, **settings: None)  # Lightning's advice
        pretrain(Own(TinyEncoder(data.spec)), data, lightning, pictures=Pictures(every_n_epochs=1))
    spec = SimpleNamespace(pad_id=0, continues_word=(), special_ids=())
    tokenizer = SimpleNamespace(convert_ids_to_tokens=lambda ids: [f"word{i}" for i in ids])
    ids = torch.tensor([[1, 2, 3]])
    riddle = MaskedText(input_ids=ids, labels=torch.tensor([[-100, 2, -100]]), guesses=ids, caption=RIDDLES)
    show(lightning, folder, "riddles", riddle, SimpleNamespace(spec=spec, tokenizer=tokenizer))
    return folder


def test_a_report_shows_its_words(run_dir):
    page = write_report(run_dir).read_text()
    assert "<h3>Trust &lt;of&gt; images</h3>" in page and "How sure it is &amp; where." in page
    assert "<h3>A gauge</h3>" in page and "Red where it fails." in page
    assert "<h3>Riddles</h3>" in page and "What the model makes of riddles." in page
    assert (
        page.index("A gauge")
        < page.index("Nearest by features")
        < page.index("Trust &lt;")
        < page.index("Without words")
    )
    assert [path.parent.name for path in run_dir.rglob("animation.gif")] == ["trust"]


def test_the_dashboard_shows_its_words(run_dir):
    details = read_details(RunIndex([run_dir.parent]).entries[0])
    shown = [(one["title"], one["caption"]) for one in details["pictures"]]
    assert (TRUST.title, TRUST.explanation) in shown and shown[0] == (GAUGE.title, GAUGE.explanation)
    assert shown[-1] == ("Without words", "")
    assert [(one["title"], one["caption"]) for one in details["readings"]] == [(RIDDLES.title, RIDDLES.explanation)]
    assert not details["problems"]


def test_runs_of_before_show_the_same_titles_in_the_same_order(tmp_path):
    found = captions_of(sorted([*BEFORE, "of_nobody"]), {})
    assert [caption.title for caption in found.values()] == [*ORDER, "Of nobody"]
    assert all(found[name].explanation for name in BEFORE)
    page = write_report(write_run(tmp_path / "run", pictures=("views", "samples"), sentences=True)).read_text()
    assert "New images drawn from the model." in page and "<h3>Hidden words</h3>" in page
    assert (tmp_path / "run/pictures/samples/animation.gif").is_file()


@pytest.mark.parametrize(
    "wrong", ['{"title": 5}', "[]", "{", '{"title": "x", "order": "first"}', '{"explanation": "x"}']
)
def test_a_damaged_caption_is_left_out_and_named(tmp_path, wrong):
    folder = write_run(tmp_path / "run", pictures=("views",)) / "pictures"
    write_picture(folder / "trust" / "step_00000001.png")
    (folder / "trust" / "caption.json").write_text(wrong)
    (folder / "views" / "caption.json").write_text(json.dumps({"title": "Other views", "script": "x"}))
    run = read_run(tmp_path / "run")
    assert run.captions == {"views": Caption(title="Other views")}
    assert len(run.problems) == 2 and all("caption.json" in problem for problem in run.problems)
    assert captions_of(run.pictures, run.captions)["trust"] == Caption(title="Trust")
