"""Settings to plain data and back, with every value checked against the field's annotation. Torch-free.

Plain data is what JSON and YAML hold: mappings, lists, strings, numbers, booleans, null. A stage carries its type
under the key "kind" ("train", "evaluate", ...). Used by `--set`, by the run directory's `config.json` and by resuming.
Not here: paths such as `stages.train.optim.lr` (`overrides.py`).
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, Union

from wholereel import config
from wholereel.errors import ConfigError, closest

__all__ = ["STAGE_KINDS", "build", "field_types", "from_plain", "to_plain"]

STAGE_KINDS: dict[str, type] = {cls.__name__.lower(): cls for cls in typing.get_args(config.Stage)}


@cache
def field_types(cls: type) -> dict[str, Any]:
    """Annotation of each field of a settings class, resolved, in the order of the class."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def to_plain(value: Any) -> Any:
    """Plain data of a recipe, a stage or any part of it; `json.dumps` takes the result."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        kind = type(value).__name__.lower()
        return {"kind": kind, **fields} if STAGE_KINDS.get(kind) is type(value) else fields
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    return value


def from_plain(plain: Mapping[str, Any]) -> config.Recipe:
    """The recipe whose `to_plain` is given; fields that are missing take their defaults.

    Raises: ConfigError: an unknown field, a missing one without default, or a value of a wrong type; names its path.
    """
    recipe: config.Recipe = build(config.Recipe, plain, "")
    return recipe


def build(annotation: Any, value: Any, path: str) -> Any:
    """Turn plain data into a value of the annotated type, or say why not.

    Args:
        annotation: a field's resolved type: a settings class, `Literal`, union, tuple, mapping or scalar.
        value: plain data, or already a value of the type.
        path: where the value stands, for the error.
    Raises: ConfigError: the value does not fit.
    """
    if annotation is Any:
        return value
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return _literal(annotation, value, path)
    if origin in (Union, types.UnionType):
        return _union(annotation, value, path)
    if origin is tuple:
        return _tuple(annotation, value, path)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(annotation, value, path)
    if dataclasses.is_dataclass(annotation):
        return _settings(typing.cast(type, annotation), value, path)
    return _scalar(annotation, value, path)


def _wrong(path: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(f"{path}: got {value!r}, expected {expected}.")


def _scalar(annotation: Any, value: Any, path: str) -> Any:
    if annotation is float and not isinstance(value, bool):
        try:
            return float(value)  # also text: YAML 1.1 reads 1e-3 (without a dot) as a string
        except (TypeError, ValueError):
            raise _wrong(path, value, "a number") from None
    if annotation is int and isinstance(value, bool):
        raise _wrong(path, value, "a whole number")
    if not isinstance(value, annotation):
        names = {int: "a whole number", bool: "true or false", str: "text", type(None): "null"}
        raise _wrong(path, value, names.get(annotation, str(annotation)))
    return value


def _literal(annotation: Any, value: Any, path: str) -> Any:
    choices = typing.get_args(annotation)
    # The type is compared too: True == 1 in Python, but `crops: true` is a mistake.
    for choice in choices:
        if choice == value and type(choice) is type(value):
            return choice
    legal = ", ".join(str(choice) for choice in choices)
    raise ConfigError(f"{path}: got {value!r}, expected one of {legal}.{closest(str(value), map(str, choices))}")


def _union(annotation: Any, value: Any, path: str) -> Any:
    members = [member for member in typing.get_args(annotation) if member is not type(None)]
    if value is None and len(members) < len(typing.get_args(annotation)):
        return None
    if set(members) == set(STAGE_KINDS.values()):
        return _stage(value, path)
    if len(members) == 1:
        try:
            return build(members[0], value, path)
        except ConfigError as error:
            if value is None or dataclasses.is_dataclass(members[0]):
                raise
            raise ConfigError(f"{str(error).rstrip('.')}, or null.") from None
    for member in members:
        try:
            return build(member, value, path)
        except ConfigError:
            continue
    raise _wrong(path, value, " or ".join(getattr(member, "__name__", str(member)) for member in members))


def _stage(value: Any, path: str) -> Any:
    if isinstance(value, tuple(STAGE_KINDS.values())):
        return value
    if not isinstance(value, Mapping) or value.get("kind") not in STAGE_KINDS:
        raise _wrong(path, value, f"a stage, i.e. a mapping with 'kind', one of {', '.join(STAGE_KINDS)}")
    fields = {key: item for key, item in value.items() if key != "kind"}
    return _settings(STAGE_KINDS[value["kind"]], fields, path)


def _tuple(annotation: Any, value: Any, path: str) -> tuple[Any, ...]:
    members = typing.get_args(annotation)
    if not isinstance(value, (list, tuple)):
        raise _wrong(path, value, "a list, e.g. [a, b]")
    if len(members) == 2 and members[1] is Ellipsis:
        members = (members[0],) * len(value)
    if len(members) != len(value):
        raise _wrong(path, list(value), f"a list of {len(members)} values")
    return tuple(
        build(member, item, f"{path}[{i}]") for i, (member, item) in enumerate(zip(members, value, strict=True))
    )


def _mapping(annotation: Any, value: Any, path: str) -> dict[str, Any]:
    _, member = typing.get_args(annotation)
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _wrong(path, value, "a mapping with text keys, e.g. {key: value}")
    return {key: build(member, item, f"{path}.{key}") for key, item in value.items()}


def _settings(cls: type, value: Any, path: str) -> Any:
    if isinstance(value, cls):
        return value
    fields = field_types(cls)
    if not isinstance(value, Mapping):
        raise _wrong(path, value, f"a mapping with any of {', '.join(fields)}")
    for key in value:
        if key not in fields:
            raise ConfigError(
                f"{path or cls.__name__}: no setting {key!r}.{closest(str(key), fields)} Legal: {', '.join(fields)}."
            )
    made = {key: build(fields[key], item, f"{path}.{key}" if path else key) for key, item in value.items()}
    required = [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in required if name not in made]
    if missing:
        raise ConfigError(f"{path or cls.__name__}: {cls.__name__} needs {', '.join(missing)}.")
    return cls(**made)
