"""Building objects from settings whose types have been compared with the signatures that they are for."""

from __future__ import annotations

import collections.abc
import difflib
import functools
import inspect
import math
import pydoc
import re
import types
import typing
from pathlib import Path
from typing import Any, Literal, Union

import hydra.utils
from omegaconf import DictConfig, ListConfig, OmegaConf

from ssl_lab.cli.trust.targets import check_targets

_SCALARS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "null",
}


def instantiate(node: DictConfig, **settings: Any) -> Any:
    """Hydra's ``instantiate`` with every class and setting checked first, also when a partial is completed.

    Raises:
        ValueError: Naming a class that may not be taken from settings; or the setting, what its constructor takes, and
            what was found.
    """
    check_targets(node, "The settings")
    check_types(node)
    built = hydra.utils.instantiate(node, **settings)
    return _Checked(built, node._get_full_key(None)) if isinstance(built, functools.partial) else built


class _Checked:
    """A constructor with its settings, called with the live objects that it is for.

    Arguments that do not fit its signature are an error of the settings; an error within it passes as it is.
    """

    def __init__(self, built: functools.partial[Any], key: str) -> None:
        self.built = built
        self.key = key

    def __call__(self, *live: Any, **more: Any) -> Any:
        """Build it.

        Raises:
            ValueError: If the signature takes other arguments.
        """
        signature = _signature(self.built.func)
        try:
            if signature is not None:
                signature.bind(*live, **{**self.built.keywords, **more})
        except TypeError as error:
            name = getattr(self.built.func, "__name__", self.built.func)
            if missing := re.search("missing a required (?:keyword-only )?argument: '(.*)'", str(error)):
                key = f"{self.key}.{missing[1]}"
                raise ValueError(f"{name} needs {key}. Give it on the command line as +{key}=VALUE.") from None
            if twice := re.search("multiple values for argument '(.*)'", str(error)):
                raise ValueError(
                    f"{self.key}.{twice[1]} is given by ssl_lab itself. Leave {self.key}.{twice[1]} out."
                ) from None
            raise ValueError(
                f"{name}{signature} cannot be built from {self.key}: {error}. ssl_lab gives it {len(live)} positional "
                f"arguments ({', '.join(type(each).__name__ for each in live)}); its signature must take them."
            ) from None
        return self.built(*live, **more)


def class_of(node: DictConfig) -> type:
    """The class that a node builds, which is imported; ``object`` where it names none."""
    check_targets(node, "The settings")
    found = _located(node.get("_target_"))
    return found if inspect.isclass(found) else object


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
    target = _located(node.get("_target_")) if not OmegaConf.is_missing(node, "_target_") else None
    hints = _hints(target)
    _refuse_unknown(node, target)
    for name in node:
        key = node._get_full_key(name)
        if OmegaConf.is_missing(node, name):
            raise ValueError(f"Missing mandatory value: {key}. Give it on the command line as {key}=VALUE.")
        value = node[name]
        check_types(value)
        if name in hints:
            check_value(key, value, hints[name])
            if str(getattr(target, "__module__", "")).startswith("ssl_lab."):
                _check_size(key, value)


def check_value(key: str, value: Any, hint: Any) -> None:
    """Compare the value of a setting with an annotation.

    Raises:
        ValueError: If it is of another type.
    """
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    if not _accepts(hint, plain):
        raise ValueError(
            f"{key} should be {_describe(hint)}, found {plain!r}. Set {key} to another value, or leave it out."
        )


def _check_size(key: str, value: Any) -> None:
    """Refuse numbers that are not finite, which pass comparisons with bounds or switch an objective off, and empty layers.

    Raises:
        ValueError: Naming the setting.
    """
    numbers = [each for each in (value if isinstance(value, ListConfig) else [value]) if isinstance(each, int | float)]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{key} should be finite, found {value}. Set {key} to another value, or leave it out.")
    if re.search(r"(dim|width)s?$", key) and min(numbers, default=1) < 1:
        raise ValueError(f"{key} is the width of a layer, at least 1, found {value}. Set {key} to a larger number.")


def _refuse_unknown(node: DictConfig, target: Any) -> None:
    """Refuse settings that a signature lacks.

    Raises:
        ValueError: Naming the setting, a near one if there is, and all.
    """
    parameters = _parameters(target)
    for name in node if parameters is not None else ():
        assert parameters is not None
        if name not in parameters and not str(name).startswith("_"):
            key = node._get_full_key(name)
            close = difflib.get_close_matches(str(name), list(parameters), n=1)
            hint = f" Did you mean {key.removesuffix(str(name))}{close[0]}?" if close else ""
            known = [one for one in parameters if one in node or parameters[one].default is not inspect.Parameter.empty]
            raise ValueError(
                f"{target.__name__} has no setting {name!r}, which {key} sets.{hint} Leave {key} out; {target.__name__} "
                f"takes {', '.join(known) or 'no settings'}."
            )


def takes(node: DictConfig) -> list[str] | None:
    """Names of settings that the target of a node takes; None if unknown or unlimited."""
    parameters = _parameters(_located(node.get("_target_")))
    return None if parameters is None else list(parameters)


def _parameters(target: Any) -> dict[str, inspect.Parameter] | None:
    signature = _signature(target)
    if signature is None or any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values()):
        return None
    return {name: one for name, one in signature.parameters.items() if one.kind is not one.POSITIONAL_ONLY}


def _signature(target: Any) -> inspect.Signature | None:
    """Return the signature of a class or function; None where it is not known."""
    try:
        return inspect.signature(target)
    except (TypeError, ValueError):  # nothing, or written in C
        return None


def _located(target: Any) -> Any:
    """Import the object at a dotted path; None if it does not exist, which Hydra reports."""
    if target is None:
        return None
    check_targets({"_target_": target}, "The settings")
    try:
        return pydoc.locate(target)
    except pydoc.ErrorDuringImport as error:  # which wraps signals too
        if isinstance(error.value, BaseException) and not isinstance(error.value, Exception):
            raise error.value from None
        return None


def _hints(target: Any) -> dict[str, Any]:
    """Annotations of a class or function, by argument; empty where they are not known."""
    if inspect.isclass(target):
        owner = next(each for each in target.__mro__ if "__init__" in vars(each))
        # A dataclass takes fields of its bases, whose annotations are read where they stand.
        target = owner if "__dataclass_params__" in vars(owner) else vars(owner)["__init__"]
    try:
        return typing.get_type_hints(target)
    except (TypeError, NameError, AttributeError):
        return {}


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
        if "_target_" in value:
            return True
        if issubclass(kind, collections.abc.Mapping) and inner:
            return all(_accepts(inner[1], item) for item in value.values())
        return not _is_sequence(kind)
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
