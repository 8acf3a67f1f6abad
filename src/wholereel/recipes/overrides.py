"""`--set path.to.field=value`: change a recipe by paths, and say how two recipes differ. Torch-free.

A path follows fields of the settings and keys of mappings (`stages.train.optim.lr`); a value is written in YAML
(`[1, 2]`, `null`, `{after: [layer3]}`) and checked against the field's annotation, so that a misspelt name or a wrong
type ends before anything runs.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import yaml

from wholereel import config
from wholereel.errors import ConfigError, closest
from wholereel.recipes.plain import build, field_types, from_plain, to_plain

__all__ = ["apply_overrides", "diff", "from_plain", "stage_overrides", "to_plain"]


T = TypeVar("T")


def apply_overrides(settings: T, assignments: Iterable[str]) -> T:
    """A recipe (or a part of one) with some settings changed, one after the other.

    Args:
        settings: a recipe, a stage or any other settings dataclass; stays as it is.
        assignments: texts such as `"stages.train.optim.lr=0.05"`.
    Raises: ConfigError: no `=`, an unknown path (the error lists the legal fields), or a value that does not fit.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path.strip():
            raise ConfigError(f"--set {assignment}: expected path.to.field=value, e.g. stages.train.optim.lr=0.05.")
        keys = path.strip().split(".")
        if isinstance(settings, config.Recipe) and keys[0] in settings.stages and not hasattr(settings, keys[0]):
            raise ConfigError(f"--set {assignment}: no setting {keys[0]!r}. Did you mean 'stages.{path.strip()}'?")
        changed: T = _set(settings, type(settings), keys, text.strip(), "")
        settings = changed
    return settings


def stage_overrides(recipe: config.Recipe, **values: object) -> list[str]:
    """Assignments that set the same field in all training and evaluation stages that have it; `None` is left out.

    Stages that generate data are left as they are, and `batch` is training only. `--seed` does not come this way: the
    recipe's function takes it, for the data that it generates as for its trainings.

    Raises: ConfigError: no stage of the recipe has such a field.
    """
    assignments = []
    for field, value in values.items():
        if value is None:
            continue
        owner_types = config.Train if field == "batch" else (config.Train, config.Evaluate)
        owners = [
            name for name, stage in recipe.stages.items() if isinstance(stage, owner_types) and hasattr(stage, field)
        ]
        if not owners:
            raise ConfigError(f"--{field}: recipe {recipe.name!r} has no stage with a setting {field!r}.")
        assignments += [f"stages.{name}.{field}={value}" for name in owners]
    return assignments


def diff(before: config.Recipe, after: config.Recipe) -> dict[str, tuple[Any, Any]]:
    """Paths at which two recipes differ, each with both plain values (`None` where one has no such path)."""
    found: dict[str, tuple[Any, Any]] = {}
    _compare(to_plain(before), to_plain(after), "", found)
    return found


def _compare(before: Any, after: Any, path: str, found: dict[str, tuple[Any, Any]]) -> None:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            _compare(before.get(key), after.get(key), f"{path}.{key}" if path else key, found)
    elif before != after:
        found[path] = (before, after)


def _set(owner: Any, annotation: Any, keys: Sequence[str], text: str, path: str) -> Any:
    """`owner` with the value at `keys` replaced; `annotation` is the owner's type, `path` where it stands."""
    if not keys:
        return build(annotation, _parse(text, annotation, path), path)
    key, here = keys[0], f"{path}.{keys[0]}" if path else keys[0]
    if dataclasses.is_dataclass(owner) and not isinstance(owner, type):
        fields = field_types(type(owner))
        if key not in fields:
            raise _unknown(key, path, fields)
        changed = _set(getattr(owner, key), fields[key], keys[1:], text, here)
        return dataclasses.replace(owner, **{key: changed})
    if isinstance(owner, Mapping):
        member = typing.get_args(annotation)[1] if typing.get_args(annotation) else Any
        if key not in owner and dataclasses.is_dataclass(next(iter(owner.values()), None)):
            raise _unknown(key, path, owner)  # stages are not invented on the command line
        return {**owner, key: _set(owner.get(key), member, keys[1:], text, here)}
    if owner is None and (cls := _settings_class(annotation)) is not None:
        raise ConfigError(
            f"--set {here}: {path} is null here. Set it as a whole first, e.g. --set '{path}={{}}' for the defaults of "
            f"{cls.__name__} ({', '.join(field_types(cls))})."
        )
    raise ConfigError(f"--set {here}: {path} is a plain value ({owner!r}) and has no settings below it.")


def _settings_class(annotation: Any) -> type | None:
    members = [annotation, *typing.get_args(annotation)]
    return next((member for member in members if isinstance(member, type) and dataclasses.is_dataclass(member)), None)


def _unknown(key: str, path: str, names: Iterable[str]) -> ConfigError:
    names = list(names)
    where = f" in {path}" if path else ""
    return ConfigError(f"--set: no setting {key!r}{where}.{closest(key, names)} Legal: {', '.join(names)}.")


def _parse(text: str, annotation: Any, path: str) -> Any:
    """YAML, except that a text field takes its text literally (`name=on` is not True, `root=007` not 7)."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = str(getattr(error, "problem", None) or error)
        raise ConfigError(f"--set {path}={text}: the value is not YAML ({problem}); quote it if it is text.") from None
    wants_text = annotation is str or str in typing.get_args(annotation) or _is_text_literal(annotation)
    if wants_text and isinstance(value, (bool, int, float)):
        return text
    return value


def _is_text_literal(annotation: Any) -> bool:
    return typing.get_origin(annotation) is typing.Literal and all(
        isinstance(choice, str) for choice in typing.get_args(annotation)
    )
