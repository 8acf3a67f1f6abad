"""Settings of a run as plain data, and what may differ when it is resumed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from wholereel.config import Train
from wholereel.errors import ConfigError

__all__ = ["check_resumable", "flatten", "settings_of"]

# Where results are the same, whatever the value.
FREE = (
    "checkpoint_minutes",
    "data.workers",
    "data.root",
    "data.cache",
    "val.workers",
    "val.root",
    "val.cache",
    "data.bank.root",
    "val.bank.root",
)
# Shown where they differ, but no reason to stop: the checkpoint's weights replace those that the model began with, and
# the path of an earlier stage's package is another text once the run's folder has been moved.
BEGINNING = ("model.weights",)
# What a run can go on with after a change, if the user says so: (epoch, step) and all states keep their meaning.
ALLOWED = ("epochs", "optim.", "task.", "val", "views", "validate_every", "precision", "compile", "data.augment.",
           "data.max_bad")  # fmt: skip
# Which states a checkpoint holds depends on these.
FIXED = ("optim.name", "optim.ema", "optim.frozen", "task.kind", "task.multi_label", "data.augment.copies")


def settings_of(train: Train, sample_ids: Iterable[str], world_size: int) -> dict[str, Any]:
    """What determines a run: its settings, the samples and the number of processes; JSON-ready."""
    digest = hashlib.sha256("\n".join(sample_ids).encode()).hexdigest()[:16]
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(train)))
    return {**plain, "samples": digest, "world_size": world_size}


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"optim": {"lr": 0.1}}` becomes `{"optim.lr": 0.1}`; lists stay whole."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def check_resumable(
    saved: Mapping[str, Any], now: Mapping[str, Any], *, allow_changes: bool, mid_epoch: bool
) -> list[str]:
    """Compare a checkpoint's settings with the present ones.

    Args:
        allow_changes: accept changes that leave the run's position and states meaningful.
        mid_epoch: the checkpoint stands inside an epoch; the number of processes may change only between epochs.
    Returns: the accepted differences, and those without effect on a run that has begun, as text.
    Raises: ConfigError: differences that are not accepted, by name.
    """
    after = flatten(now)
    before = with_new_settings(flatten(saved), after, Train)
    names = [
        name
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and name not in FREE
    ]
    allowed = [name for name in names if _may_change(name, mid_epoch)]
    text = {name: f"{name}: {before.get(name)!r} before, {after.get(name)!r} now" for name in names}
    refused = [text[name] for name in names if name not in BEGINNING and not (allow_changes and name in allowed)]
    if refused:
        remedy = "Use the old settings, or start a new run."
        if not allow_changes and len(allowed) == len(names):
            remedy = "Use the old settings, or start a new run (in Python, `fit` takes allow_changes=True)."
        raise ConfigError(f"the run cannot go on with other settings: {'; '.join(refused)}. {remedy}")
    return list(text.values())


def with_new_settings(saved: Mapping[str, Any], now: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """Saved settings with those that did not exist then: they were what their defaults are now.

    Args:
        saved, now: as `flatten` makes them.
        kind: the dataclass that they are of.
    """
    new = (name for name in now if name not in saved)
    return {**saved, **{name: now[name] for name in new if _was_default(name, now[name], saved, kind)}}


def _was_default(path: str, value: Any, saved: Mapping[str, Any], kind: Any) -> bool:
    """Is this the default at a dotted path, in a part that the saved settings have, or always had?"""
    *parts, last = path.split(".")
    for depth, part in enumerate(parts, start=1):
        above = ".".join(parts[:depth])
        annotation = typing.get_type_hints(kind).get(part)
        kinds = [one for one in (annotation, *typing.get_args(annotation)) if dataclasses.is_dataclass(one)]
        if not kinds:
            return False
        there = any(name.startswith(f"{above}.") for name in saved)
        # A part that is off by default, and was, is switched on now: that is a change whatever stands in it.
        if not there and (above in saved or _field(kind, part).default is not dataclasses.MISSING):
            return False
        kind = kinds[0]
    field = _field(kind, last)
    if field is None or field.default is dataclasses.MISSING:
        return False  # what a factory makes is a part of settings, whose fields are looked at one by one
    return bool(json.loads(json.dumps(field.default)) == value)


def _field(kind: Any, name: str) -> Any:
    return {field.name: field for field in dataclasses.fields(kind)}.get(name)


def _may_change(name: str, mid_epoch: bool) -> bool:
    if name == "world_size":
        return not mid_epoch
    return name in BEGINNING or (name.startswith(ALLOWED) and name not in FIXED)
