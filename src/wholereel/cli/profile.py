"""`wholereel profile`: what a model with memory costs, stage by stage, and what a training step of a video holds."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, cast

from tyro.conf import arg

from wholereel.cli.catalogue import clip_size
from wholereel.cli.text import table
from wholereel.cli.train import Settings
from wholereel.config import Memory, Model
from wholereel.errors import ConfigError, closest

if TYPE_CHECKING:
    from wholereel.models.profile import Profile
    from wholereel.models.video_model import VideoModel
    from wholereel.training.step_memory import StepBytes

__all__ = ["profile"]

GIGA, MEGA, MIB = 1e9, 1e6, 2**20


def profile(
    model: Annotated[str, arg(metavar="MODEL")],
    /,
    clip: Annotated[str | None, arg(metavar="TxSIZE")] = None,
    clips: Annotated[tuple[int, ...], arg(metavar="N ...")] = (1, 2, 4, 8, 16, 32),
    memory: Memory = Memory(),  # noqa: B008  (frozen; the command line shows its fields)
    plain: bool = False,
    settings: Settings = (),
    json: bool = False,
) -> int:
    """Parameters, multiply-adds and activations of a model; nothing is computed, and no device is needed.

    Bytes are those of float32 tensors, without weights, gradients of weights, optimiser and workspaces. Multiply-adds
    are those of convolutions and linear layers, of products of positions and of correlations; for the memory as its
    formulas are written, and as they are computed.

    Args:
        model: Name from `wholereel models`.
        clip: Frames and side of a clip, e.g. 8x224; else those the model is meant for.
        clips: Clips of a video; the memory's own figures are those of the last number.
        memory: Settings of the memory block.
        plain: No memory.
        settings: Change one setting of the model, e.g. --set options.width=32; may be repeated.
        json: Print a JSON object instead.
    """
    from wholereel.models.profile import profile_model
    from wholereel.training.step_memory import step_bytes

    if not clips or min(clips) < 1:
        raise ConfigError(f"--clips {' '.join(map(str, clips))}: expected numbers from 1 on.")
    built, spec = _build(model, None if plain else memory, settings)
    info = built.info
    frames, size = (info.frames, info.crop) if clip is None else clip_size(clip)
    shape = (len(info.mean), frames, size, size)
    found = profile_model(built, shape, clips=clips[-1])
    steps = step_bytes(built, shape, clips)
    if json:
        print(_as_json(spec, found, steps))
    else:
        print(_as_text(spec, found, steps, clips))
    return 0


def _build(name: str, memory: Memory | None, settings: tuple[str, ...]) -> tuple[VideoModel, Model]:
    import torch

    from wholereel.models.package import build_model
    from wholereel.models.registry import MODELS, list_models
    from wholereel.recipes.overrides import apply_overrides

    if name not in MODELS:
        raise ConfigError(f"there is no model {name!r}.{closest(name, MODELS)} Models: {', '.join(sorted(MODELS))}.")
    if name not in list_models(kind="clip"):
        raise ConfigError(
            f"model {name!r} is of kind {MODELS[name].kind!r}: profile counts convolutional clip models; "
            "products of positions in attention are not counted yet. See `wholereel models` for its parameters."
        )
    spec = replace(apply_overrides(Model(name, memory=memory), settings), weights=None)
    with torch.device("meta"):
        return cast("VideoModel", build_model(spec, 400)), spec


def _as_text(spec: Model, found: Profile, steps: list[StepBytes], clips: tuple[int, ...]) -> str:
    _, frames, size, _ = found.clip_shape
    rows = [
        (
            stage.name,
            " x ".join(map(str, stage.output)),
            f"{stage.parameters / MEGA:.2f} M",
            f"{stage.macs / GIGA:.3f}",
            f"{stage.kept_bytes / MIB:.1f}",
        )
        for stage in found.stages
    ]
    total = sum(stage.parameters for stage in found.stages)
    kept = sum(stage.kept_bytes for stage in found.stages)
    rows.append(("in all", "", f"{total / MEGA:.2f} M", f"{found.macs / GIGA:.3f}", f"{kept / MIB:.1f}"))
    parts = [
        f"{spec.name}, a clip of {frames} x {size} x {size}, 400 classes",
        table(rows, head=("stage", "output", "parameters", "GMAC", "kept MiB")),
    ]
    if spec.memory is not None:
        parts.append(_memory_text(spec.memory, found))
    parts.append(
        f"one clip: {found.forward_bytes / MIB:.1f} MiB at most in a forward pass without gradient, "
        f"{found.kept_bytes / MIB:.1f} MiB kept for a backward pass"
    )
    parts.append(f"MiB alive in one training step of one video of N clips\n{_steps_text(steps, clips)}")
    return "\n\n".join(parts)


def _memory_text(memory: Memory, found: Profile) -> str:
    rows = []
    for place in found.places:
        cost = place.cost
        rows.append(
            (
                place.place,
                f"{place.positions}, {place.channels}",
                f"{cost.parameters / MEGA:.2f} M",
                f"{cost.literal / GIGA:.3f}",
                f"{cost.reduced / GIGA:.3f}",
                f"{100 * cost.literal / found.macs:.2f} / {100 * cost.reduced / found.macs:.2f} %",
                f"{cost.state_bytes / MIB:.2f}",
                f"{place.kept_bytes / MIB:.1f}",
            )
        )
    head = ("memory", "S, D", "parameters", "GMAC as written", "as computed", "share", "state MiB", "kept MiB")
    chosen = f"{memory.interaction}, {memory.infusion}" + (f", {memory.value}" if memory.interaction == "assoc" else "")
    text = f"memory ({chosen}), per clip of a video of {found.clips}\n{table(rows, head=head)}"
    affinity = sum(place.cost.affinity_bytes for place in found.places)
    if affinity:
        text += f"\nan affinity matrix of the video would have {affinity / MIB:.0f} MiB; it is not formed"
    return text


def _steps_text(steps: list[StepBytes], clips: tuple[int, ...]) -> str:
    names = list(dict.fromkeys(step.strategy for step in steps))
    found = {(step.strategy, step.clips): f"{step.peak / MIB:.0f}" for step in steps}
    rows = [(name, *(found[name, count] for count in clips)) for name in names]
    return table(rows, head=("strategy", *(f"N = {count}" for count in clips)))


def _as_json(spec: Model, found: Profile, steps: list[StepBytes]) -> str:
    import json

    content: dict[str, Any] = {
        "model": dataclasses.asdict(spec),
        "clip": list(found.clip_shape),
        "clips": found.clips,
        "stages": [dataclasses.asdict(stage) for stage in found.stages],
        "parameters": found.cost.parameters,
        "macs": found.macs,
        "memory": [dataclasses.asdict(place) for place in found.places],
        "memory_share": found.memory_macs / found.macs,
        "forward_bytes": found.forward_bytes,
        "kept_bytes": found.kept_bytes,
        "steps": [dataclasses.asdict(step) for step in steps],
    }
    return json.dumps(content, indent=1)
