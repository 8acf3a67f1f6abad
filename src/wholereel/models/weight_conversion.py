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
from wholereel.models.mvit import MViT
from wholereel.models.mvit_keys import detect_layout, fit_tensors, published_options
from wholereel.models.mvit_layouts import LAYOUTS
from wholereel.models.mvit_said import differing_settings, read_said, said_options
from wholereel.models.registry import create_model, list_models
from wholereel.models.weights import METADATA_KEY, fit_clip_weights, read_description, read_tensors, with_own_names

__all__ = ["Converted", "Match", "convert_weights", "recognise"]

# Where each layout of MViT has its classifier.
HEADS = {name: layout.key("head.projection.weight") for name, layout in LAYOUTS.items()}


@dataclass(frozen=True)
class Match:
    """A network that a file fits.

    Args:
        name: of the model. layout: of the file's names.
        options: of the model, where networks in this layout have settings that the model's defaults differ from.
        classes: K of the file's classifier, 0 without one; several label spaces as a tuple.
    """

    name: str
    layout: str
    options: Mapping[str, Any]
    classes: int | tuple[int, ...]

    def __str__(self) -> str:
        options = "".join(f", {name}={value}" for name, value in self.options.items())
        return f"{self.name} ({self.layout} names{options})"


@dataclass(frozen=True)
class Converted:
    """What was done: the network, the layout written, tensors left out, changed in size, and fresh ones; licence.

    `unlike`: settings in which the network differs from those that are published in the layout; the code that these
    names are from has to be told, as it cannot see them.
    """

    match: Match
    layout: str
    unused: tuple[str, ...]
    resized: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    licence: str = ""
    unlike: tuple[str, ...] = ()


def recognise(
    tensors: Mapping[str, Tensor], names: list[str] | None = None, said: Mapping[str, Any] | None = None
) -> list[Match]:
    """All networks of the registry (or of `names`) that these tensors fit; models are built without storage.

    Args:
        said: what the file says of its network, see `mvit_said.py`.
    """
    matches = []
    for name in _candidates(tensors) if names is None else names:
        more = said_options(said or {}) if name.startswith("memvit_") else {}
        for found in published_options(name, tensors):
            options = {**found, **more}
            with torch.device("meta"):
                model = create_model(name, num_classes=1, **options)
            match = _match(name, model, tensors, options)
            if match is not None:
                matches.append(match)
                break
    return matches


def _candidates(tensors: Mapping[str, Tensor]) -> list[str]:
    kinds = ("tokens", "memory") if any(".attn." in key for key in tensors) else ("clip",)
    return [name for kind in kinds for name in list_models(kind=kind)]


def _match(name: str, model: ClipModel, tensors: Mapping[str, Tensor], built: Mapping[str, Any]) -> Match | None:
    own, head = model.state_dict(), f"{model.classifier}."
    shapes = _shapes(value for key, value in own.items() if not key.startswith(head))
    if shapes - _shapes(model.own_form(tensors).values()):
        return None  # without renaming anything, which takes most of the time
    layout, renamed = with_own_names(model, tensors)
    needed = {key for key in own if not key.startswith(head) and not key.endswith("num_batches_tracked")}
    given = {key for key in renamed if not key.startswith(head) and not key.endswith("num_batches_tracked")}
    if needed != given or any(own[key].shape != renamed[key].shape for key in needed):
        return None
    weights = {key: len(value) for key, value in renamed.items() if key.startswith(head) and key.endswith("weight")}
    spaces = [weights[key] for key in sorted(weights, key=_number)]
    classes = (spaces[0] if spaces else 0) if len(spaces) < 2 else tuple(spaces)
    known = {key: value for key, value in layout.settings.items() if key in model.settings}
    options = {key: value for key, value in known.items() if model.settings[key] != value}
    return Match(name, layout.name, {**built, **options}, classes)


def _number(key: str) -> int:
    return next((int(part) for part in key.split(".") if part.isdigit()), 0)


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
    fit: bool = False,
) -> Converted:
    """Write the weights of a file as safetensors, with a description of the network and how it reads clips.

    Args:
        source: `.pth`, `.pyth`, `.pkl` of Caffe2, or `.safetensors`.
        target: file to write; replaced in one step.
        model: the network; recognised where `None`.
        layout: names to write.
        options: of the network, over those that the source's layout or description has.
        fit: the file is of another size or kind of the network (`model` is needed): tables are resized, what one has
            and the other not is left out or stays fresh; see `mvit_keys.fit_tensors`. A start for training.
    Raises:
        CheckpointError: no network fits, or several do, or the file says of its network what the one that fits has not.
        ConfigError: an unknown model, option or layout; a target that is no `.safetensors`.
    """
    if target.suffix != ".safetensors":
        raise ConfigError(f"{target}: weights are written as .safetensors.")
    tensors, described, said = read_tensors(source), read_description(source), read_said(source)
    if fit:
        return _convert_fitted(source, target, tensors, described, model, layout, dict(options or {}))
    names = [model] if model else [described["model"]] if "model" in described else None
    matches = recognise(tensors, names, said)
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
    chosen = {**described.get("options", match.options), **(options or {})}
    network = create_model(match.name, num_classes=match.classes, **chosen)
    _check_said(network, said, options or {}, source)
    report = fit_clip_weights(network, tensors, source)
    licence = _licence(network, match, described)
    written = _written_layout(network, match.name, layout)
    _write(target, network, written, _description(network, match, chosen, source, described, licence))
    match = Match(match.name, match.layout, chosen, match.classes)
    return Converted(match, layout, report.unused, licence=licence, unlike=_unlike(network, written))


def _check_said(network: ClipModel, said: Mapping[str, Any], chosen: Mapping[str, Any], source: Path) -> None:
    differing = differing_settings(network, said, chosen) if isinstance(network, MViT) else []
    if differing:
        found = ", ".join(f"{place}={theirs}" for place, theirs, _ in differing)
        expected = ", ".join(f"{place}={own}" for place, _, own in differing)
        advice = "No registered network has these settings: build one with MvitConfig and MemoryConfig."
        raise CheckpointError(source, f"says of its network {found}", expected, advice)


def _convert_fitted(
    source: Path,
    target: Path,
    tensors: Mapping[str, Tensor],
    described: Mapping[str, Any],
    model: str | None,
    layout: str,
    options: dict[str, Any],
) -> Converted:
    if model is None:
        raise ConfigError("--fit needs the network that the weights are made to fit; name it with --model.")
    whole = create_model(model, num_classes=0, **options)
    if not isinstance(whole, MViT):
        raise ConfigError(f"--fit serves MViT and MeMViT, not {model}.")
    origin = detect_layout(tensors)
    head = [len(tensors[key]) for key in (HEADS[origin],) if key in tensors]
    network = create_model(model, num_classes=head[0] if head else 400, **options)
    assert isinstance(network, MViT)
    fitted, report = fit_tensors(network, tensors)
    fit_clip_weights(network, fitted, source)
    match = Match(model, origin, options, network.num_classes)
    licence = described.get("licence") or LAYOUTS[origin].licence
    written = _written_layout(network, model, layout)
    _write(target, network, written, _description(network, match, options, source, described, licence))
    return Converted(match, layout, report.dropped, report.resized, report.fresh, licence)


def _written_layout(network: ClipModel, name: str, layout: str) -> Layout:
    legal = {known.name: known for known in (OWN, *network.layouts())}
    if layout not in legal or layout.endswith("caffe2"):
        written = ", ".join(known for known in legal if not known.endswith("caffe2"))
        raise ConfigError(f"{name} is not written with the names {layout!r}; there are: {written}.")
    return legal[layout]


def _unlike(network: ClipModel, layout: Layout) -> tuple[str, ...]:
    own = network.settings
    return tuple(
        f"{name}={own[name]}, not {usual}"
        for name, usual in layout.settings.items()
        if name in own and own[name] != usual
    )


def _licence(network: ClipModel, match: Match, described: Mapping[str, Any]) -> str:
    """Of the weights: what the file says, or what the files of its layout have."""
    if described.get("licence"):
        return str(described["licence"])
    layouts = {layout.name: layout for layout in network.layouts()}
    named = layouts.get(match.layout)
    if named is None and layouts and not described:  # names that are also ours
        named = next(iter(layouts.values()))
    return (named.licence if named else "") or network.info.licence


def _description(
    network: ClipModel,
    match: Match,
    options: Mapping[str, Any],
    source: Path,
    described: Mapping[str, Any],
    licence: str,
) -> dict[str, Any]:
    return {
        "model": match.name,
        "options": dict(options),
        "num_classes": match.classes,
        "settings": network.settings,
        "input": asdict(network.info),
        "licence": licence,
        "source": described.get("source", {"file": source.name, "layout": match.layout}),
    }


def _write(target: Path, network: ClipModel, layout: Layout, description: Mapping[str, Any]) -> None:
    state = layout.written(network.state_dict())
    tensors = {theirs: state[ours].contiguous() for theirs, ours in rename(state, layout).items()}
    part = target.with_name(f".{target.name}.part")
    save_file(tensors, part, metadata={METADATA_KEY: json.dumps(description)})
    os.replace(part, target)
