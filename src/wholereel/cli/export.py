"""`wholereel export`: one step of a model as a file that runs without this library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from wholereel.errors import ConfigError

__all__ = ["export"]


def export(
    source: Annotated[str, arg(metavar="RUN|WEIGHTS|MODEL")],
    target: Annotated[Path, arg(metavar="OUT.pt2|OUT.onnx")],
    /,
    model: Annotated[str | None, arg(metavar="NAME")] = None,
    classes: Annotated[int, arg(metavar="K")] = 400,
    set: Annotated[tuple[str, ...], arg(metavar="OPTION=VALUE")] = (),
    batch: Annotated[str, arg(metavar="N|any")] = "1",
    frames: Annotated[int | None, arg(metavar="T")] = None,
    size: Annotated[tuple[int, int] | None, arg(metavar="HEIGHT WIDTH")] = None,
    clips: Annotated[int | None, arg(metavar="N")] = None,
    steps: int = 4,
    fold: bool = False,
) -> int:
    """Write one step: a clip and the memory so far in, scores and the memory for the next step out.

    Rows of the input `starts` that are true begin a new video. The file is run against the model before it is kept.
    ONNX needs the extra: pip install 'wholereel[export]'.

    Args:
        source: Run directory, one of its stages or a model package; a file of weights; or the name of a model, which
            gets fresh weights.
        target: File to write, a program of torch.export or ONNX.
        model: Network of a file of weights that does not name it.
        classes: Classes of a model with fresh weights.
        set: Options of a model that is not a package, e.g. reach=4.
        batch: Rows of the program, or any.
        frames: Frames of a clip; as in training by default.
        size: Height and width of a clip in pixels; as in training by default.
        clips: Clips of the longest video, for memories that keep the tokens of all clips.
        steps: Clips that the file is compared on.
        fold: Fold BatchNorm into the convolutions in front of it.
    """
    from wholereel.inference.export import export_model
    from wholereel.inference.export_source import source_model

    if batch != "any" and not (batch.isdecimal() and int(batch) > 0):
        raise ConfigError(f"--batch {batch}: expected a positive number or any.")
    if steps < 3:
        raise ConfigError(f"--steps must be at least 3 (memory, a new video, memory), got {steps}.")
    options = dict(_option(text) for text in set)
    network, shape, description = source_model(source, model=model, classes=classes, options=options)
    shape = (shape[0], frames or shape[1], *(size or shape[2:]))
    exported = export_model(
        network,
        target,
        clip_shape=shape,
        batch_size=None if batch == "any" else int(batch),
        state_options={} if clips is None else {"clips": clips},
        description=description,
        steps=steps,
        fold=fold,
    )
    for kind, tensors in (("in ", exported.inputs), ("out", exported.outputs)):
        for name, sizes in tensors.items():
            print(f"{kind}  {name:32}{' x '.join('any' if not n else str(n) for n in sizes)}")
    print(f"{target}: differs from the module by at most {exported.largest_error:.1e} over {exported.steps} steps")
    return 0


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set needs OPTION=VALUE, got {text!r}.")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:  # a word
        return name, value
