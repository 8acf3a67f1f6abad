"""`wholereel convert`: published weights as safetensors, with what is needed in order to use them rightly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from wholereel.errors import ConfigError

__all__ = ["convert"]


def convert(
    source: Annotated[Path, arg(metavar="IN")],
    target: Annotated[Path, arg(metavar="OUT.safetensors")],
    /,
    model: Annotated[str | None, arg(metavar="NAME")] = None,
    to: Annotated[str, arg(metavar="LAYOUT")] = "wholereel",
    set: Annotated[tuple[str, ...], arg(metavar="OPTION=VALUE")] = (),
    fit: bool = False,
) -> int:
    """Recognise whose weights a file holds, and write them as safetensors.

    Reads files of torchvision, VMZ, pytorchvideo, PySlowFast, MeMViT and MMAction2 (.pth, .pyth, .pkl of Caffe2). The
    result is used as weights "file:OUT.safetensors"; it carries the network's settings and the licence of the weights,
    and networks that differ in what names and shapes don't show are refused.

    Args:
        source: File of weights.
        target: File to write.
        model: The network, needed where several fit; `wholereel models` lists them.
        to: Names to write: wholereel, pyslowfast, pytorchvideo, torchvision, vmz, memvit or mmaction2, as the network
            has.
        set: Options of the network, e.g. pool1=true.
        fit: Make the weights of another size or kind of MViT a start for --model: other clips, more memory, MViTv2 to
            MeMViT, images to videos. Says what was resized, left out and stays fresh.
    """
    from wholereel.models.weight_conversion import convert_weights

    options = dict(_option(text) for text in set)
    converted = convert_weights(source, target, model=model, layout=to, options=options, fit=fit)
    print(f"{source}: {converted.match}, {converted.match.classes} classes")
    said = {"left out": converted.unused, "resized": converted.resized, "fresh": converted.fresh}
    for what, keys in said.items():
        for key in keys:
            print(f"{what}: {key}")
    if converted.licence:
        print(f"licence of the weights: {converted.licence}")
    for setting in converted.unlike:
        print(f"mind: other networks with {converted.layout} names differ, this one has {setting}")
    print(f"{target}: {converted.layout} names")
    return 0


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set needs OPTION=VALUE, got {text!r}.")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:  # a word
        return name, value
