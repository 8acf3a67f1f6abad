"""Which network a file of published weights belongs to, and the same weights in another layout.

A network is recognised from the names and shapes of all its tensors except the classifier's. Networks that differ only
in what these don't show (temporal strides, a pool, an epsilon, the clip they read) fit the same file; then the name
must be given, because the wrong one would load and predict nonsense.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from wholereel.errors import CheckpointError, ConfigError
from wholereel.models.clip_model import ClipModel
from wholereel.models.layouts import OWN, Layout, rename
from wholereel.models.registry import create_model, list_models
from wholereel.models.weights import METADATA_KEY, fit_clip_weights, read_description, read_tensors, with_own_names

__all__ = ["Converted", "Match", "convert_weights", "recognise"]


@dataclass(frozen=True)
class Match:
    """A network that a file fits.

    Args:
        name: of the model. layout: of the file's names.
        options: of the model, where networks in this layout have settings that the model's defaults differ from.
        classes: K of the file's classifier, 0 without one.
    """

    name: str
    layout: str
    options: Mapping[str, Any]
    classes: int

    def __str__(self) -> str:
        options = "".join(f", {name}={value}" for name, value in self.options.items())
        return f"{self.name} ({self.layout} names{options})"


@dataclass(frozen=True)
class Converted:
    """What was done: the network, the layout written, tensors that were left out."""

    match: Match
    layout: str
    unused: tuple[str, ...]


def recognise(tensors: Mapping[str, Tensor], names: list[str] | None = None) -> list[Match]:
    """All networks of the registry (or of `names`) that these tensors fit; models are built without storage."""
    matches = []
    for name in list_models(kind="clip") if names is None else names:
        with torch.device("meta"):
            model = create_model(name, num_classes=1)
        match = _match(name, model, tensors)
        if match is not None:
            matches.append(match)
    return matches


def _match(name: str, model: ClipModel, tensors: Mapping[str, Tensor]) -> Match | None:
    own, head = model.state_dict(), f"{model.classifier}."
    shapes = _shapes(value for key, value in own.items() if not key.startswith(head))
    if shapes - _shapes(tensors.values()):
        return None  # without renaming anything, which takes most of the time
    layout, renamed = with_own_names(model, tensors)
    needed = {key for key in own if not key.startswith(head) and not key.endswith("num_batches_tracked")}
    given = {key for key in renamed if not key.startswith(head) and not key.endswith("num_batches_tracked")}
    if needed != given or any(own[key].shape != renamed[key].shape for key in needed):
        return None
    classes = renamed.get(f"{head}weight")
    known = {key: value for key, value in layout.settings.items() if key in model.settings}
    options = {key: value for key, value in known.items() if model.settings[key] != value}
    return Match(name, layout.name, options, 0 if classes is None else len(classes))


def _shapes(tensors: Iterable[Tensor]) -> Counter[tuple[int, ...]]:
    """How often each shape occurs; axes of length one and single numbers don't count."""
    return Counter(tuple(size for size in tensor.shape if size > 1) for tensor in tensors if tensor.ndim)


def convert_weights(
    source: Path,
    target: Path,
    *,
    model: str | None = None,
    layout: str = OWN.name,
    options: Mapping[str, Any] | None = None,
) -> Converted:
    """Write the weights of a file as safetensors, with a description of the network and how it reads clips.

    Args:
        source: `.pth`, `.pyth`, `.pkl` of Caffe2, or `.safetensors`.
        target: file to write; replaced in one step.
        model: the network; recognised where `None`.
        layout: names to write.
        options: of the network, over those that the source's layout or description has.
    Raises:
        CheckpointError: no network fits, or several do.
        ConfigError: an unknown model, option or layout; a target that is no `.safetensors`.
    """
    if target.suffix != ".safetensors":
        raise ConfigError(f"{target}: weights are written as .safetensors.")
    tensors, described = read_tensors(source), read_description(source)
    names = [model] if model else [described["model"]] if "model" in described else None
    matches = recognise(tensors, names)
    if not matches:
        whose = "fit no known network" if names is None else f"do not fit the network {names[0]}"
        found = f"{len(tensors)} tensors that {whose}"
        raise CheckpointError(source, found, "the weights of one network", "`wholereel models` lists the networks.")
    if len(matches) > 1:
        several = "; ".join(str(match) for match in matches)
        raise CheckpointError(
            source, f"weights that fit {len(matches)} networks: {several}", "one", "Name the network with --model."
        )
    match = matches[0]
    chosen = {**match.options, **described.get("options", {}), **(options or {})}
    network = create_model(match.name, num_classes=match.classes, **chosen)
    report = fit_clip_weights(network, tensors, source)
    legal = {known.name: known for known in (OWN, *network.layouts())}
    if layout not in legal or layout.endswith("caffe2"):
        written = ", ".join(name for name in legal if not name.endswith("caffe2"))
        raise ConfigError(f"{match.name} is not written with the names {layout!r}; there are: {written}.")
    _write(target, network, legal[layout], _description(network, match, chosen, source, described))
    return Converted(Match(match.name, match.layout, chosen, match.classes), layout, report.unused)


def _description(
    network: ClipModel, match: Match, options: Mapping[str, Any], source: Path, described: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "model": match.name,
        "options": dict(options),
        "num_classes": match.classes,
        "settings": network.settings,
        "input": asdict(network.info),
        "source": described.get("source", {"file": source.name, "layout": match.layout}),
    }


def _write(target: Path, network: ClipModel, layout: Layout, description: Mapping[str, Any]) -> None:
    state = network.state_dict()
    tensors = {theirs: state[ours].contiguous() for theirs, ours in rename(state, layout).items()}
    part = target.with_name(f".{target.name}.part")
    save_file(tensors, part, metadata={METADATA_KEY: json.dumps(description)})
    os.replace(part, target)
