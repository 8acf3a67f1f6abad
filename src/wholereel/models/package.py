"""Model packages: a trained model on disk with all that is needed to use it, and models from settings.

A package is a directory with `model.safetensors` (weights, and the description as metadata) and `model.json` (the same
description, for people and other programs). The weights file is the truth: it is replaced in one step, so a killed save
leaves the old package or the new one, never a mixture.
Not here: training checkpoints (`training/`), which also hold the optimiser.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from wholereel import config
from wholereel.errors import CheckpointError, ConfigError
from wholereel.models.bank_model import BankModel
from wholereel.models.clip_model import ClipModel
from wholereel.models.conversion import to_clip_level, to_video_level
from wholereel.models.detector import Detector
from wholereel.models.folding import fold_norms
from wholereel.models.memvit import MeMViT
from wholereel.models.mvit_keys import fit_tensors
from wholereel.models.registry import create_model
from wholereel.models.stream_models import StreamModel
from wholereel.models.video_model import VideoModel
from wholereel.models.weights import PACKAGE_WEIGHTS, KeyReport, fit_clip_weights, read_tensors, weights_path

__all__ = ["Package", "build_model", "build_model_with_report", "load_package", "save_package"]

FORMAT = 1
METADATA_KEY = "wholereel"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Package:
    """A loaded model package.

    Args:
        model: in eval mode, on the CPU.
        spec: the settings that build the model.
        classes: K names in the order of the logits.
        task: what was trained, and how clips become one score.
        spaces: of a model that reads streams: names by label space, which `classes` lists one space after the other.
        streams: how it was trained on streams; `None` = it judges whole videos.
        clips: which clips it reads. short_side, crop: pixels. mean, std: of pixels in [0, 1], per channel.
        extra: whatever else was stored: run, metrics, licence, origin.
    """

    model: StreamModel
    spec: config.Model
    classes: tuple[str, ...]
    task: config.Task
    clips: config.Clips
    short_side: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    extra: Mapping[str, Any]
    spaces: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    streams: config.Streams | None = None

    def check_reads_files_alone(self) -> None:
        """Refuse a model that needs more than a video's file.

        Raises: ConfigError.
        """
        if self.spec.bank is not None:
            raise ConfigError(
                f"model {self.spec.name!r} reads a bank of features of each video, which a file alone does not have. "
                "Measure it with `wholereel evaluate --set 'data.bank={root: FOLDER}'`."
            )

    def folded(self) -> Package:
        """The same with the clip model's BatchNorm inside its convolutions (`models.folding`), for inference alone.

        Scores stay equal but for rounding. This package is not changed.
        Raises: ConfigError: there is nothing to fold.
        """
        if not isinstance(self.model, VideoModel):
            raise ConfigError(f"{type(self.model).__name__} has no BatchNorm that could be folded into a convolution.")
        model, side = copy.copy(self.model), self.crop or self.short_side
        model._modules = dict(model._modules)
        like = next(model.parameters())
        clip = torch.zeros(1, len(self.mean), self.clips.frames, side, side, dtype=like.dtype, device=like.device)
        model.clip_model = fold_norms(model.clip_model, clip)
        return dataclasses.replace(self, model=model)

    @property
    def video_model(self) -> VideoModel:
        """The model, for those who judge several clips of a video together.

        Raises: ConfigError: it reads clips one after the other and nothing else.
        """
        if not isinstance(self.model, VideoModel):
            raise ConfigError(
                f"model {self.spec.name!r} reads videos clip by clip; it cannot judge clips together. "
                "Use `wholereel stream RUN VIDEO`, in Python `wholereel.Stream`."
            )
        return self.model


def save_package(
    directory: str | Path,
    model: StreamModel,
    *,
    spec: config.Model,
    num_classes: int,
    classes: tuple[str, ...],
    task: config.Task,
    input: Mapping[str, Any],  # the name that the file format has
    extra: Mapping[str, Any] | None = None,
    spaces: Mapping[str, tuple[str, ...]] | None = None,
    streams: config.Streams | None = None,
) -> Path:
    """Write a package, or replace the one that is there.

    Args:
        spec: settings that build this model; where its weights came from is kept as provenance only.
        input: `mean`, `std`, `short_side`, `crop` and `clips` (`config.Clips`).
        extra: anything that JSON can hold.
        spaces, streams: see `Package`.
    Raises: ValueError: classes, settings and model do not agree.
    """
    memory = model.memory if isinstance(model, VideoModel) else None
    if len(classes) != num_classes or model.num_classes != num_classes or spec.memory != memory:
        raise ValueError(
            f"{len(classes)} class names, num_classes={num_classes}, a model for {model.num_classes} classes; "
            f"settings with {spec.memory}, a model with {memory}: these must agree"
        )
    if spaces and tuple(name for names in spaces.values() for name in names) != classes:
        raise ValueError("the names of the label spaces, one after the other, must be those of the classes")
    needed = {"mean", "std", "short_side", "crop", "clips"}
    if needed - set(input):
        raise ValueError(f"input lacks {', '.join(sorted(needed - set(input)))}")
    description = {
        "format": FORMAT,
        "model": dataclasses.asdict(spec),
        "num_classes": num_classes,
        "classes": list(classes),
        "task": dataclasses.asdict(task),
        "input": {**input, "clips": dataclasses.asdict(input["clips"])},
        "extra": dict(extra or {}),
    }
    if spaces:
        description["spaces"] = {name: list(names) for name, names in spaces.items()}
    if streams is not None:
        description["streams"] = dataclasses.asdict(streams)
    text = json.dumps(description, indent=1)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    part = directory / f".{PACKAGE_WEIGHTS}.part"
    save_file(tensors, part, metadata={METADATA_KEY: text})
    os.replace(part, directory / PACKAGE_WEIGHTS)
    part = directory / ".model.json.part"
    part.write_text(text + "\n", encoding="utf-8")
    os.replace(part, directory / "model.json")
    return directory


def load_package(directory: str | Path) -> Package:
    """Read a package.

    Raises: CheckpointError: not a package, or one whose weights do not fit its settings.
    """
    path = Path(directory) / PACKAGE_WEIGHTS
    if not path.is_file():
        expected = "a model package, as training writes in best/ and last/"
        raise CheckpointError(directory, f"there is no {PACKAGE_WEIGHTS} in it", expected)
    description = _description(path)
    if description is None:
        raise CheckpointError(path, "weights without a description", "a file written by wholereel's save_package")
    try:
        spec = _model_settings(description["model"])
        task = config.Task(**description["task"])
        given = dict(description["input"])
        clips = config.Clips(**given["clips"])
        classes = tuple(description["classes"])
        spaces = {name: tuple(names) for name, names in description.get("spaces", {}).items()}
        streams = None if "streams" not in description else config.Streams(**description["streams"])
        model = _new_model(spec, _sizes(spaces) or int(description["num_classes"]))
        sizes = int(given["short_side"]), int(given["crop"])
        colours = tuple(given["mean"]), tuple(given["std"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(path, f"a description that cannot be used ({error})", f"format {FORMAT}") from error
    _fit_exactly(model, read_tensors(path), path)
    extra = description["extra"]
    return Package(model.eval(), spec, classes, task, clips, *sizes, *colours, extra, spaces, streams)


def _sizes(spaces: Mapping[str, tuple[str, ...]]) -> tuple[int, ...] | None:
    """Classes of each space, where there are several."""
    return tuple(map(len, spaces.values())) if len(spaces) > 1 else None


def _new_model(spec: config.Model, num_classes: int | tuple[int, ...]) -> StreamModel:
    """The model with fresh weights.

    Raises: ConfigError: a memory in settings of a model that has one of its own.
    """
    model = create_model(spec.name, num_classes=num_classes, **spec.options)
    if not isinstance(model, MeMViT):
        return _with_head(model, spec)
    if spec.memory is not None or spec.boxes is not None:
        raise ConfigError(
            f"model {spec.name!r} has a memory and boxes of its own: model.memory and model.boxes must be null; "
            "its options say what they are"
        )
    return model


def build_model(spec: config.Model, num_classes: int | tuple[int, ...]) -> StreamModel:
    """The model that the settings describe; what happened to loaded weights is logged, see
    `build_model_with_report`."""
    return build_model_with_report(spec, num_classes)[0]


def build_model_with_report(spec: config.Model, num_classes: int | tuple[int, ...]) -> tuple[StreamModel, KeyReport]:
    """Build a model; weights of a clip model are taken to the video level, and the reverse, as `spec.memory` asks.

    Models with a memory of their own (MeMViT) also take weights of other memory lengths, of none, and of MViT.
    Args:
        num_classes: several label spaces as a tuple, for the models that serve them.
    Raises:
        ConfigError: an unknown model, option or source of weights; settings of a memory that do not fit the model.
        CheckpointError: weights that do not fit, with the keys.
    """
    try:
        model = _new_model(spec, num_classes)
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:  # an option of the wrong type fails in the midst of the builder
        raise ConfigError(f"model {spec.name!r} with options {dict(spec.options)}: {error}") from error
    if spec.weights is None:
        return model, KeyReport()
    path = weights_path(spec.weights)
    tensors = read_tensors(path)
    if isinstance(model, MeMViT):
        report = _fit_memvit(model, tensors, path)
        log.info("%s: %s", path, report)
        return model, report
    clip_model = model.clip_model
    if any(key.startswith("memories.") for key in tensors):
        model, report = _from_video_level(model, spec, tensors, path)
    else:
        plain = {key.removeprefix("clip_model."): value for key, value in tensors.items()}
        report = fit_clip_weights(clip_model, plain, path)
        if spec.memory is not None:
            model, converted = to_video_level(
                _with_head(clip_model, dataclasses.replace(spec, memory=None)), spec.memory
            )
            report = report + converted
    log.info("%s: %s", path, report)
    return model, report


def _with_head(clip_model: ClipModel, spec: config.Model) -> VideoModel:
    if spec.bank is not None:
        if spec.memory is not None or spec.boxes is not None:
            raise ConfigError("model.bank takes the place of a memory and judges whole clips: no memory, no boxes.")
        return BankModel(clip_model, spec.bank)
    return VideoModel(clip_model, spec.memory) if spec.boxes is None else Detector(clip_model, spec.memory, spec.boxes)


def _fit_memvit(model: MeMViT, tensors: Mapping[str, Tensor], path: Path) -> KeyReport:
    fitted, done = fit_tensors(model, {key.removeprefix("clip_model."): value for key, value in tensors.items()})
    report = fit_clip_weights(model, fitted, path)
    return report + KeyReport(missing=done.fresh, unused=done.dropped)


def _from_video_level(
    model: VideoModel, spec: config.Model, tensors: Mapping[str, Tensor], path: Path
) -> tuple[VideoModel, KeyReport]:
    held = _held_memory(path)
    if held is None and spec.memory is None:
        raise CheckpointError(
            path, "a memory without its settings", "a model package", "Name the memory in the settings."
        )
    memory = held or spec.memory
    if held and spec.memory and held != dataclasses.replace(spec.memory, rescale_head=held.rescale_head):
        raise CheckpointError(path, f"holds {held}", str(spec.memory), "Use the same settings or other weights.")
    video_level = model if spec.memory is not None else model.rebuilt(model.clip_model, memory)
    parts: dict[str, dict[str, Tensor]] = {"clip_model": {}, "memories": {}}
    for key, value in tensors.items():
        part, _, name = key.partition(".")
        if part not in parts:
            raise CheckpointError(path, f"1 keys left over: {key}", "keys that begin with clip_model. or memories.")
        parts[part][name] = value
    report = fit_clip_weights(video_level.clip_model, parts["clip_model"], path)
    report = KeyReport(
        tuple(f"clip_model.{key}" for key in report.missing), tuple(f"clip_model.{key}" for key in report.unused)
    )
    _fit_exactly(video_level.memories, parts["memories"], path)
    if spec.memory is not None:
        return video_level, report
    converted, dropped = to_clip_level(video_level)
    return converted, report + dropped


def _fit_exactly(module: Any, tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        found = " ".join(str(error).split())
        raise CheckpointError(path, found, f"the keys of {type(module).__name__}") from error


def _description(path: Path) -> dict[str, Any] | None:
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
        description = None if text is None else json.loads(text)
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise CheckpointError(
            path, f"cannot be read ({error})", "a file written by wholereel's save_package"
        ) from error
    if description is not None and description.get("format") != FORMAT:
        found = f"package format {description.get('format')}"
        raise CheckpointError(path, found, f"format {FORMAT}", "Update wholereel.")
    return description


def _held_memory(path: Path) -> config.Memory | None:
    description = _description(path) if path.suffix == ".safetensors" else None
    return None if description is None else _model_settings(description["model"]).memory


def _model_settings(fields: Mapping[str, Any]) -> config.Model:
    memory = fields["memory"]
    if memory is not None:
        memory = config.Memory(**{**memory, "after": tuple(memory["after"])})
    boxes = fields.get("boxes")  # packages of earlier versions know no boxes
    bank = fields.get("bank")  # nor banks
    heads = {
        "boxes": None if boxes is None else config.BoxHead(**boxes),
        "bank": None if bank is None else config.BankHead(**bank),
    }
    return config.Model(**{**fields, "memory": memory, **heads})
