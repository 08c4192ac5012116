"""The commands: one file each, named like it, whose ``run`` returns the exit code. This page imports none of them.

``run(args)`` takes the arguments, of the commands in ``SETTINGS`` ``run(cfg, args)`` the settings that they make, too.
"""

COMMANDS = {
    "pretrain": "pretrain a method:  ssl-lab pretrain experiment=NAME [key=value ...]   (-m for sweeps; run=DIR resumes)",
    "evaluate": "judge runs:         ssl-lab evaluate run=DIR [data=NAME] [evaluation=NAME]   ('run=[DIR1,DIR2]': one table)",
    "finetune": "train on labels:    ssl-lab finetune run=DIR data=NAME [task=NAME] [seeds=[0,1,2]] [baseline=true]",
    "predict": "use a head:         ssl-lab predict run=DIR input=FILE|FOLDER [out=FILE.csv]   (text='...': one text)",
    "embed": "write features:     ssl-lab embed run=DIR [data=NAME | input=FOLDER] out=FILE.parquet|.npy|.csv",
    "neighbours": "most similar:       ssl-lab neighbours run=DIR query=FILE [data=NAME | input=FOLDER] [k=10] out=FOLDER",
    "sample": "draw samples:       ssl-lab sample run=DIR [num_samples=80 out=FILE.png] [text='A [MASK]' | prompt='The']",
    "reconstruct": "encode and decode:  ssl-lab reconstruct run=DIR [data=NAME] [num_images=16] [out=FILE.png]",
    "interpolate": "walk in latents:    ssl-lab interpolate run=DIR [first=0 second=1 | seed=0] [steps=10] [out=FILE.png]",
    "export": "for other tools:    ssl-lab export run=DIR format=hf|timm|onnx|torch_export out=DIR [push_to_hub=USER/NAME]",
    "prepare": "tokenise a corpus:  ssl-lab prepare data=text_files data.path=PATH out=DIR [num_workers=N]",
    "bench": "time an experiment: ssl-lab bench experiment=NAME [key=value ...] [num_steps=30]",
    "report": "make report pages:  ssl-lab report DIR [DIR ...] [--out FILE]",
    "runs": "what has run:       ssl-lab runs [DIR ...] [--status failed]    (best METRIC: a ranking)",
    "leaderboard": "results in tables:  ssl-lab leaderboard DIR [DIR ...] [--out FOLDER] [--update FILE.md]",
    "dashboard": "watch and compare:  ssl-lab dashboard [DIR ...] [--open] [--port 8787]   (--out FOLDER: static files)",
    "list": "what there is:      ssl-lab list [methods|data|encoders|experiments|...]",
}
SETTINGS = (
    *("evaluate", "finetune", "predict", "embed", "neighbours", "sample", "reconstruct", "interpolate", "export"),
    *("prepare", "bench"),
)
"""Commands whose settings are ``conf/COMMAND.yaml``, as are those of pretrain; the others read theirs by argparse."""
CHECKED = ("predict", "embed", "neighbours")
"""Commands whose ``check(cfg)`` refuses settings before anything slow is imported."""
