"""From a composed configuration to live objects, in one place and one order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ssl_lab.cli.arguments import literal
from ssl_lab.cli.instantiate import check_types, class_of, instantiate, takes
from ssl_lab.cli.paths import no_run
from ssl_lab.cli.trust.spec import read_spec
from ssl_lab.cli.trust.targets import read_settings
from ssl_lab.data.base import DataModule
from ssl_lab.encoders.lora import add_adapters, has_adapters
from ssl_lab.engine.callbacks.progress import CompactBar
from ssl_lab.engine.checkpoints.checkpoint import load_weights
from ssl_lab.engine.checkpoints.signals import slurm_job
from ssl_lab.engine.logging.dashboards import guarded
from ssl_lab.engine.sync_batch_norm import SyncBatchNormLayers
from ssl_lab.evaluation.on_data import OnData
from ssl_lab.evaluation.protocol import Protocol
from ssl_lab.evaluation.samples.real_images import module_digest
from ssl_lab.extras import require
from ssl_lab.files import write_atomically
from ssl_lab.methods.base import Method
from ssl_lab.runs.directory import BEST_CHECKPOINT, DATA_SPEC, find_checkpoint, read_json, write_spec
from ssl_lab.types import Encoder, Spec

OF_START = ("from_run", "weights", "normalise_by")
"""Settings of every encoder that say where its weights come from; see :mod:`ssl_lab.cli.starting`."""
_BEING_BUILT: list[Path] = []


def build_data(node: DictConfig, *, seed: int) -> DataModule:
    """The data module, its order of samples seeded by the run's seed.

    Raises:
        ValueError: If settings of data are given, but no data.
    """
    if "_target_" not in node:
        raise ValueError(
            f"Cannot set data.{next(iter(node))!s}: no data is chosen. Add data=NAME, see ssl-lab list data."
        )
    return instantiate(node, _partial_=True, _convert_="all")(seed=seed)  # type: ignore[no-any-return]


def build_encoder(node: DictConfig, spec: Spec, *, run_dir: Path | None = None) -> Encoder:
    """The encoder for a data set; an argument ``run:DIR`` becomes that run's method.

    Args:
        node: Its settings.
        spec: The facts of the data.
        run_dir: A run whose weights it will get, so that it is built without those that it was pretrained from.
    """
    own = takes(node) or ()
    fixed = OmegaConf.masked_copy(node, [str(name) for name in node if name not in OF_START or name in own])
    if run_dir is not None:
        fixed.update(encoder_in_run(node, run_dir))
    runs = {str(name): value for name, value in fixed.items() if isinstance(value, str) and value.startswith("run:")}
    fixed.update(dict.fromkeys(runs))
    methods = {name: load_run(Path(value.removeprefix("run:")))[2] for name, value in runs.items()}
    return instantiate(fixed, _partial_=True, _convert_="all")(spec, **methods)  # type: ignore[no-any-return]


def encoder_in_run(node: DictConfig, run_dir: Path) -> dict[str, Any]:
    """Settings that build the encoder of a run without loading its published weights."""
    kind = class_of(node)
    found = kind.settings_in_run(run_dir, node) if issubclass(kind, Encoder) else {}
    return {name: literal(value) for name, value in found.items()}


def build_method(
    cfg: DictConfig,
    spec: Spec,
    *,
    begin_with: Callable[[Encoder], Any] | None = None,
    run_dir: Path | None = None,
) -> Method:
    """Encoder, optimizer settings and the method around them.

    Args:
        cfg: The configuration.
        spec: The facts of the data that the encoder is built from.
        begin_with: Gives the encoder its first weights.
        run_dir: As of :func:`build_encoder`.

    Raises:
        ValueError: If settings do not fit each other.
    """
    encoder = build_encoder(cfg.encoder, spec, run_dir=run_dir)
    if begin_with is not None:
        begin_with(encoder)
    adapters = cfg.get("lora") or {}
    if adapters.get("rank") is not None:
        add_adapters(encoder, **OmegaConf.to_container(adapters))  # type: ignore[arg-type]
    optim = instantiate(cfg.optim, _convert_="all")
    method: Method = instantiate(cfg.method, _partial_=True, _convert_="all")(encoder, optim)
    if has_adapters(encoder) and not any(p.requires_grad for p in encoder.parameters()):
        raise ValueError(
            f"lora.rank={cfg.lora.rank} has no effect: the whole encoder is frozen. Set method.freeze=none, or leave "
            "lora.rank out."
        )
    if cfg.get("activation_checkpointing"):
        if cfg.get("compile"):
            raise ValueError(
                "activation_checkpointing=true and compile=true do not go together: the compiler decides by itself what to "
                "compute again. Set one of them to false."
            )
        encoder.layer_groups().recompute_activations()
    if cfg.get("compile"):
        _check_compiles(method, encoder)
        for module in (encoder, *method.pretexts()):
            module.compile(dynamic=False)  # in place: names in the state dict stay
    return method


def _check_compiles(method: Method, encoder: Encoder) -> None:
    """Refuse an encoder whose features bypass the compiled forward pass.

    Raises:
        ValueError: If its embed does not call its forward, and it does not say by a compile of its own what to compile.
    """
    tower = encoder.tower
    if type(tower).compile is not nn.Module.compile:
        return
    calls: list[nn.Module] = []
    with tower.register_forward_pre_hook(lambda module, _: calls.append(module)):
        method.in_eval_mode(torch.no_grad()(encoder.embed))(tower.spec.example(2))
    if not calls:
        raise ValueError(
            f"Cannot compile {type(tower).__name__}: its embed does not pass through a forward, which is what would be "
            "compiled. Set compile=false, or give it a forward that its embed calls as self(...)."
        )


def build_protocols(node: DictConfig | None, build: Callable[[DictConfig], DataModule]) -> list[Protocol]:
    """The protocols of an evaluation group; ``encoder: run:DIR`` inside one becomes that run's encoder.

    Where ``encoder_name`` is not given, it is made of the run's method, its data and a digest of the encoder's weights.

    Args:
        node: The group.
        build: Builds the data that protocols have of their own; those of equal settings are built once.
    """
    known: dict[str, DataModule] = {}
    return [_build_protocol(settings, build, known) for settings in _parts(node)]


def _build_protocol(
    settings: DictConfig, build: Callable[[DictConfig], DataModule], known: dict[str, DataModule]
) -> Protocol:
    fixed = settings.copy()
    live: dict[str, Any] = {}
    if class_of(settings) is OnData:
        check_types(settings)
        if not isinstance(settings.get("protocol"), DictConfig):
            key = settings._get_full_key("protocol")
            raise ValueError(
                f"OnData needs a protocol, but {key} is {settings.get('protocol')}. Set it to a mapping with _target_."
            )
        live["protocol"] = _build_protocol(settings.protocol, build, known)
        data = settings.get("data")
        if data is not None:
            key = OmegaConf.to_yaml(data, resolve=True)
            if key not in known:
                known[key] = build(data)
            live["data"] = known[key]
        fixed.update(dict.fromkeys(live))
    source = fixed.get("encoder")
    if isinstance(source, str):
        if not source.startswith("run:"):
            raise ValueError(f"A protocol's encoder is given as run:DIR, found {source!r}.")
        fixed.encoder = None
        run_dir = Path(source.removeprefix("run:"))
        encoder = live["encoder"] = load_run(run_dir)[2].feature_encoder
        if fixed.get("encoder_name") in (None, "pixels"):
            fixed.encoder_name = _name_of_encoder(run_dir, encoder)
    if not live:
        return instantiate(fixed, _convert_="all")  # type: ignore[no-any-return]
    return instantiate(fixed, _partial_=True, _convert_="all")(**live)  # type: ignore[no-any-return]


def judge_samples_by(source: str, evaluation: DictConfig) -> None:
    """Give ``source``, a ``run:DIR``, to every protocol that takes an encoder.

    Raises:
        ValueError: If none does.
    """
    measuring = [node.get("protocol", node) if class_of(node) is OnData else node for node in evaluation.values()]
    settings = [node for node in measuring if "encoder" in node]
    if not settings:
        names = ", ".join(map(str, evaluation)) or "no protocol"
        raise ValueError(
            f"metric.encoder={source} says on whose features samples are judged, but none takes an encoder ({names}). Add "
            "evaluation=samples."
        )
    for node in settings:
        node.encoder = source


def _name_of_encoder(run_dir: Path, encoder: Encoder) -> str:
    summary = read_json(run_dir / "summary.json")
    words = [summary.get("method", type(encoder).__name__), summary.get("data", ""), module_digest(encoder)[:6]]
    return re.sub(r"[^a-z0-9]+", "_", " ".join(words).lower())


def build_trainer(cfg: DictConfig, run_dir: Path, *, progress_bar: bool) -> L.Trainer:
    """Lightning's trainer in the run directory; ``sync_batchnorm`` works on the CPU too."""
    settings = cfg.trainer.copy()
    synchronise = settings.sync_batchnorm
    settings.sync_batchnorm = False
    plugins: list[Any] = [SyncBatchNormLayers()] if synchronise else []
    if slurm_job() and SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))  # SaveCheckpoint saves and requeues
    if any(str(node.get("_target_")).endswith(".TensorBoardLogger") for node in _parts(cfg.logger)):
        require("log to TensorBoard (logger=tensorboard)", "tensorboard")
    loggers = [instantiate(node, _convert_="all") for node in _parts(cfg.logger)]
    _refuse_to_delete(loggers, run_dir)
    callbacks = [instantiate(node, _convert_="all") for node in _parts(cfg.callbacks)]
    if progress_bar and not any(isinstance(callback, ProgressBar) for callback in callbacks):
        callbacks.append(CompactBar())
    try:
        return instantiate(settings, _partial_=True, _convert_="all")(  # type: ignore[no-any-return]
            default_root_dir=str(run_dir),
            callbacks=callbacks,
            logger=guarded(loggers) or False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=progress_bar,
            use_distributed_sampler=False,
            plugins=plugins,
        )
    except (TypeError, MisconfigurationException) as error:  # Lightning's words for a value that it does not take
        if settings.accelerator != "cpu" and re.search("backend found|not available", str(error)):
            raise ValueError(
                f"Cannot train with trainer.accelerator={settings.accelerator}: this machine has no such device that torch "
                "can use. Set trainer.accelerator=cpu, or start the command where there is one."
            ) from error
        raise ValueError(
            f"Lightning's trainer refuses its settings: {error} Change trainer.*, see --cfg job."
        ) from error


def _refuse_to_delete(loggers: Sequence[Any], run_dir: Path) -> None:
    """Refuse a logger that would delete a file: Lightning's CSVLogger starts with an empty ``metrics.csv``.

    Raises:
        ValueError: If there is one, outside of the run directory or in the run's own place.
    """
    for logger in loggers:
        if isinstance(logger, CSVLogger):
            file = Path(logger.log_dir, "metrics.csv").resolve()
            inside = file.is_relative_to(run_dir.resolve()) and file.parent != run_dir.resolve()
            if file.exists() and not inside:
                raise ValueError(
                    f"{type(logger).__name__} would delete {file}. Give its save_dir= a folder of its own below run_dir."
                )


def _parts(node: DictConfig | None) -> list[DictConfig]:
    """The objects that a group of several names; one that was set to null is left out.

    Raises:
        ValueError: If one is neither.
    """
    for name, settings in (node or {}).items():
        if settings is not None and not isinstance(settings, DictConfig):
            raise ValueError(
                f"{node._get_full_key(name)}={settings!r} is not an object: give a mapping with _target_ there. "  # type: ignore[union-attr]
                "Set single settings of it, or null to leave it out."
            )
    return [settings for settings in (node or {}).values() if settings is not None]


def save_config(
    cfg: DictConfig,
    overrides: list[str],
    datamodule: DataModule,
    run_dir: Path,
    *,
    encoder: Encoder,
    spec: Spec | None = None,
) -> None:
    """Write the settings and data artifacts from which the run can be rebuilt.

    Args:
        cfg: The run's configuration.
        overrides: What was asked on the command line.
        datamodule: The data.
        run_dir: The run directory.
        encoder: What is trained.
        spec: What the encoder was built from, if not from the data's own facts.
    """
    resolved = OmegaConf.to_yaml(literal(OmegaConf.to_container(cfg, resolve=True)))
    write_atomically(run_dir / "config.yaml", lambda path: _write(path, resolved))
    write_atomically(
        run_dir / "overrides.yaml", lambda path: _write(path, yaml.safe_dump(overrides, allow_unicode=True))
    )
    write_spec(run_dir, spec or datamodule.spec)
    if spec is not None:
        write_spec(run_dir, datamodule.spec, DATA_SPEC)
    encoder.save_in_run(run_dir)
    for name, artifact in datamodule.artifacts().items():
        artifact.save_pretrained(str(run_dir / name))


def read_setup(run_dir: Path) -> tuple[DictConfig, Spec]:
    """Configuration of a run, and the data facts that its encoder was built from.

    Raises:
        FileNotFoundError: If the directory is no run.
        ValueError: If its configuration cannot be read, or names what could run code.
    """
    if not (run_dir / "config.yaml").is_file():
        raise no_run(run_dir, "config.yaml")
    settings = read_settings(run_dir / "config.yaml")
    return settings, read_spec(run_dir, settings)


def load_run(run_dir: Path) -> tuple[DictConfig, Spec, Method]:
    """Configuration, data facts and method of a run, never compiled, with the weights that it was judged by.

    Raises:
        FileNotFoundError: If the directory is no run or has no checkpoint.
        ValueError: If the checkpoint is damaged or holds code.
    """
    cfg, spec = read_setup(run_dir)
    checkpoint = judged_checkpoint(run_dir)
    cfg.activation_checkpointing = False
    cfg.compile = False  # each new shape, such as each length of a text, would wait for the compiler
    with _once(run_dir):
        method = build_method(cfg, spec, run_dir=run_dir)
    load_weights(method, checkpoint)
    return cfg, spec, method.eval()


def judged_checkpoint(run_dir: Path) -> Path:
    """The checkpoint that a run was judged by: its last one, or the best where the run chose that.

    Raises:
        FileNotFoundError: If a finished run has lost its best checkpoint, or a run has none at all.
    """
    chosen = read_settings(run_dir / "config.yaml", to_build=False).get("select")
    best = run_dir / BEST_CHECKPOINT
    if chosen != "best" or not best.is_file():
        last = find_checkpoint(run_dir)
        if chosen == "best" and read_json(run_dir / "summary.json").get("status") == "finished":
            raise FileNotFoundError(
                f"Cannot load {run_dir}: it was judged by its best checkpoint, and {best} is missing. Restore the file, or "
                "write select: last into its config.yaml to use the last checkpoint."
            )
        return last
    return best


@contextmanager
def _once(run_dir: Path) -> Iterator[None]:
    """Refuse a run that contains itself, directly or through other runs."""
    folder = run_dir.resolve()
    if folder in _BEING_BUILT:
        raise ValueError(
            f"{run_dir} names itself as a part of its own network (run:DIR). Give the run of another network."
        )
    _BEING_BUILT.append(folder)
    try:
        yield
    finally:
        _BEING_BUILT.remove(folder)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
