"""A W&B report of a project's runs: learning curves, speed, and pictures.

    pip install wandb-workspaces
    python docs/examples/wandb_report.py ENTITY ssl_lab --group SWEEP

Needs a login; without ``--save`` the report is only built and printed.
"""

import argparse

import wandb_workspaces.reports.v2 as wr

CURVES = {
    "Loss": ["train/loss"],
    "Evaluation": ["eval/linear/top1", "eval/knn/top1"],
    "Features": ["train/feature_std", "train/feature_rank", "eval/rankme/rank"],
    "Optimizer": ["optim/lr", "optim/grad_norm"],
    "Speed": ["perf/samples_per_sec", "perf/tflops", "perf/mfu", "perf/data_wait_frac"],
}
PICTURES = ["pictures/projection", "pictures/neighbours", "pictures/samples", "pictures/attention"]


def report(entity, project, group=None):
    """The report, not yet saved."""
    filters = f"Metric('group') == '{group}'" if group else ""
    runs = [wr.Runset(entity=entity, project=project, filters=filters)]
    curves = [wr.LinePlot(title=title, x="trainer/global_step", y=keys) for title, keys in CURVES.items()]
    return wr.Report(
        entity=entity,
        project=project,
        title=f"ssl_lab: {group or project}",
        blocks=[
            wr.H1("Learning curves"),
            wr.PanelGrid(panels=curves, runsets=runs),
            wr.H1("Pictures"),
            wr.PanelGrid(panels=[wr.MediaBrowser(media_keys=[key]) for key in PICTURES], runsets=runs),
        ],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entity")
    parser.add_argument("project")
    parser.add_argument("--group", help="runs of one sweep alone")
    parser.add_argument("--save", action="store_true", help="save it as a draft and print its address")
    args = parser.parse_args()
    built = report(args.entity, args.project, args.group)
    print(built.save(draft=True).url if args.save else built)
