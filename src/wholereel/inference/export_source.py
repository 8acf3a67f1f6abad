"""What can be exported, by where it is: a run or package, a file of weights, or a name of the registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from wholereel.errors import ConfigError, closest
from wholereel.inference.predictor import find_package
from wholereel.models.clip_model import ModelInfo
from wholereel.models.package import load_package
from wholereel.models.registry import create_model, list_models
from wholereel.models.weights import read_description

__all__ = ["clip_shape_of", "source_model"]


def source_model(
    source: str, *, model: str | None = None, classes: int = 400, options: Mapping[str, Any] | None = None
) -> tuple[nn.Module, tuple[int, int, int, int], dict[str, Any]]:
    """A model by where it is: a run or package, a file of weights, or a name of the registry (fresh weights).

    Args:
        source: one of the three.
        model: the network of a file of weights that does not say it.
        classes: of a fresh model.
        options: of the network's builder; a package has its own.
    Returns: the model, (C, T, H, W) of its clips, and what an exported file should say of it.
    Raises: ConfigError: none of the three, or options for a package. CheckpointError: weights that do not fit.
    """
    options, path = dict(options or {}), Path(source).expanduser()
    if path.is_dir():
        if options or model is not None:
            raise ConfigError(f"{source} is a run or package: it has its own network and options.")
        package = load_package(find_package(path))
        package.check_reads_files_alone()
        clips, channels = package.clips, len(package.mean)
        shape = (channels, clips.frames, package.crop, package.crop)
        described = {
            "model": asdict(package.spec),
            "classes": list(package.classes),
            "task": asdict(package.task),
            "input": {
                "mean": package.mean,
                "std": package.std,
                "short_side": package.short_side,
                "clips": asdict(clips),
            },
        }
        return package.model, shape, {**described, **dict(package.extra)}
    if path.is_file():
        written = read_description(path)
        name = model or written.get("model")
        if name is None:
            raise ConfigError(f"{source} does not say which network it is of; name it with --model.")
        options = {**written.get("options", {}), **options}
        network = create_model(name, num_classes=written.get("num_classes", classes), weights=f"file:{path}", **options)
    else:
        if source not in list_models():
            raise ConfigError(f"{source!r} is no folder, no file and no model.{closest(source, list_models())}")
        name, network = source, create_model(source, num_classes=classes, **options)
    described = {"model": {"name": name, "options": options}, "licence": network.info.licence}
    return network, clip_shape_of(network), described


def clip_shape_of(model: nn.Module) -> tuple[int, int, int, int]:
    """(C, T, H, W) of the clips that a network is meant for."""
    info: ModelInfo = model.info  # type: ignore[assignment]
    first = next(module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Conv3d)))
    channels = first.in_channels if len(info.mean) != first.in_channels else len(info.mean)
    return channels, info.frames, info.crop, info.crop
