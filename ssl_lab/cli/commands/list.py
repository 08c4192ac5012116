"""``ssl-lab list``."""

from __future__ import annotations

from ssl_lab.cli.paths import choices, config_dir, own_config_dir

TITLES = {
    "methods": "method",
    "data": "data",
    "encoders": "encoder",
    "experiments": "experiment",
    "sweeps": "sweep",
    "tasks": "task",
    "generators": "generator",
    "views": "views",
    "maskings": "masking",
    "evaluations": "evaluation",
    "optimizers": "optim",
    "trainers": "trainer",
    "callbacks": "callbacks",
    "loggers": "logger",
}
NOTES = {
    "experiment": "The first lines of each file give its command, cost and result. Recipes for a GPU give the published "
    "result: docs/benchmarks.md lists what is not measured yet.",
    "generator": "VAEs and their relatives take generator@method.decoder=NAME.",
}
"""A sentence below the choices of a group."""
PLACES = {"generator": "@method.generator", "views": "@method.views", "masking": "@method.masking"}
"""Where a method has a choice of these groups."""
DEFAULT = ("methods", "data", "encoders", "experiments")


def run(args: list[str]) -> int:
    """Print the choices of some groups, each with one line."""
    if {"-h", "--help"} & set(args):
        print(f"usage: ssl-lab list [NAME ...]\n\nNames: {', '.join(TITLES)}. Without one: {', '.join(DEFAULT)}.")
        return 0
    titles = {group: title for title, group in TITLES.items()}
    args = [titles.get(name, name) for name in args]
    unknown = [name for name in args if name not in TITLES]
    if unknown:
        raise ValueError(f"There is no list of {unknown[0]!r}. Choose from: {', '.join(TITLES)}.")
    for title in args or DEFAULT:
        group = TITLES[title]
        print(f"\n{title}  ({group}{PLACES.get(group, '')}=NAME)")
        described = choices(group)
        width = max(map(len, described), default=0)
        for name, text in described.items():
            print(f"  {name:<{width}}  {text}")
        if group in NOTES:
            print(f"  {NOTES[group]}")
    folders = ", ".join(str(folder) for folder in (config_dir(), own_config_dir()) if folder)
    print(f"\nAlso: {', '.join(name for name in TITLES if name not in DEFAULT)}. Files: {folders}")
    return 0
