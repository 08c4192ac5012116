"""Building objects from settings whose types have been compared with the signatures that they are for."""

from __future__ import annotations

import collections.abc
import inspect
import pydoc
import types
import typing
from pathlib import Path
from typing import Any, Literal, Union

import hydra.utils
from omegaconf import DictConfig, ListConfig, OmegaConf

_SCALARS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "null",
}


def instantiate(node: DictConfig, **settings: Any) -> Any:
    """As Hydra's, after a look at the type of every setting.

    Raises:
        ValueError: Naming the setting, what its constructor takes, and what was found.
    """
    check_types(node)
    return hydra.utils.instantiate(node, **settings)


def check_types(node: Any) -> None:
    """Compare the settings of all objects below a node with the annotations of their constructors.

    Raises:
        ValueError: If one is of another type, or has no value.
    """
    if isinstance(node, ListConfig):
        for place in range(len(node)):
            if not OmegaConf.is_missing(node, place):
                check_types(node[place])
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
        return
    hints = _hints(node.get("_target_")) if not OmegaConf.is_missing(node, "_target_") else {}
    for name in node:
        key = node._get_full_key(name)
        if OmegaConf.is_missing(node, name):
            raise ValueError(f"Missing mandatory value: {key}. Give it on the command line as {key}=VALUE.")
        value = node[name]
        check_types(value)
        plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        if name in hints and not _accepts(hints[name], plain):
            raise ValueError(
                f"{key} should be {_describe(hints[name])}, found {plain!r}. Set {key} to another value, or leave it out."
            )


def _hints(target: Any) -> dict[str, Any]:
    """Annotations of what a path names, by argument; empty where they are not known."""
    try:
        found = pydoc.locate(target) if isinstance(target, str) else None
        return typing.get_type_hints(found.__init__ if inspect.isclass(found) else found)
    except pydoc.ErrorDuringImport as error:  # which wraps signals too
        if isinstance(error.value, BaseException) and not isinstance(error.value, Exception):
            raise error.value from None
        return {}
    except (TypeError, NameError, AttributeError):
        return {}  # no such path, which Hydra reports, or annotations that cannot be evaluated


def _accepts(hint: Any, value: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_accepts(choice, value) for choice in inner)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in inner)
    if hint in _SCALARS:
        kinds = (int, float) if hint is float else hint
        return isinstance(value, kinds) and (hint is bool or not isinstance(value, bool))
    kind = origin or hint
    if not inspect.isclass(kind) or kind in (object, Any):
        return True
    if isinstance(value, dict):
        is_object = "_target_" in value
        return is_object or not _is_sequence(kind)
    if _is_sequence(kind):
        if not isinstance(value, list):
            return False
        if kind is tuple and inner and inner[-1] is not Ellipsis:
            return len(value) == len(inner) and all(map(_accepts, inner, value))
        return not inner or all(_accepts(inner[0], item) for item in value)
    if issubclass(kind, Path):
        return isinstance(value, str | None)
    return value is None  # an object, which may be given later


def _is_sequence(kind: type) -> bool:
    return issubclass(kind, list | tuple | set) or kind in (
        collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection, collections.abc.Set,
    )  # fmt: skip


def _describe(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_describe(choice) for choice in inner))
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if hint in _SCALARS:
        return _SCALARS[hint]
    kind = origin or hint
    if inspect.isclass(kind) and _is_sequence(kind):
        if kind is tuple and inner and inner[-1] is not Ellipsis:
            return f"a list of {len(inner)} ({', '.join(map(_describe, inner))})"
        return f"a list of which each is {_describe(inner[0])}" if inner else "a list"
    if inspect.isclass(kind) and issubclass(kind, collections.abc.Mapping):
        return "a mapping"
    return f"a {getattr(kind, '__name__', kind)} with _target_"
