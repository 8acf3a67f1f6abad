"""Networks in the key layout of a public code base (Rule v1): weights are drawn under its names and loaded under ours.

What differs between families is how a network is built and where its intermediates are; that is a `Case`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.parity import rule_v1
from tests.parity.golden import Comparison, Golden, NotUnderstood, Outcome, check_fields
from wholereel.models.layouts import Layout, rename

__all__ = ["META", "Case", "Place", "build_layout", "check_case", "fill_case", "gradient_tolerance", "keys_of"]

META = {"rule", "std_rule", "scale_overrides", "seed", "layout", "config", "input_shapes", "torch", "torchvision"}
META |= {"params", "macs", "intermediates", "state_dict", "kind", "labels", "grad_l2", "note", "numpy"}


@dataclass(frozen=True)
class Place:
    """Where an intermediate is: output (or first input) of a module, and which part of a tuple."""

    module: str
    part: int | None = None
    before: bool = False


@dataclass(frozen=True)
class Case:
    """A network and how its file speaks of it.

    `keys`: their name -> ours, for the whole state dict. `place`: name of an intermediate -> where it is, `None` for
    one that is unknown. `window`: side of the head's windows in positions, `None` = all. `features`: the output is the
    last feature map, not the logits; `parts` splits it where the file has several. `deep`: more than 100 layers.
    """

    model: nn.Module
    keys: Mapping[str, str]
    place: Callable[[str], Place | None]
    window: int | None = None
    features: bool = False
    deep: bool = False
    parts: Callable[[Tensor], Sequence[Tensor]] | None = None


def build_layout(model: Any, name: str) -> Layout:
    """The layout of that name, of a clip model."""
    for layout in model.layouts():
        if layout.name == name:
            return layout
    raise NotUnderstood(f"{type(model).__name__} has no layout {name!r}")


class _Renamed:
    """What `rule_v1` needs of a model, under other names."""

    def __init__(self, model: nn.Module, keys: Mapping[str, str]) -> None:
        state = model.state_dict()
        self.state = {theirs: state[ours] for theirs, ours in keys.items()}

    def state_dict(self) -> dict[str, Tensor]:
        return self.state


def fill_case(golden: Golden, case: Case) -> None:
    """Give the network the weights of the file."""
    renamed: Any = _Renamed(case.model, case.keys)
    rule_v1.fill_weights(renamed, golden.meta)


def check_case(golden: Golden, case: Case) -> Outcome:
    """Keys, intermediates in the order of the file, outputs; loss, gradients and buffers in train mode."""
    threads = torch.get_num_threads()
    # With one thread PyTorch computes 1 x 1 x 1 convolutions another way. A train step of 50 layers on maps of a few
    # positions turns that rounding into gradients that differ by 4e-3; with two or more they are equal to the last bit.
    torch.set_num_threads(max(threads, 2))
    try:
        return _check(golden, case)
    finally:
        torch.set_num_threads(threads)


def _check(golden: Golden, case: Case) -> Outcome:
    check_fields(golden.meta, META, "meta")
    model, settings = case.model.to(golden.device), golden.meta["config"]
    renamed: Any = _Renamed(model, case.keys)
    faults = rule_v1.check_state_dict(renamed, golden.meta)
    if faults:
        return Outcome(tuple(Comparison(fault, math.inf, 0.0) for fault in faults))
    rule_v1.fill_weights(renamed, golden.meta)
    mode = settings.get("mode", "eval")
    if mode not in ("eval", "train"):
        mode = "eval"  # of a block: its form
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d) and "bn_momentum" in settings:
            module.momentum = settings["bn_momentum"]
    clips = [clip.to(golden.device) for clip in rule_v1.inputs(golden.meta)]
    names = [name.removeprefix("act::") for name in golden.arrays if name.startswith("act::")]
    activations: dict[str, Tensor] = {}
    handles = [_watch(model, name, case.place(name), activations) for name in names if name != "avgpool"]
    model.train(mode == "train")
    with torch.set_grad_enabled(mode == "train"):
        x: Any = clips[0] if len(clips) == 1 else tuple(clips)
        if isinstance(model, nn.Module) and hasattr(model, "forward_features"):
            features = model.forward_features(x)
            output = features if case.features else _head(case, features)
            if "avgpool" in names:
                activations["avgpool"] = model.forward_head(features, pre_logits=True)[..., None, None, None]
        else:
            output = model(x)
    for handle in handles:
        handle.remove()
    tolerance = 1e-3 if case.deep else 2e-4
    comparisons = [rule_v1.compare_sample(golden, f"act::{name}", activations[name], tolerance) for name in names]
    parts = [output] if case.parts is None else case.parts(output)
    for name, part in [("logits", output), *((f"out{number}", part) for number, part in enumerate(parts))]:
        if name in golden.arrays:
            comparisons.append(rule_v1.compare_whole(name, part, golden.arrays[name], tolerance))
        if f"{name}_slice" in golden.arrays:
            comparisons.append(rule_v1.compare_sample(golden, f"{name}_slice", part, tolerance))
    if mode == "train":
        comparisons += _training(golden, case, output, tolerance)
    if "params" in golden.meta:
        parameters = sum(parameter.numel() for parameter in model.parameters())
        if case.features:
            parameters -= sum(parameter.numel() for parameter in model.fc.parameters())
        comparisons.append(Comparison("params", abs(parameters - golden.meta["params"]), 0.0))
    compared = {comparison.name.split(" (")[0] for comparison in comparisons}
    return Outcome(tuple(comparisons), tuple(sorted(set(golden.arrays) - compared)))


def _head(case: Case, features: Tensor) -> Tensor:
    model: Any = case.model
    if case.window is None:
        return model.forward_head(features)
    return model.forward_windows(features, (case.window, case.window)).mean((2, 3))


def _watch(
    model: nn.Module, name: str, place: Place | None, into: dict[str, Tensor]
) -> torch.utils.hooks.RemovableHandle:
    if place is None:
        raise NotUnderstood(f"no module for act::{name}")

    def keep(value: Any) -> None:
        part = value if place.part is None else value[place.part]
        into[name] = part.detach().clone()  # a copy: the next ReLU may work in place

    module = model.get_submodule(place.module)
    if place.before:
        return module.register_forward_pre_hook(lambda module, args: keep(args[0]))
    return module.register_forward_hook(lambda module, args, output: keep(output))


def _training(golden: Golden, case: Case, logits: Tensor, tolerance: float) -> list[Comparison]:
    if not str(golden.meta["config"].get("loss", "cross_entropy mean")).startswith("cross_entropy"):
        raise NotUnderstood(f"no builder for the loss {golden.meta['config']['loss']!r}")
    loss = F.cross_entropy(logits, torch.tensor(golden.meta["labels"], device=golden.device))
    loss.backward()
    comparisons = []
    if "loss" in golden.arrays:
        expected = float(golden.arrays["loss"])
        comparisons.append(Comparison("loss", abs(loss.item() - expected) / abs(expected), tolerance))
    limit = gradient_tolerance(golden.device, case.deep)
    gradients = {name: parameter.grad for name, parameter in case.model.named_parameters()}
    state = case.model.state_dict()
    for name, norm in golden.meta.get("grad_l2", {}).items():
        gradient = gradients[case.keys[name]]
        if gradient is None or norm is None:
            error = 0.0 if gradient is None and norm is None else math.inf
        else:
            error = abs(gradient.double().norm().item() - norm) / (norm or 1.0)
        comparisons.append(Comparison(f"grad_l2 {name}", error, limit))
    for name, array in golden.arrays.items():
        kind, _, key = name.partition("::")
        if kind == "grad":
            gradient = gradients[case.keys[key]]
            if gradient is None:
                raise ValueError(f"{key} has no gradient")
            comparisons.append(rule_v1.compare_sample(golden, name, gradient, limit))
        elif kind == "buf":
            ours = state[case.keys[key]].reshape(-1)[:512]
            comparisons.append(rule_v1.compare_whole(name, ours, array.reshape(-1), tolerance))
    return comparisons


def gradient_tolerance(device: torch.device, deep: bool = False) -> float:
    """Of gradients; on a GPU five times that of the CPU.

    Gradients of norms over a few positions turn another order of summing into errors of 4e-3 to 6e-3, on the CPU too
    (`check_case`); a GPU has no order that equals the reference's.
    """
    return (2e-3 if deep else 1e-3) * (1 if device.type == "cpu" else 5)


def keys_of(model: Any, layout: Layout, prefix: str = "", head: str | None = None) -> dict[str, str]:
    """Their names -> ours, without a common prefix and, if `head` is given, without the keys that begin with it."""
    keys = rename(model.state_dict(), layout)
    return {
        theirs.removeprefix(prefix): ours
        for theirs, ours in keys.items()
        if head is None or not theirs.startswith(head)
    }
