"""Family of clip models in torchvision's key layout (Rule v1), in eval and in train mode."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.parity import rule_v1
from tests.parity.golden import Comparison, Golden, NotUnderstood, Outcome, check_fields
from tests.parity.layout_models import gradient_tolerance
from wholereel.models import ClipModel, create_model, list_models

__all__ = ["check_torchvision_model", "is_torchvision_layout"]

OUTPUT = 2e-4
META = {"rule", "std_rule", "scale_overrides", "seed", "layout", "config", "input_shapes", "torch", "torchvision"}
META |= {"params", "macs", "intermediates", "state_dict", "kind", "labels", "grad_l2", "note", "numpy"}
CONFIG = {"model", "arch", "num_classes", "bn_eps", "bn_momentum", "dropout", "mode", "loss", "note", "conv3d_groups"}


def is_torchvision_layout(golden: Golden) -> bool:
    """Whether the layout is that of torchvision's video networks."""
    return str(golden.meta.get("layout", "")).startswith("torchvision")


def check_torchvision_model(golden: Golden) -> Outcome:
    """Keys, then intermediates in order, then outputs; loss, gradients and buffers where the file is of train mode."""
    check_fields(golden.meta, META, "meta")
    settings = golden.meta["config"]
    check_fields(settings, CONFIG, "config")
    name = settings.get("model", settings.get("arch"))
    if name not in list_models(kind="clip"):
        raise NotUnderstood(f"no builder for model {name!r} in layout {golden.meta['layout']!r}")
    model, clip_BCTHW = _build(golden, name, settings)
    faults = rule_v1.check_state_dict(model, golden.meta)
    if faults:
        return Outcome(tuple(Comparison(fault, math.inf, 0.0) for fault in faults))
    rule_v1.fill_weights(model, golden.meta)
    mode = settings.get("mode", "eval")
    if mode not in ("eval", "train"):
        raise NotUnderstood(f"no builder for mode {mode!r}")
    activations = {name.removeprefix("act::"): torch.empty(0) for name in golden.arrays if name.startswith("act::")}
    handles = [_watch(model, module, activations) for module in activations if module != "avgpool"]
    model.train(mode == "train")
    with torch.set_grad_enabled(mode == "train"):
        features = model.forward_features(clip_BCTHW)
        logits = model.forward_head(features)
        if "avgpool" in activations:
            activations["avgpool"] = model.forward_head(features, pre_logits=True)[..., None, None, None]
    for handle in handles:
        handle.remove()
    comparisons = [
        rule_v1.compare_sample(golden, f"act::{module}", value, OUTPUT) for module, value in activations.items()
    ]
    comparisons += _outputs(golden, logits)
    if mode == "train":
        comparisons += _training(golden, model, logits, settings)
    compared = {comparison.name.split(" (")[0] for comparison in comparisons}
    return Outcome(tuple(comparisons), tuple(sorted(set(golden.arrays) - compared)))


def _build(golden: Golden, name: str, settings: dict[str, Any]) -> tuple[ClipModel, Tensor]:
    clips = rule_v1.inputs(golden.meta)
    if len(clips) != 1 or clips[0].ndim != 5:
        raise NotUnderstood(f"no builder for inputs {golden.meta['input_shapes']}")
    options = {option: settings[option] for option in ("bn_eps", "dropout") if option in settings}
    model = create_model(name, num_classes=settings["num_classes"], in_channels=clips[0].shape[1], **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d) and "bn_momentum" in settings:
            module.momentum = settings["bn_momentum"]
    return model.to(golden.device), clips[0].to(golden.device)


def _watch(model: nn.Module, name: str, into: dict[str, Tensor]) -> torch.utils.hooks.RemovableHandle:
    try:
        module = model.get_submodule(name)
    except AttributeError as error:
        raise NotUnderstood(f"no module {name!r} for act::{name}") from error

    def keep(module: nn.Module, args: Any, output: Tensor) -> None:
        into[name] = output.detach().clone()  # a copy: the next ReLU may work in place

    return module.register_forward_hook(keep)


def _outputs(golden: Golden, logits: Tensor) -> list[Comparison]:
    arrays = golden.arrays
    comparisons = [rule_v1.compare_whole(n, logits, arrays[n], OUTPUT) for n in ("out0", "logits") if n in arrays]
    if "out0_slice" in arrays:
        comparisons.append(rule_v1.compare_sample(golden, "out0_slice", logits, OUTPUT))
    return comparisons


def _training(golden: Golden, model: ClipModel, logits: Tensor, settings: dict[str, Any]) -> list[Comparison]:
    if not str(settings.get("loss", "cross_entropy mean")).startswith("cross_entropy"):
        raise NotUnderstood(f"no builder for the loss {settings['loss']!r}")
    loss = F.cross_entropy(logits, torch.tensor(golden.meta["labels"], device=golden.device))
    loss.backward()
    comparisons = []
    if "loss" in golden.arrays:
        expected = float(golden.arrays["loss"])
        comparisons.append(Comparison("loss", abs(loss.item() - expected) / abs(expected), OUTPUT))
    limit = gradient_tolerance(golden.device)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, norm in golden.meta.get("grad_l2", {}).items():
        gradient = gradients.get(name)
        if gradient is None or norm is None:
            error = 0.0 if gradient is None and norm is None else math.inf
        else:
            error = abs(gradient.double().norm().item() - norm) / (norm or 1.0)
        comparisons.append(Comparison(f"grad_l2 {name}", error, limit))
    state = model.state_dict()
    for name, array in golden.arrays.items():
        kind, _, key = name.partition("::")
        if kind == "grad":
            gradient = gradients[key]
            if gradient is None:
                raise ValueError(f"{key} has no gradient")
            comparisons.append(rule_v1.compare_sample(golden, name, gradient, limit))
        elif kind == "buf":
            comparisons.append(rule_v1.compare_whole(name, state[key].reshape(-1)[:512], array.reshape(-1), OUTPUT))
    return comparisons
