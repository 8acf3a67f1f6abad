"""Is MeMViT the public code's (facebookresearch/MeMViT), for configurations that no published model has?

Both are built from one configuration (`public_memvit.py`), with the same random weights, and see the same clips, videos
and boxes. After every step these are compared: logits, the output of every block, every cache, the gradients of all
parameters, and which parameters have none; and the logits of ours from a state that compresses at once, as streams have
it (not for `zero`, which is defined by entries that wait). An error is the largest difference over the largest value of
a tensor; in float64, so that nothing but rounding is left of what is equal.

    git clone https://github.com/facebookresearch/MeMViT
    python benchmarks/memvit_public_check.py --code MeMViT --out benchmarks/results/memvit_public_check.json

Where the public code fails there is nothing to compare; these are left out: relative positions over height and width
without compression, or with clips taller than the training crop; `CONV_Q` above 1 with causal attention; no box at all.
Where rows of several videos share a batch, its rule for boundaries is `zero`, otherwise `mask`. Not compared: a video
that comes back after another one in such a batch: there it finds the compression's bias where its old clips were;
our states know no names, and begin it anew. Where grids of keys and queries have no whole ratio, the public code's
indices depend on the precision; that configuration is compared in float32. `--published` compares MeMViT-16 (gradients
in the last step) and MeMViT-24 (float32, no gradients) at their size, with the options of their files for AVA.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import math
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from public_memvit import Public, import_public
from torch import Tensor, nn

from wholereel.models.memvit import MeMViT, memvit_config
from wholereel.models.memvit_boxes import BoxConfig
from wholereel.models.memvit_state import MemoryConfig, MemvitState
from wholereel.models.mvit_config import MvitConfig, every_block

TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}
NOUGHT = {torch.float64: 1e-9, torch.float32: 1e-6}  # of the largest gradient: what all keys share changes nothing
SMALL = MvitConfig(
    frames=8,
    crop=32,
    embed_dim=24,
    depth=4,
    widen=((1, 2.0), (3, 2.0)),
    q_strides=every_block(4, (1, 3)),
    kv_stride=(1, 2, 2),
    mlp_ratio=2.0,
    pool_first=True,
    axes_rule="square",
    init="memvit",
)
REMEMBERS = MemoryConfig(reach=2, gap=1, kernel=(3, 3, 3), stride=(2, 2, 2))
BOXES = BoxConfig(depth=1, scale=16, attention_dropout=0.0, qkv_dropout=0.0, dropout=0.0)
ONE = (("a",),) * 4
SWITCHES = tuple((name,) for name in "aaabbbbbcaaa")
ROWS = tuple(zip("aaabbbbccc", "xxyyyyyyzz", "kklmmmmmmm", strict=True))


@dataclass(frozen=True)
class Configuration:
    """What is built and what it sees.

    Args:
        videos: a name for each row, in each step.
        size: height and width of the clips; the training crop where `None`.
        counts: boxes of each row, by step.
        dtype: of everything.
        graded: how many of the last steps have gradients; all where `None`.
    """

    name: str
    config: MvitConfig = SMALL
    memory: MemoryConfig = REMEMBERS
    classes: int | tuple[int, ...] = 7
    boxes: BoxConfig | None = None
    videos: tuple[tuple[str, ...], ...] = ONE
    size: tuple[int, int] | None = None
    counts: tuple[tuple[int, ...], ...] = ()
    dtype: torch.dtype = torch.float64
    graded: int | None = None


@dataclass
class Errors:
    """The largest by kind of tensor, and where."""

    largest: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("logits", "blocks", "caches", "gradients"), 0.0)
    )
    where: dict[str, str] = field(default_factory=dict)
    without_gradient: int = 0

    def note(self, kind: str, where: str, ours: Tensor, theirs: Tensor) -> None:
        error = math.inf if ours.shape != theirs.shape else 0.0
        if not error and theirs.numel():
            error = float((ours - theirs).detach().abs().max() / theirs.detach().abs().max().clamp(min=1e-300))
        if not error <= self.largest[kind]:
            self.largest[kind], self.where[kind] = error, where


def configurations() -> Iterator[Configuration]:
    """All that is compared, but for the networks of published size."""
    long = (("a",),) * 14
    for reach, gap in itertools.product((1, 2, 3, 4), (1, 2, 3)):
        steps = long[: reach * gap + 3]
        yield Configuration(f"M = {reach}, G = {gap}", memory=replace(REMEMBERS, reach=reach, gap=gap), videos=steps)
    strides = ((1, 1, 1), (2, 2, 2), (4, 2, 2), (4, 4, 4), (1, 2, 2), (2, 3, 3))
    for stride, kernel in itertools.product(strides, ((3, 3, 3), (7, 3, 3), (5, 5, 5))):
        memory = replace(REMEMBERS, stride=stride, kernel=kernel)
        yield Configuration(f"compression {_by(stride)}, kernel {_by(kernel)}", memory=memory)
    for left_out, gap in itertools.product(((0,), (1, 3), (0, 1, 2), (0, 1, 2, 3)), (1, 2)):
        memory = replace(REMEMBERS, exclude=left_out, gap=gap)
        yield Configuration(f"without blocks {left_out}, G = {gap}", memory=memory, videos=long[:6])
    for name, changes in OPTIONS.items():
        yield Configuration(name, replace(SMALL, **changes))
    config = replace(SMALL, crop=64, kv_stride=(1, 3, 3))
    yield Configuration("keys by 3, crop of 64, float32", config, dtype=torch.float32)
    yield Configuration("two label spaces", classes=(4, 5))
    causal = replace(SMALL, causal=True, frame_level=True, class_token=False)
    yield Configuration("causal, every frame, two label spaces, no class token", causal, classes=(4, 5))
    for spatial, temporal in ((False, True), (False, False)):
        config = replace(SMALL, rel_pos_spatial=spatial, rel_pos_temporal=temporal)
        memory = replace(REMEMBERS, stride=None, gap=2)
        yield Configuration(f"not compressed, positions in time {temporal}", config, memory, videos=long[:7])
    for height, width in ((32, 64), (32, 57), (32, 36), (40, 72), (64, 64), (24, 56)):
        for kv in (2, 4):
            config = replace(SMALL, kv_stride=(1, kv, kv))
            yield Configuration(f"clips {height} x {width}, keys by {kv}", config, size=(height, width))
    config = replace(SMALL, rel_pos_spatial=False)
    yield Configuration("clips 64 x 32, positions in time alone", config, size=(64, 32))
    for reach, gap in itertools.product((1, 2, 3), (1, 2, 3)):
        memory = replace(REMEMBERS, reach=reach, gap=gap)
        yield Configuration(f"switches, M = {reach}, G = {gap}", memory=memory, videos=SWITCHES)
        memory = replace(memory, boundary="zero")
        yield Configuration(f"switches of three rows, M = {reach}, G = {gap}", memory=memory, videos=ROWS)
    zero = replace(REMEMBERS, boundary="zero")
    memory = replace(zero, exclude=(0, 2))
    yield Configuration("switches of three rows, without blocks (0, 2)", memory=memory, videos=ROWS[:6])
    config = replace(SMALL, rel_pos_spatial=False)
    yield Configuration("switches of three rows, not compressed", config, replace(zero, stride=None), videos=ROWS[:6])
    for depth, gap in itertools.product((0, 1, 2), (1, 2)):
        boxes, name = replace(BOXES, depth=depth), f"boxes, {depth} blocks, G = {gap}"
        memory = replace(REMEMBERS, gap=gap)
        counts = ((3,), (1,), (7,), (100,), (2,))
        yield Configuration(name, memory=memory, boxes=boxes, videos=SWITCHES[:5], counts=counts)
        memory = replace(memory, boundary="zero")
        counts = ((2, 0, 4), (0, 3, 1), (1, 1, 0), (2, 2, 2), (0, 0, 3))
        yield Configuration(f"{name}, three rows", memory=memory, boxes=boxes, videos=ROWS[:5], counts=counts)
    counts = ((4,), (2,), (1,), (5,))
    yield Configuration("boxes, clips 32 x 56", boxes=BOXES, size=(32, 56), counts=counts)
    boxes = replace(BOXES, resolution=3, aligned=False)
    yield Configuration("boxes, 3 x 3 bins, not aligned", boxes=boxes, counts=counts)
    yield Configuration("boxes, no class token", replace(SMALL, class_token=False), boxes=BOXES, counts=counts)
    yield Configuration("boxes, no queries added", replace(SMALL, residual=0), boxes=BOXES, counts=counts)
    memory = replace(REMEMBERS, exclude=(0, 1, 2, 3))
    yield Configuration("boxes, which alone remember", memory=memory, boxes=BOXES, counts=counts)
    yield Configuration("boxes, no memory", memory=MemoryConfig(reach=0), boxes=BOXES, counts=counts)


OPTIONS: dict[str, dict[str, Any]] = {
    "no class token": {"class_token": False},
    "causal": {"causal": True},
    "causal, every frame": {"causal": True, "frame_level": True},
    "every frame": {"frame_level": True},
    "no queries added": {"residual": 0},
    "convolved queries added": {"residual": 2},
    "convolved queries added, no class token": {"residual": 2, "class_token": False},
    "poolings by maximum": {"mode": "max"},
    "poolings by average": {"mode": "avg"},
    "poolings with weights for each channel": {"mode": "conv_unshared"},
    "no positions": {"rel_pos_spatial": False, "rel_pos_temporal": False},
    "positions in space": {"rel_pos_temporal": False},
    "positions in time": {"rel_pos_spatial": False},
    "positions in space, causal": {"rel_pos_temporal": False, "causal": True},
    "absolute positions": {"absolute": "joint"},
    "absolute positions, separable, no class token": {"absolute": "separable", "class_token": False},
    "no bias in q, k, v": {"qkv_bias": False},
    "norm behind the stem": {"norm_stem": True},
    "MLP widens": {"widen_in_attention": False},
    "heads and widths apart": {"widen": ((1, 1.3), (3, 2.7)), "widen_heads": ((1, 2.0), (3, 2.0))},
    "three heads": {"heads": 3},
    "key strides listed": {"kv_stride": None, "kv_strides": ((0, 1, 2, 2), (2, 1, 2, 2))},
    "kernels by stride": {"kernel": None, "kv_stride": (1, 4, 4)},
    "few poolings of queries": {"q_strides": ((1, 1, 2, 2), (3, 1, 2, 2))},
    "queries pooled over time": {"q_strides": ((0, 1, 1, 1), (1, 2, 2, 2), (2, 1, 1, 1), (3, 1, 2, 2))},
    "keys pooled over time": {"kv_stride": (2, 2, 2)},
    "another stem": {"patch_kernel": (1, 4, 4), "patch_stride": (1, 4, 4), "patch_padding": (0, 0, 0)},
    "crop of 44": {"crop": 44},
    "16 frames": {"frames": 16},
}


def published() -> Iterator[Configuration]:
    """MeMViT-16 and -24 with the options of their files for AVA."""
    for size, gap, dtype, graded in (("16x4", 2, torch.float64, 1), ("32x3", 3, torch.float32, 0)):
        config = replace(memvit_config(size), drop_path=0.0, head_dropout=0.0)
        memory = MemoryConfig(reach=2, gap=gap, exclude=tuple(range(1, config.depth, 2)))
        yield Configuration(
            f"MeMViT-{config.depth}, AVA, {str(dtype).removeprefix('torch.')}",
            config,
            memory,
            classes=80,
            boxes=replace(BOXES, scale=32),
            videos=(("a",),) * (gap + 2),
            counts=((2,), (5,), (1,), (3,), (2,))[: gap + 2],
            dtype=dtype,
            graded=graded,
        )


def _by(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


def randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Weights with which everything matters, positions too."""
    for name, parameter in model.named_parameters():
        one = parameter.ndim == 1 and name.endswith("weight")
        table = any(part in name for part in ("rel_pos", "pos_embed", "cls_token"))
        std = 0.5 if table else 0.1 if parameter.ndim == 1 else math.prod(parameter.shape[1:]) ** -0.5
        parameter.data.normal_(0, std, generator=generator).add_(float(one))


def compare(given: Configuration) -> Errors:
    """A configuration through all its steps."""
    torch.set_default_dtype(given.dtype)
    generator = torch.Generator().manual_seed(0)
    ours = MeMViT(given.config, given.memory, boxes=given.boxes, num_classes=given.classes).eval()
    randomise(ours, generator)
    public = Public(ours, given.classes).eval()
    outputs: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    blocks = [f"blocks.{index}" for index in range(len(ours.blocks))]
    blocks += [f"box_blocks.{index}" for index in range(len(ours.box_blocks))]
    for network, kept in zip((ours, public.network), outputs, strict=True):
        for name in blocks:
            network.get_submodule(name).register_forward_hook(_keeper(kept, name))
    size, rows, errors = given.size or (given.config.crop, given.config.crop), len(given.videos[0]), Errors()
    state = ours.init_state(rows, size=size, pending=True)
    at_once = ours.init_state(rows, size=size, pending=False) if given.memory.boundary == "mask" else None
    for step, videos in enumerate(given.videos):
        clip = torch.randn(rows, 3, given.config.frames, *size, generator=generator)
        boxes_R5 = draw_boxes(given.counts[step], size, generator) if given.boxes else None
        before = given.videos[max(step - 1, 0)]
        begins = torch.tensor([name != old for name, old in zip(videos, before, strict=True)])
        state = state.reset(begins)
        attends = _held(state, given.memory) >= given.memory.gap
        graded = given.graded is None or step >= len(given.videos) - given.graded
        with torch.set_grad_enabled(graded):
            theirs = public(clip, videos, boxes_R5)
            logits, state = ours(clip, state, boxes_R5)
        own = _spaces(logits)
        for space, pair in enumerate(zip(own, theirs, strict=True)):
            errors.note("logits", f"step {step}, label space {space}", *pair)
        for name in blocks:
            errors.note("blocks", f"step {step}, {name}", outputs[0][name], outputs[1][name])
        if at_once is not None:
            with torch.no_grad():
                streamed, at_once = ours(clip, at_once.reset(begins), boxes_R5)
            for space, pair in enumerate(zip(_spaces(streamed), theirs, strict=True)):
                errors.note("logits", f"step {step}, label space {space}, streamed", *pair)
        compare_caches(errors, given, step, ours, state, public)
        for parts in (own, theirs) if graded else ():
            torch.stack(
                [(part.flatten() * torch.linspace(-1, 1, part.numel())).sum() for part in parts]
            ).sum().backward()
        if graded:
            compare_gradients(errors, step, ours, public.network, attends=attends)
    return errors


def _spaces(logits: Any) -> tuple[Tensor, ...]:
    return logits if isinstance(logits, tuple) else (logits,)


def _keeper(kept: dict[str, Tensor], name: str) -> Any:
    def keep(module: nn.Module, args: Any, output: Any) -> None:
        kept[name] = output[0].detach()

    return keep


def draw_boxes(counts: tuple[int, ...], size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """`(R, 5)`: that many boxes of each row, in the rows' order."""
    boxes = []
    for row, count in enumerate(counts):
        y = torch.rand(count, 2, generator=generator).sort(1).values * size[0]
        x = torch.rand(count, 2, generator=generator).sort(1).values * size[1]
        boxes.append(torch.stack([torch.full((count,), float(row)), x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1))
    return torch.cat(boxes)


def _held(state: MemvitState, memory: MemoryConfig) -> int:
    first = state.layers[0] if state.layers else None
    held = None if first is None else first.steps_B if memory.boundary == "zero" else first.entries_B
    return 0 if held is None else int(held.max())


def compare_caches(
    errors: Errors, given: Configuration, step: int, ours: MeMViT, state: MemvitState, public: Public
) -> None:
    """Entry by entry; of the rows that had another video when it was made nothing is left, here or there."""
    if not given.memory.reach:
        return
    names = [f"blocks.{index}" for index in ours.remembering]
    names += [f"box_blocks.{index}" for index in range(len(ours.box_blocks))]
    count = _held(state, given.memory)
    made = range(step + 1 - count, step + 1)
    for name, cache in zip(names, state.layers, strict=True):
        listed = public.entries(name)
        for kind, older, newest in (
            ("keys", cache.keys_BELD, cache.newest_keys_BLD),
            ("values", cache.values_BELD, cache.newest_values_BLD),
        ):
            entries = [*older.unbind(1)[older.shape[1] - count + 1 :], newest]
            if len(entries) != len(listed):
                raise SystemExit(f"{given.name}: {name} holds {len(entries)} entries, the public code {len(listed)}")
            for of, entry, pair in zip(made, entries, listed, strict=True):
                same = [
                    row
                    for row, video in enumerate(given.videos[step])
                    if all(videos[row] == video for videos in given.videos[of:step])
                ]
                theirs = pair[0] if kind == "keys" else pair[1]
                errors.note("caches", f"step {step}, {kind} of {name} of step {of}", entry[same], theirs[same])


def compare_gradients(errors: Errors, step: int, ours: nn.Module, public: nn.Module, *, attends: bool) -> None:
    """All gradients, and that the same parameters have none; an empty memory is masked here, absent there."""
    theirs, own = dict(public.named_parameters()), dict(ours.named_parameters())
    nought = (
        max(float(p.grad.norm()) for p in theirs.values() if p.grad is not None) * NOUGHT[torch.get_default_dtype()]
    )
    for name, parameter in theirs.items():
        gradient, expected = own[name].grad, parameter.grad
        if expected is None or gradient is None:
            empty = gradient is not None and not attends and ("_mem_" in name or "compress_" in name)
            if expected is not gradient and not (empty and gradient is not None and not gradient.any()):
                raise SystemExit(f"step {step}: only one of the two gives {name} a gradient")
        elif float(expected.norm()) > nought:
            errors.note("gradients", f"step {step}, {name}", gradient, expected)
        elif float(gradient.norm()) > 10 * nought:
            errors.largest["gradients"] = math.inf
    errors.without_gradient = sum(parameter.grad is None for parameter in theirs.values())
    for parameter in (*theirs.values(), *own.values()):
        parameter.grad = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--code", type=Path, required=True, help="a checkout of facebookresearch/MeMViT")
    parser.add_argument("--only", help="configurations whose name contains this")
    parser.add_argument("--published", action="store_true", help="also MeMViT-16 and -24 at full size (minutes)")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    import_public(given.code)
    rows: list[dict[str, Any]] = []
    for configuration in itertools.chain(configurations(), published() if given.published else ()):
        if given.only and given.only not in configuration.name:
            continue
        errors = compare(configuration)
        rows.append({"name": configuration.name, **{kind: float(f"{e:.1e}") for kind, e in errors.largest.items()}})
        rows[-1]["without_gradient"] = errors.without_gradient
        print(json.dumps(rows[-1]), flush=True)
        wrong = [kind for kind, error in errors.largest.items() if error > TOLERANCE[configuration.dtype]]
        if wrong:
            raise SystemExit(f"{configuration.name}: {'; '.join(f'{kind} at {errors.where[kind]}' for kind in wrong)}")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    result = {
        "what": "MeMViT against facebookresearch/MeMViT in float64: largest difference over largest value, all steps",
        "command": f"python benchmarks/memvit_public_check.py --code MeMViT{' --published' * given.published}",
        "commit": commit.stdout.strip(),
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, torch {torch.__version__}",
        "largest": {kind: max(row[kind] for row in rows if "float32" not in row["name"]) for kind in Errors().largest},
        "rows": rows,
    }
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
