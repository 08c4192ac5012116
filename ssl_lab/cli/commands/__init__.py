"""The commands: one file each, named like it, whose ``run`` returns the exit code. This page imports none of them.

``run(args)`` takes the arguments, of the commands in ``SETTINGS`` ``run(cfg, args)`` the settings that they make, too.
"""

COMMANDS = {
    "pretrain": "train an encoder without labels, then evaluate it; -m for a sweep, run=DIR to resume",
    "evaluate": "evaluate runs beside their baselines",
    "finetune": "train an encoder and a head on labels",
    "predict": "predict classes, tags, answers, translations or masks for your files and texts",
    "embed": "write features to a file",
    "neighbours": "find the most similar files or texts",
    "sample": "generate images, fill the masks of a text, or continue a text",
    "reconstruct": "draw images above their reconstructions",
    "interpolate": "draw the images between two points of a latent space",
    "export": "write an encoder for transformers, timm, ONNX or PyTorch",
    "prepare": "tokenise a corpus once",
    "bench": "time the steps of an experiment",
    "report": "write report pages, and compare runs",
    "runs": "list runs, or rank them: runs best METRIC",
    "leaderboard": "make tables of results: means over seeds beside baselines",
    "dashboard": "watch and compare runs in a browser",
    "list": "show methods, data, encoders, experiments and other choices",
}
"""Each command with one line for a reader."""
SETTINGS = (
    *("evaluate", "finetune", "predict", "embed", "neighbours", "sample", "reconstruct", "interpolate", "export"),
    *("prepare", "bench"),
)
"""Commands whose settings are ``conf/COMMAND.yaml``, as are those of pretrain; the others read theirs by argparse."""
CHECKED = ("predict", "embed", "neighbours")
"""Commands whose ``check(cfg)`` refuses settings before anything slow is imported."""
