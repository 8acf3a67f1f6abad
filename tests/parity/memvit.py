"""Families of MViT and MeMViT (Rule v1): outputs of every step, caches, gradients.

A layer that is excluded from memory keeps no cache of ours. The public code's cache of such a layer is compared with
one that is kept here, from the layer's own pooling and compression.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.parity import rule_v1
from tests.parity.golden import Comparison, Golden, NotUnderstood, Outcome, check_fields
from wholereel.memory.cached import CachedState, cache_step
from wholereel.models.memvit import MeMViT
from wholereel.models.memvit_boxes import BoxConfig
from wholereel.models.memvit_state import MemoryConfig, MemvitState
from wholereel.models.mvit import MViT
from wholereel.models.mvit_config import MvitConfig

__all__ = ["check_memvit", "is_memvit"]

OUTPUT, GRADIENT, NOUGHT = 2e-4, 1e-3, 1e-6
MEMVIT, SLOWFAST = "facebookresearch/MeMViT state_dict", "facebookresearch/SlowFast MViT state_dict"
META = {"grad_l2", "torch", "note", "boxes", "input_shapes", "layout", "intermediates", "state_dict", "std_rule"}
META |= {"params", "macs", "gflops", "flops"}
META |= {"seed", "video_names", "loss", "config", "n_params", "case", "scale_overrides", "rule", "numpy", "kind"}
# Options without an effect on what is compared, and those that must have the value that we build.
PROSE = {"ZERO_DECAY_POS_CLS", "REL_POS_ZERO_INIT", "HEAD_INIT_SCALE", "DROPPATH_RATE", "DROPOUT_RATE"}
PROSE |= {"DROP_ATTN_RATE", "BOX_DROPPATH_RATE", "BOX_DROP_ATTN_RATE", "BOX_DROP_QKV_RATE", "BOX_DROPOUT_RATE"}
FIXED = {"NORM": "layernorm"}
READ = {"MODE", "POOL_FIRST", "CLS_EMBED_ON", "PATCH_KERNEL", "PATCH_STRIDE", "PATCH_PADDING", "EMBED_DIM", "NUM_HEADS"}
READ |= {"MLP_RATIO", "QKV_BIAS", "DEPTH", "DIM_MUL", "HEAD_MUL", "POOL_KV_STRIDE", "POOL_KV_STRIDE_ADAPTIVE"}
READ |= {"POOL_Q_STRIDE", "POOL_KVQ_KERNEL", "NORM_STEM", "SEP_POS_EMBED", "USE_ABS_POS", "REL_POS_SPATIAL"}
READ |= {"REL_POS_TEMPORAL", "FRAME_LEVEL", "CAUSAL", "BOX_DEPTH", "CONV_Q", "DIM_MUL_IN_ATT", "SEPARATE_QKV"}
READ |= {"RESIDUAL_POOLING", "USE_MEAN_POOLING", "REV", "PATCH_2D", "LAYER_SCALE_INIT_VALUE", "USE_FIXED_SINCOS_POS"}


def is_memvit(golden: Golden) -> bool:
    """Whether the layout is one of the two public codes'."""
    return golden.meta.get("layout") in (MEMVIT, SLOWFAST)


def check_memvit(golden: Golden) -> Outcome:
    """Keys, then step by step intermediates, outputs and caches; gradients of the last step."""
    check_fields(golden.meta, META, "meta")
    model = _build(golden)
    faults = rule_v1.check_state_dict(model, golden.meta)
    if faults:
        return Outcome(tuple(Comparison(fault, math.inf, 0.0) for fault in faults))
    rule_v1.fill_weights(model, golden.meta)
    model.eval()
    run = _Run(golden, model)
    comparisons = run.all_steps()
    compared = {comparison.name.split(" (")[0] for comparison in comparisons}
    return Outcome(tuple(comparisons), tuple(sorted(set(golden.arrays) - compared)))


def _config(golden: Golden) -> MvitConfig:
    groups = golden.meta["config"]
    check_fields(groups, {"mode", "MVIT", "MEMVIT", "DATA", "MODEL", "DETECTION"}, "config")
    options, data = groups["MVIT"], groups["DATA"]
    check_fields(options, PROSE | set(FIXED) | READ, "config.MVIT")
    wrong = [name for name, value in FIXED.items() if options.get(name, value) != value]
    if wrong or groups.get("mode", "eval") != "eval" or (options.get("REV") or {}).get("ENABLE", False):
        raise NotUnderstood(f"no builder for {', '.join(wrong) or 'this mode'}")
    absolute = "none"
    if options["USE_ABS_POS"]:
        absolute = "separable" if options["SEP_POS_EMBED"] else "joint"
        absolute = "sincos" if options.get("USE_FIXED_SINCOS_POS", False) else absolute
    adaptive = options["POOL_KV_STRIDE_ADAPTIVE"]
    slowfast = golden.meta["layout"] == SLOWFAST
    flat = options.get("PATCH_2D", False)  # kernel, stride and padding have two axes there
    kernel, stride, padding = (tuple(options[f"PATCH_{name}"]) for name in ("KERNEL", "STRIDE", "PADDING"))
    return MvitConfig(
        frames=1 if flat else data["NUM_FRAMES"],
        crop=data["TRAIN_CROP_SIZE"],
        patch_2d=flat,
        patch_kernel=(1, *kernel[-2:]) if flat else kernel,
        patch_stride=(1, *stride[-2:]) if flat else stride,
        patch_padding=(0, *padding[-2:]) if flat else padding,
        layer_scale=float(options.get("LAYER_SCALE_INIT_VALUE") or 0.0),
        embed_dim=options["EMBED_DIM"],
        heads=options["NUM_HEADS"],
        depth=options["DEPTH"],
        widen=tuple(map(tuple, options["DIM_MUL"])),
        widen_heads=tuple(map(tuple, options["HEAD_MUL"])),
        widen_in_attention=options["DIM_MUL_IN_ATT"],
        q_strides=tuple(map(tuple, options["POOL_Q_STRIDE"])),
        kv_stride=tuple(adaptive) if adaptive else None,
        kv_strides=() if adaptive else tuple(map(tuple, options["POOL_KV_STRIDE"])),
        kernel=tuple(options["POOL_KVQ_KERNEL"]) if options["POOL_KVQ_KERNEL"] else None,
        mode=options["MODE"],
        pool_first=options["POOL_FIRST"],
        separate_qkv=options["SEPARATE_QKV"],
        qkv_bias=options["QKV_BIAS"],
        mlp_ratio=options["MLP_RATIO"],
        class_token=options["CLS_EMBED_ON"],
        mean_first=options.get("USE_MEAN_POOLING", False),
        absolute=absolute,
        rel_pos_spatial=options["REL_POS_SPATIAL"],
        rel_pos_temporal=options["REL_POS_TEMPORAL"],
        axes_rule="apart" if slowfast else "square",
        residual=int(options["RESIDUAL_POOLING"] if slowfast else min(options["CONV_Q"], 2)),
        causal=options.get("CAUSAL", False),
        norm_stem=options["NORM_STEM"],
        init="slowfast" if slowfast else "memvit",
        frame_level=options.get("FRAME_LEVEL", False),
    )


def _build(golden: Golden) -> MViT:
    groups, config = golden.meta["config"], _config(golden)
    heads = groups["MODEL"]
    check_fields(heads, {"NUM_CLASSES", "NUM_CLASSES_LIST", "HEAD_ACT"}, "config.MODEL")
    classes = tuple(heads["NUM_CLASSES_LIST"]) or heads["NUM_CLASSES"]
    memory, detection = groups.get("MEMVIT") or {"ENABLE": False}, groups["DETECTION"]
    if not memory["ENABLE"] and not detection["ENABLE"]:
        return MViT(config, num_classes=classes)
    boxes = _boxes(groups) if detection["ENABLE"] else None
    if not memory["ENABLE"]:
        return MeMViT(config, MemoryConfig(reach=0), boxes=boxes, num_classes=classes)
    sampler, compress = memory["SAMPLER"], memory["COMPRESS"]
    check_fields(memory, {"ENABLE", "ATTN_MAX_LEN", "SAMPLER", "EXCLUDE_LAYERS", "COMPRESS"}, "config.MEMVIT")
    batch = golden.meta["input_shapes"][0][0]
    settings = MemoryConfig(
        reach=memory["ATTN_MAX_LEN"] - 1,
        gap=int(sampler[-1]) if sampler.startswith("gap") else 1,
        exclude=tuple(memory["EXCLUDE_LAYERS"]),
        kernel=tuple(compress["POOL_KERNEL"]),
        stride=tuple(compress["POOL_STRIDE"]) if compress["ENABLE"] else None,
        boundary="mask" if batch == 1 else "zero",
    )
    return MeMViT(config, settings, boxes=boxes, num_classes=classes)


def _boxes(groups: Any) -> BoxConfig:
    detection = groups["DETECTION"]
    return BoxConfig(
        depth=groups["MVIT"]["BOX_DEPTH"],
        scale=detection["SPATIAL_SCALE_FACTOR"],
        resolution=detection["ROI_XFORM_RESOLUTION"],
        aligned=detection["ALIGNED"],
    )


class _Run:
    """A model over the steps of a file, compared as it goes."""

    def __init__(self, golden: Golden, model: MViT) -> None:
        self.golden, self.model = golden, model
        self.clips = rule_v1.inputs(golden.meta)
        self.activations: dict[str, Tensor] = {}
        self.stepped = any(name.startswith("step0::") for name in golden.arrays)
        self.state: MemvitState | None = None
        self.extra: dict[int, CachedState] = {}
        watched = {name.split("act::")[1] for name in golden.arrays if "act::" in name}
        for name in watched:
            model.get_submodule(name).register_forward_hook(self._keeper(name))
        if isinstance(model, MeMViT):
            size = tuple(self.clips[0].shape[3:])
            self.state = model.init_state(len(self.clips[0]), size=size, pending=True)
            for index in model.memory.exclude:
                if index < len(model.blocks):
                    model.blocks[index].register_forward_pre_hook(self._rememberer(index))

    def _keeper(self, name: str) -> Callable[..., None]:
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            self.activations[name] = (output[0] if isinstance(output, tuple) else output).detach()

        return keep

    @torch.no_grad()
    def _remember(self, index: int, x_BLD: Tensor, grid: tuple[int, int, int]) -> None:
        model = self.model
        assert isinstance(model, MeMViT)
        block, memory = model.blocks[index], model.memory
        pooled = block.attn.pool(block.norm1(x_BLD), grid)
        entry = pooled.key_BLD, pooled.value_BLD

        def compress(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            return block.attn.compress(keys, values, pooled.key_grid)

        if index not in self.extra:
            sizes = {"tokens": entry[0].shape[1], "compressed_tokens": compress(*entry)[0].shape[1]}
            self.extra[index] = CachedState.init(
                len(x_BLD), **sizes, dim=entry[0].shape[2], reach=memory.reach, gap=memory.gap
            )
        _, self.extra[index] = cache_step(
            self.extra[index], *entry, gap=memory.gap, compress=compress, boundary=memory.boundary
        )

    def _rememberer(self, index: int) -> Callable[..., None]:
        return lambda module, args: self._remember(index, args[0], args[1])

    def all_steps(self) -> list[Comparison]:
        comparisons = []
        last = len(self.clips) - 1
        for step in range(len(self.clips)):
            graded = step == last and "grad_l2" in self.golden.meta
            with torch.set_grad_enabled(graded):
                logits, attends = self._step(step)
            comparisons += self._compare(step, logits)
            if graded:
                comparisons += self._gradients(logits, attends)
        return comparisons

    def _step(self, step: int) -> tuple[tuple[Tensor, ...], bool]:
        model, clip = self.model, self.clips[step]
        attends = False
        if isinstance(model, MeMViT):
            assert self.state is not None
            names = self.golden.meta["video_names"]
            if step:
                rows_B = torch.tensor([a != b for a, b in zip(names[step], names[step - 1], strict=True)])
                self.state = self.state.reset(rows_B)
                self.extra = {index: cache.reset(rows_B) for index, cache in self.extra.items()}
            first = self.state.layers[0] if self.state.layers else None
            if first is not None:
                held = first.steps_B if model.memory.boundary == "zero" else first.entries_B
                attends = int(held.max()) >= model.memory.gap
            boxes = self.golden.meta.get("boxes")
            rois = (torch.tensor(boxes[step]),) if boxes and model.boxes else ()
            logits, self.state = model(clip, self.state, *rois)
        else:
            logits = model(clip)
        return (logits if isinstance(logits, tuple) else (logits,)), attends

    def _compare(self, step: int, logits: tuple[Tensor, ...]) -> list[Comparison]:
        golden, prefix = self.golden, f"step{step}::" if self.stepped else ""
        softmax = golden.meta["config"]["MODEL"]["HEAD_ACT"] == "softmax"
        comparisons = [
            rule_v1.compare_sample(golden, f"{prefix}act::{name}", value, OUTPUT)
            for name, value in sorted(self.activations.items(), key=_network_order)
            if f"{prefix}act::{name}" in golden.arrays
        ]
        for index, value in enumerate(logits):
            scores = value.softmax(-1) if softmax else value.sigmoid()
            for name, tensor in ((f"{prefix}logits{index}", value), (f"{prefix}out{index}", scores)):
                if name in golden.arrays:
                    comparisons.append(rule_v1.compare_whole(name, tensor, golden.arrays[name], OUTPUT))
                if f"{name}_slice" in golden.arrays:
                    comparisons.append(rule_v1.compare_sample(golden, f"{name}_slice", tensor, OUTPUT))
        for name in golden.arrays:
            if name.startswith(f"{prefix}cache_"):
                comparisons.append(self._compare_cache(name))
        return comparisons

    def _compare_cache(self, name: str) -> Comparison:
        _, kind, layer, entry = name.split("::")
        assert isinstance(self.model, MeMViT)
        assert self.state is not None
        index = int(layer.removeprefix("blocks."))
        if index in self.extra:
            cache = self.extra[index]
        else:
            cache = self.state.layers[self.model.remembering.index(index)]
        held = cache.steps_B if self.model.memory.boundary == "zero" else cache.entries_B
        older, newest = (
            (cache.keys_BELD, cache.newest_keys_BLD)
            if kind == "cache_k"
            else (cache.values_BELD, cache.newest_values_BLD)
        )
        count = int(held.max())
        entries = [*older.unbind(1)[older.shape[1] - count + 1 :], newest]
        if int(entry) >= len(entries):
            return Comparison(f"{name} (we hold {len(entries)} entries)", math.inf, OUTPUT)
        step = int(name.partition("::")[0].removeprefix("step"))
        return self._compare_entry(name, entries[int(entry)], step, made=step + 1 - len(entries) + int(entry))

    def _compare_entry(self, name: str, ours: Tensor, step: int, made: int) -> Comparison:
        """The public code zeroes an entry in place where a row has another video than when the entry was made. It does
        so after the sample was taken, and the file holds the sample as it was in the end: such rows are compared by the
        statistics of the whole alone."""
        golden, videos = self.golden, self.golden.meta["video_names"]
        changed = [row for row, video in enumerate(videos[made]) if any(v[row] != video for v in videos[step:])]
        about, expected = golden.meta["intermediates"].get(name), golden.arrays[name]
        if about is None or list(ours.shape) != list(about["shape"]) or not changed:
            return rule_v1.compare_sample(golden, name, ours, OUTPUT)
        sample = ours.reshape(-1)[:: about["step"]][:512].numpy()
        rows = np.arange(sample.size) * about["step"] // (ours.numel() // len(ours))
        kept = np.where(np.isin(rows, changed) & (expected == 0), sample, expected)
        restored = Golden(golden.path, golden.meta, {name: kept})
        return rule_v1.compare_sample(restored, name, ours, OUTPUT)

    def _gradients(self, logits: tuple[Tensor, ...], attends: bool) -> list[Comparison]:
        terms = [value * torch.linspace(-1, 1, value.numel()).reshape(value.shape) for value in logits]
        loss = torch.stack([part.sum() for part in terms]).sum()
        loss.backward()
        comparisons = []
        if self.golden.meta.get("loss") is not None:
            # A sum of both signs: its error is that of its terms.
            size = math.sqrt(sum(float(part.detach().double().square().sum()) for part in terms))
            error = abs(loss.item() - self.golden.meta["loss"]) / size
            comparisons.append(Comparison("loss", error, OUTPUT))
        gradients = {name: parameter.grad for name, parameter in self.model.named_parameters()}
        largest = max(norm or 0.0 for norm in self.golden.meta["grad_l2"].values())
        for name, norm in self.golden.meta["grad_l2"].items():
            gradient = gradients[name]
            if gradient is not None and norm is None and not attends and ("_mem_" in name or "compress_" in name):
                # An empty memory is masked, not absent: its parameters get zeros where the public code has nothing.
                error = 0.0 if not gradient.any() else math.inf
            elif gradient is None or norm is None:
                error = 0.0 if gradient is None and norm is None else math.inf
            elif norm < NOUGHT * largest:
                # What is added to all keys alike changes nothing: both gradients are rounding errors.
                error = 0.0 if gradient.double().norm().item() < NOUGHT * largest else math.inf
            else:
                error = abs(gradient.double().norm().item() - norm) / (norm or 1.0)
            comparisons.append(Comparison(f"grad_l2 {name}", error, GRADIENT))
        for name in self.golden.arrays:
            if name.startswith("grad::"):
                gradient = gradients[name.removeprefix("grad::")]
                if gradient is None:
                    comparisons.append(Comparison(f"{name} (we have none)", math.inf, GRADIENT))
                else:
                    comparisons.append(rule_v1.compare_sample(self.golden, name, gradient, GRADIENT))
        return comparisons


def _network_order(item: tuple[str, Tensor]) -> tuple[int, int]:
    stages = ("patch_embed", "blocks", "norm", "box_blocks")
    stage, _, index = item[0].partition(".")
    return (stages.index(stage) if stage in stages else len(stages)), int(index) if index.isdigit() else 0
