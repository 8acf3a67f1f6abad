"""Families of the correlation operator (float64, all implementations), its blocks and networks."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch

from tests.parity.golden import Comparison, Golden, NotUnderstood, Outcome, check_fields, compare
from tests.parity.layout_models import Case, Place, build_layout, check_case, keys_of
from wholereel.layers.correlation import CorrelationBlock
from wholereel.models import corrnet
from wholereel.models.layouts import OWN
from wholereel.ops.correlation import correlate

__all__ = ["check_corrnet", "is_corrnet"]

OPERATOR = {"convention", "displaced", "N", "C", "L", "H", "W", "K", "G", "D", "seed", "ones", "rule", "reference"}
BLOCK = {"displaced", "resolution", "C", "K", "D", "group_size", "groups", "frames", "bn_eps", "mode", "order"}
NETWORK = {"model", "depth", "frames", "K", "D", "group_size", "num_classes", "bn_eps", "bn_momentum", "dropout"}
NETWORK |= {"mode", "loss", "note", "displaced", "resolution", "filter_time", "join"}


def is_corrnet(golden: Golden) -> bool:
    """Whether the file is of the operator, a block or a network."""
    return str(golden.meta.get("layout", "")).startswith("wholereel-corrnet") or {"K", "G", "D"} <= set(golden.meta)


def check_corrnet(golden: Golden) -> Outcome:
    """Build what the file asks for and compare."""
    if "layout" not in golden.meta:
        return _operator(golden)
    settings = golden.meta["config"]
    if "model" in settings:
        check_fields(settings, NETWORK, "config")
        return check_case(golden, _network(settings))
    check_fields(settings, BLOCK, "config")
    if settings.get("order", "[correlation, bypass]") != "[correlation, bypass]":
        raise NotUnderstood(f"no builder for order {settings['order']!r}")
    block = CorrelationBlock(
        settings["C"],
        settings["frames"],
        join=settings["mode"],
        kernel=settings["K"],
        dilation=settings["D"],
        group_size=settings["group_size"],
        bn_eps=settings["bn_eps"],
        **_forms(settings),
    )
    return check_case(golden, Case(block, keys_of(block, OWN), Place))


def _forms(settings: dict[str, Any]) -> dict[str, Any]:
    """Forms of a block that the specification names, and ours for them."""
    resolution = settings.get("resolution", "full")
    if resolution not in ("full", "half"):
        raise NotUnderstood(f"no builder for resolution {resolution!r}")
    return {"half": resolution == "half", "displaced": settings.get("displaced", "previous")}


def _network(settings: dict[str, Any]) -> Case:
    options = {option: settings[option] for option in ("num_classes", "bn_eps", "dropout") if option in settings}
    options |= _forms(settings)
    options["join"] = settings.get("join", settings.get("mode") if settings.get("mode") == "concat" else "sum")
    options["per_frame"] = settings.get("filter_time", "per_frame") == "per_frame"
    model = corrnet.corrnet(
        settings["depth"],
        frames=settings["frames"],
        kernel=settings["K"],
        dilation=settings["D"],
        group_size=settings["group_size"],
        **options,
    )
    stages = list(model.stages)

    def place(name: str) -> Place | None:
        found = re.fullmatch(r"blocks\.([0-4])", name)
        return None if found is None else Place(stages[int(found[1])])

    deep = settings["depth"] > 100
    return Case(model, keys_of(model, build_layout(model, "pytorchvideo")), place, deep=deep)


def _operator(golden: Golden) -> Outcome:
    meta = golden.meta
    check_fields(meta, OPERATOR, "meta")
    rng = np.random.RandomState(meta["seed"])
    x = rng.standard_normal([meta[axis] for axis in ("N", "C", "L", "H", "W")])
    filter_shape = [meta[axis] for axis in ("L", "C", "K", "K")]
    w = np.ones(filter_shape) if meta["ones"] else rng.standard_normal(filter_shape)
    channels = meta["G"] * meta["K"] ** 2
    gy = rng.standard_normal((meta["N"], channels, meta["L"], meta["H"], meta["W"]))
    comparisons: list[Comparison] = []
    kernels = () if golden.device.type == "cpu" else ("triton",)
    for implementation in ("plain", "streaming", *kernels):
        for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
            inputs = [torch.from_numpy(array).to(golden.device, dtype).requires_grad_() for array in (x, w)]
            y = correlate(
                *inputs,
                dilation=meta["D"],
                groups=meta["G"],
                displaced=meta.get("displaced", "previous"),
                implementation=implementation,
            )
            y.backward(torch.from_numpy(gy).to(golden.device, dtype))
            label = f"{implementation} {str(dtype).removeprefix('torch.')} "
            for name, value in (("y", y), ("gx", inputs[0].grad), ("gw", inputs[1].grad)):
                comparisons.append(compare(golden, name, value, tolerance, label))
    compared = {comparison.name.split()[-1] for comparison in comparisons}
    return Outcome(tuple(comparisons), tuple(sorted(set(golden.arrays) - compared)))
