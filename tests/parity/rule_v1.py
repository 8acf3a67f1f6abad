"""Rule v1: weights are drawn from a seed, outputs, intermediates and gradients are compared as strided samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.parity.golden import Comparison, Golden

__all__ = ["check_state_dict", "compare_sample", "compare_whole", "fill_weights", "inputs"]


def fill_weights(model: nn.Module, meta: Mapping[str, Any]) -> None:
    """Draw every floating-point tensor of the state dict, in the order of the sorted keys.

    Raises: ValueError: a rule for the standard deviation that is not `fan_in`.
    """
    if meta.get("std_rule", "fan_in") != "fan_in":
        raise ValueError(f"std_rule {meta['std_rule']!r} is not known")
    rng = np.random.RandomState(meta["seed"])
    state = model.state_dict()
    for key in sorted(state):
        if state[key].is_floating_point():
            drawn = _draw(rng, key, tuple(state[key].shape), meta.get("scale_overrides") or ())
            state[key].copy_(torch.from_numpy(drawn.astype(np.float32)))


def _draw(rng: np.random.RandomState, key: str, shape: tuple[int, ...], overrides: Any) -> np.ndarray:
    z = np.asarray(rng.standard_normal(shape))
    if key.endswith("running_var"):
        return np.abs(z) * 0.1 + 1
    if len(shape) == 1 and key.endswith("weight"):
        return 1 + 0.02 * z
    if len(shape) < 2:
        return 0.02 * z
    std = 1 / math.sqrt(math.prod(shape[1:]))
    for rule in overrides:
        if rule["key_contains"] in key and len(shape) >= rule["ndim_ge"]:
            std *= rule["factor"]
    return z * std


def inputs(meta: Mapping[str, Any]) -> list[Tensor]:
    """The inputs, drawn one after the other from `seed + 1`."""
    rng = np.random.RandomState(meta["seed"] + 1)
    return [torch.from_numpy(rng.standard_normal(tuple(shape)).astype(np.float32)) for shape in meta["input_shapes"]]


def check_state_dict(model: nn.Module, meta: Mapping[str, Any]) -> list[str]:
    """Differences between our keys and shapes and those of the file, as sentences."""
    own = {key: list(value.shape) for key, value in model.state_dict().items()}
    listed = meta.get("state_dict")
    if listed is None:
        return []
    theirs = {key: list(entry["shape"] if isinstance(entry, Mapping) else entry[0]) for key, entry in listed.items()}
    faults = [f"key {key} is missing in ours" for key in sorted(set(theirs) - set(own))]
    faults += [f"key {key} is ours only" for key in sorted(set(own) - set(theirs))]
    both = sorted(set(own) & set(theirs))
    return faults + [f"key {key} has shape {own[key]}, not {theirs[key]}" for key in both if own[key] != theirs[key]]


def compare_whole(name: str, ours: Tensor, expected: np.ndarray, tolerance: float) -> Comparison:
    """|difference| / (|expected| + std), i.e. `rtol = tolerance, atol = tolerance * std`."""
    if tuple(ours.shape) != tuple(expected.shape):
        return Comparison(f"{name} (shape {tuple(ours.shape)}, not {expected.shape})", math.inf, tolerance)
    theirs = np.asarray(expected, dtype=np.float64)
    return Comparison(name, _error(ours.detach().double().cpu().numpy(), theirs, float(theirs.std())), tolerance)


def compare_sample(golden: Golden, name: str, ours: Tensor, tolerance: float) -> Comparison:
    """A strided sample, its statistics and its shape; `name` as in the file, e.g. `act::layer1`."""
    intermediates = golden.meta.get("intermediates", {})
    about = intermediates.get(name) or intermediates.get(name.partition("::")[2] or name.removesuffix("_slice"))
    if about is None:
        return Comparison(f"{name} (the file does not say its step)", math.inf, tolerance)
    if list(ours.shape) != list(about["shape"]):
        return Comparison(f"{name} (shape {list(ours.shape)}, not {about['shape']})", math.inf, tolerance)
    values = ours.detach().double().cpu().numpy().reshape(-1)
    expected = np.asarray(golden.arrays[name], dtype=np.float64)
    std = float(about["std"])
    sample = values[:: about["step"]][:512]
    error = _error(sample, expected, std) if sample.shape == expected.shape else math.inf
    scale = std + abs(float(about["mean"])) or 1.0
    error = max(error, abs(values.mean() - about["mean"]) / scale, min(_std_errors(values, std)) / scale)
    return Comparison(name, float(error), tolerance)


def _std_errors(values: np.ndarray, std: float) -> list[float]:
    return [abs(float(values.std(ddof=ddof)) - std) for ddof in (0, 1) if values.size > ddof]


def _error(values: np.ndarray, expected: np.ndarray, std: float) -> float:
    if not expected.size:
        return 0.0
    return float((np.abs(values - expected) / np.maximum(np.abs(expected) + std, np.finfo(np.float64).tiny)).max())
