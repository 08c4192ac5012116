"""``ssl-lab neighbours``: the samples that are most similar to a query, as a table and a page of pictures."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ssl_lab.cli.inputs import check_inputs, has_inputs, tell_unread
from ssl_lab.limited import printable
from ssl_lab.outputs import check_output, clear
from ssl_lab.predict.outputs import NEIGHBOURS_PAGE, NEIGHBOURS_TABLE, holds_neighbours, is_page_of_neighbours


def check(cfg: DictConfig) -> None:
    """Refuse what cannot be meant, before anything slow is imported."""
    if (cfg.query is None) == (cfg.text is None):
        found = "neither was given" if cfg.query is None else "both were given"
        raise ValueError(f"ssl-lab neighbours needs query=FILE or text='...', but {found}. Give one of them.")
    if cfg.k < 1:
        raise ValueError(f"Cannot find {cfg.k} neighbours. Set k to 1 or more.")
    if cfg.get("data") is not None and cfg.input is not None:
        raise ValueError("Both data= and input= were given. Give one of them: neighbours are found among its samples.")
    check_inputs(_query_of(cfg), setting="query")
    check_inputs(_among_of(cfg))
    out = Path(cfg.out)
    check_output(out, folder=True)
    for name, ours in ((NEIGHBOURS_TABLE, holds_neighbours), (NEIGHBOURS_PAGE, is_page_of_neighbours)):
        check_output(out / name, ours=ours)


def _query_of(cfg: DictConfig) -> DictConfig:
    """The settings of the query alone."""
    columns = cfg.columns if cfg.query is not None else None
    return OmegaConf.create({"input": cfg.query, "text": cfg.text, "columns": columns})


def _among_of(cfg: DictConfig) -> DictConfig:
    """The settings of the samples among which neighbours are found."""
    columns = cfg.columns if cfg.input is not None else None
    given = {name: cfg.get(name) for name in ("run", "data", "input")}
    return OmegaConf.create({**given, "text": None, "columns": columns, "splits": None})


def run(cfg: DictConfig, args: list[str]) -> int:
    """``ssl-lab neighbours``: rank all samples by the cosine of their features with those of each query."""
    from ssl_lab.cli.commands.embed import data_asked
    from ssl_lab.cli.progress import counting
    from ssl_lab.cli.using import features_of_inputs, open_to_use, places_of
    from ssl_lab.predict.features import features_of_data, num_samples
    from ssl_lab.predict.neighbours import nearest, neighbour_rows, shown_data, shown_inputs, write_neighbours
    from ssl_lab.predict.tables import print_rows

    run_dir, out = Path(cfg.run), Path(cfg.out)
    clear(out / NEIGHBOURS_TABLE, runs=[run_dir])
    opened = open_to_use(run_dir)
    asked, queries = features_of_inputs(_query_of(cfg), opened, setting="query")
    tell_unread(asked.unreadable, opened.datamodule)
    if has_inputs(among_cfg := _among_of(cfg)):
        found, among = features_of_inputs(among_cfg, opened)
        tell_unread(found.unreadable, opened.datamodule)
        shown = shown_inputs(found.given)
    else:
        datamodule = data_asked(among_cfg, args)
        with counting(num_samples(datamodule, None), "samples") as advance:
            features = features_of_data(opened.method, datamodule, opened.device, advance=advance)
        among, shown = features.values, shown_data(features, datamodule)
    questions = shown_inputs(asked.given)
    neighbours = nearest(queries, among, cfg.k, same=places_of(questions, shown))
    if not any(neighbours):
        raise ValueError(f"There is no sample but the query {questions[0].name}. Give more samples by input= or data=.")
    title = (
        f"Most similar to {questions[0].name}" if len(questions) == 1 and questions[0].name else "Most similar samples"
    )
    note = (
        f"Cosine similarity of the features of {run_dir}, 1 for the same direction. {len(shown):,} samples were compared. "
        "A query is not its own neighbour."
    )
    files = write_neighbours(out, questions, shown, neighbours, title=printable(title), note=printable(note))
    if len(files) == 1:
        print_rows(neighbour_rows(questions, shown, neighbours), whole=f"{files[0]} holds all of them.")
    queries_x = f"{len(questions):,} queries x " if len(questions) > 1 else ""
    most = max(map(len, neighbours))
    print(printable(f"{queries_x}{most:,} neighbours among {len(shown):,} samples: {files[-1]}"))
    return 0
