"""Weight files: where they are, what is in them, and whether they fit.

A source is `"file:PATH"` (a model package's directory, `.safetensors`, `.pth`/`.pt`/`.pyth` written by `torch.save`, or
`.pkl` of Caffe2), `"image:PATH"` (weights of an image network, which are inflated) or `"hub:OWNER/NAME"` (a model
package on the Hugging Face hub). Pickles are read with `weights_only=True` or a reader of arrays alone. Names of public
code bases are recognised, see `layouts.py`.
Not here: the package format (`package.py`), memory in weight files (`conversion.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from wholereel.errors import CheckpointError, ConfigError, import_extra
from wholereel.models.caffe2_files import read_blobs
from wholereel.models.clip_model import ClipModel
from wholereel.models.layouts import OWN, ImageTrunk, Layout, rename

__all__ = [
    "METADATA_KEY",
    "PACKAGE_WEIGHTS",
    "KeyReport",
    "check_settings",
    "fit_clip_weights",
    "load_clip_weights",
    "load_image_weights",
    "read_description",
    "read_tensors",
    "weights_path",
    "with_own_names",
]

PACKAGE_WEIGHTS = "model.safetensors"
PREFIXES = ("module.", "model.")  # of DDP, and of pytorchvideo's models trained in PySlowFast
METADATA_KEY = "wholereel_weights"
WRAPPERS = ("state_dict", "model_state", "model")  # of common training scripts


@dataclass(frozen=True)
class KeyReport:
    """What happened to parameters when weights were loaded or a model was converted; all are parameter names.

    Args:
        missing: in the model, not in the source: freshly initialised.
        unused: in the source, not in the model.
        rescaled: multiplied by a constant, so that logits stay equal.
        not_rescaled: memory places behind which nothing could be rescaled: logits change there.
    """

    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    rescaled: tuple[str, ...] = ()
    not_rescaled: tuple[str, ...] = ()

    def __add__(self, other: KeyReport) -> KeyReport:
        return KeyReport(
            self.missing + other.missing,
            self.unused + other.unused,
            self.rescaled + other.rescaled,
            self.not_rescaled + other.not_rescaled,
        )

    def __str__(self) -> str:
        parts = {
            "freshly initialised": self.missing,
            "not used": self.unused,
            "rescaled": self.rescaled,
            "not rescaled behind": self.not_rescaled,
        }
        said = [f"{what}: {', '.join(names)}" for what, names in parts.items() if names]
        return "; ".join(said) or "all keys used as they are"


def weights_path(source: str) -> Path:
    """The weight file that a source names.

    Raises: ConfigError: not a source. CheckpointError: there is no such file. MissingExtraError: `hub:` without its
    package.
    """
    kind, _, name = source.partition(":")
    if kind == "hub" and name:
        hub = import_extra("huggingface_hub", extra="hub", purpose=f"the weights {source!r}")
        return Path(hub.snapshot_download(name)) / PACKAGE_WEIGHTS
    if kind != "file" or not name:
        raise ConfigError(f"weights must be 'file:PATH' or 'hub:OWNER/NAME', got {source!r}.")
    path = Path(name).expanduser()
    path = path / PACKAGE_WEIGHTS if path.is_dir() else path
    if not path.is_file():
        raise CheckpointError(path, "there is no such file", "a model package, a .safetensors or a .pth file")
    return path


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by name, on the CPU; wrappers of training scripts and DDP's `module.` are taken off.

    Raises: CheckpointError: not a file of tensors.
    """
    try:
        content: Any
        if path.suffix == ".pkl":
            content = read_blobs(path)
        elif path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # the unpickler raises whatever the bytes make it stumble over, KeyError among others
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        expected = "a .safetensors or .pth file of tensors"
        raise CheckpointError(path, f"cannot be read as weights ({reason})", expected) from error
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not (isinstance(content, Mapping) and content and all(isinstance(value, Tensor) for value in content.values())):
        raise CheckpointError(path, "holds something else than tensors by name", "a state dict")
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in content):
            content = {key.removeprefix(prefix): value for key, value in content.items()}
    return dict(content)


def load_clip_weights(model: ClipModel, source: str) -> KeyReport:
    """Load a clip model's weights; a classifier for another number of classes stays fresh.

    Raises: CheckpointError: keys left over, missing, or of another shape; or the file holds a model with memory.
    """
    if source.startswith("image:"):
        return load_image_weights(model, weights_path(source.replace("image:", "file:", 1)))
    path = weights_path(source)
    tensors = read_tensors(path)
    if any(key.startswith("memories.") for key in tensors):
        raise CheckpointError(
            path, "holds a model with memory", "a clip model", "build_model and load_package convert it."
        )
    return fit_clip_weights(model, {key.removeprefix("clip_model."): value for key, value in tensors.items()}, path)


def load_image_weights(model: ClipModel, path: Path) -> KeyReport:
    """Inflate an image network (arXiv 1705.07750): kernels are repeated in time and divided by their length.

    The classifier, which is of other classes, and what is of no image network stay fresh: non-local blocks, SlowFast's
    connections, and its fast pathway unless that is as wide as the image network. Away from the borders of a clip that
    shows one picture, activations are those of the image network.
    Raises: CheckpointError: no image network fits this one, or this file is of another one.
    """
    trunks, own = model.image_trunks(), model.state_dict()
    if not trunks:
        expected = f"weights of videos: {type(model).__name__} cannot be inflated"
        raise CheckpointError(path, "is asked for as weights of an image network", expected)
    file, head = read_tensors(path), f"{model.classifier}."
    inflated = _inflated(file, own, trunks[0])
    body = {key: value for key, value in inflated.items() if not key.startswith(head)}
    for trunk in trunks[1:]:
        part = {key: value for key, value in _inflated(file, own, trunk).items() if trunk.holds(key)}
        if all(value.shape == own[key].shape for key, value in part.items()):
            body |= part
    fresh = {
        key: value
        for key, value in own.items()
        if key not in body and (key.startswith(head) or not trunks[0].holds(key))
    }
    report = fit_clip_weights(model, {**body, **fresh}, path)
    unused = tuple(sorted(key for key in inflated if key.startswith(head)))
    return report + KeyReport(missing=tuple(sorted(fresh)), unused=unused)


def _inflated(file: Mapping[str, Tensor], own: Mapping[str, Tensor], trunk: ImageTrunk) -> dict[str, Tensor]:
    """A file's tensors under our names of a trunk, and in its shapes where kernels allow it; other names stay."""
    names = {theirs: ours for theirs, ours in rename(own, trunk.layout).items() if trunk.holds(ours)}
    tensors = {names.get(key, key): value for key, value in file.items()}
    for key in set(own) & set(tensors):
        shape, value = own[key].shape, tensors[key]
        if len(shape) == 5 and value.ndim == 4:
            value = value[:, :, None].expand(-1, -1, shape[2], -1, -1) / shape[2]
        if key.endswith(trunk.wider) and value.ndim == 5 and value.shape[1] < shape[1]:
            others = value.new_zeros(value.shape[0], shape[1] - value.shape[1], *value.shape[2:])
            value = torch.cat((value, others), 1)
        tensors[key] = value
    return tensors


def fit_clip_weights(model: ClipModel, tensors: Mapping[str, Tensor], path: Path) -> KeyReport:
    """`load_clip_weights` with tensors that have been read already.

    Raises: CheckpointError: see `load_clip_weights`; or the weights belong to a network that differs from this one in
    what keys and shapes don't show.
    """
    layout, tensors = with_own_names(model, tensors)
    described = read_description(path).get("settings")
    if described is None:
        check_settings(model, layout.settings, path, f"networks in the layout {layout.name} have")
    else:  # it knows, whatever names it has
        check_settings(model, described, path, "the file's description says")
    own = model.state_dict()
    head = f"{model.classifier}."
    ours, theirs = (
        {key: value.shape[0] for key, value in part.items() if key.startswith(head) and key.endswith("weight")}
        for part in (own, tensors)
    )
    replaced = not ours or ours != theirs  # several label spaces have several weights
    skipped = {key for key in (*own, *tensors) if replaced and key.startswith(head)}
    missing = sorted(set(own) - set(tensors) - skipped)
    unused = sorted(set(tensors) - set(own) - skipped)
    # Files from before torch 0.4 do not count batches; nothing is lost by starting at zero.
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    shapes = [
        f"{key} {tuple(tensors[key].shape)} instead of {tuple(own[key].shape)}"
        for key in sorted(set(own) & set(tensors) - skipped)
        if own[key].shape != tensors[key].shape
    ]
    faults = {"missing": missing, "left over": unused, "of another shape": shapes}
    if any(faults.values()):
        found = "; ".join(f"{len(keys)} keys {what}: {_shortened(keys)}" for what, keys in faults.items() if keys)
        raise CheckpointError(path, found, f"the keys of {type(model).__name__}", "Check the model's name and options.")
    model.load_state_dict({**own, **{key: value for key, value in tensors.items() if key not in skipped}})
    return KeyReport(missing=tuple(sorted(skipped & set(own))), unused=tuple(sorted(skipped & set(tensors))))


def with_own_names(model: ClipModel, tensors: Mapping[str, Tensor]) -> tuple[Layout, dict[str, Tensor]]:
    """The layout that most names belong to, and the tensors with our names; names that are in no layout stay.

    Shapes that differ from ours by axes of length one are brought to ours.
    """
    own = model.state_dict()
    tensors = model.own_form(tensors)
    tables = [(layout, rename(own, layout)) for layout in (OWN, *model.layouts())]
    layout, table = max(tables, key=lambda row: sum(key in tensors for key in row[1]))
    bare = {key.removeprefix("backbone."): ours for key, ours in table.items()}
    if sum(key in tensors for key in bare) > sum(key in tensors for key in table):
        table = bare  # MMAction2's backbone alone
    renamed = {table.get(key, key): value for key, value in tensors.items()}
    for key in set(own) & set(renamed):
        ours, theirs = own[key].shape, renamed[key].shape
        if ours != theirs and [n for n in ours if n > 1] == [n for n in theirs if n > 1]:
            renamed[key] = renamed[key].reshape(ours)
    return layout, renamed


def read_description(path: Path) -> dict[str, Any]:
    """What `wholereel convert` has written about the weights of a file; empty where there is nothing."""
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(METADATA_KEY)
    return {} if text is None else dict(json.loads(text))


def check_settings(model: ClipModel, settings: Mapping[str, Any], path: Path, who: str) -> None:
    """Refuse weights of a network that would load and compute something else.

    Raises: CheckpointError: a setting that both know has different values.
    """
    own = json.loads(json.dumps(model.settings))
    theirs = json.loads(json.dumps(dict(settings)))
    # The usual beginning of a dilated network are weights of the same one without dilation.
    known = [name for name in theirs if name in own and not (name == "dilated" and own[name])]
    differing = [name for name in known if own[name] != theirs[name]]
    if differing:
        found = f"{who} {', '.join(f'{name}={theirs[name]}' for name in differing)}"
        expected = ", ".join(f"{name}={own[name]}" for name in differing)
        raise CheckpointError(path, found, expected, "Give the model these options, or choose theirs.")


def _shortened(keys: list[str], limit: int = 8) -> str:
    return ", ".join(keys[:limit]) + (f", ... ({len(keys) - limit} more)" if len(keys) > limit else "")
