"""MeMViT against the public code itself (facebookresearch/MeMViT): equal results first, then CPU-seconds by turns.

The public code is no part of this project (its licence is CC-BY-NC-4.0); give the path of a checkout, which an adapter
of our own (`public_memvit.py`) makes importable, builds MeMViT-16 with, and gives our weights.

    git clone https://github.com/facebookresearch/MeMViT
    python benchmarks/memvit_public.py --code MeMViT --rounds 5 --divided --out benchmarks/results/memvit_public.json

Compared step by step, over a video's switch: logits, and gradients of all parameters in the last step. Then both take
turns on one thread, with the same weights, clips and full memories, without dropout:

- forward: a step without gradients, in evaluation mode; train: a step in training mode with loss and backward
- off: the same networks without memory; on / off is what memory costs
- state_mb: what is kept of one video between two steps, in evaluation mode; boxes_state_mb: with the block over boxes,
  as the published settings have it
- --divided: which share of a forward's CPU time goes to what, by the profiler
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from public_memvit import Public, import_public
from torch import Tensor, nn

from wholereel.models.memvit import MeMViT, memvit_config
from wholereel.models.memvit_boxes import BoxConfig
from wholereel.models.memvit_state import MemoryConfig

TOLERANCE = 1e-3
SHARES: dict[str, tuple[str, ...]] = {
    "linear maps": ("addmm", "::mm", "linear"),
    "attention": ("bmm", "scaled_dot_product", "softmax"),
    "convolution and pooling": ("conv", "pool"),
    "copies": ("copy_", "cat", "clone", "contiguous", "pad", "fill_", "index", "zero"),
    "norms": ("norm",),
    "sums, factors, GELU": ("add", "mul", "sub", "gelu", "div"),
}


@dataclass(frozen=True)
class Pair:
    """The same network twice."""

    ours: MeMViT
    public: Public


def make_pair(crop: int, reach: int, gap: int, weights: MeMViT | None = None, *, boxes: bool = False) -> Pair:
    """MeMViT-16 of ours and of the public code, without dropout; with the weights of a network with memory."""
    torch.manual_seed(0)
    config = replace(memvit_config("16x4"), crop=crop, drop_path=0.0, head_dropout=0.0)
    memory = MemoryConfig(reach=reach, gap=gap, exclude=tuple(range(1, config.depth, 2)))
    box_config = BoxConfig(attention_dropout=0.0, qkv_dropout=0.0, dropout=0.0) if boxes else None
    ours = MeMViT(config, memory, boxes=box_config, num_classes=400)
    for name, parameter in ours.named_parameters():
        if "rel_pos" in name:
            nn.init.normal_(parameter, std=0.2)
    if weights is not None:
        given = weights.state_dict()
        ours.load_state_dict({name: given[name] for name in ours.state_dict()})
    return Pair(ours.eval(), Public(ours, 400).eval())


def check(pair: Pair, clips: list[Tensor]) -> dict[str, float]:
    """The largest differences over clips of which the last two thirds are another video; an error if they are large."""
    pair.ours.train()
    pair.public.train()
    state, largest = pair.ours.init_state(1, pending=True), 0.0
    for step, clip in enumerate(clips):
        begins = step == len(clips) // 3
        state = state.reset(torch.tensor([begins]))
        with torch.set_grad_enabled(step == len(clips) - 1):
            logits, state = pair.ours(clip, state)
            (expected,) = pair.public(clip, "a" if step < len(clips) // 3 else "b")
        largest = max(largest, float((logits - expected).abs().max() / expected.std()))
    logits.square().sum().backward()
    expected.square().sum().backward()
    theirs = {name: parameter.grad for name, parameter in pair.public.network.named_parameters()}
    without = {name for name, gradient in theirs.items() if gradient is None}
    own = {name: parameter.grad for name, parameter in pair.ours.named_parameters()}
    if without != {name for name, gradient in own.items() if gradient is None}:
        raise SystemExit("the two don't give gradients to the same parameters")
    graded = sorted(set(theirs) - without)
    flat = [torch.cat([of[name].flatten() for name in graded]).double() for of in (own, theirs)]  # type: ignore[union-attr]
    gradient = float((flat[0] - flat[1]).norm() / flat[1].norm())
    if max(largest, gradient) > TOLERANCE:
        raise SystemExit(f"the two disagree: logits by {largest:.1e} of their spread, gradients by {gradient:.1e}")
    for model in (pair.ours, pair.public.network):
        model.zero_grad()
        model.eval()
    return {"logits": largest, "gradients": gradient, "parameters_without_gradient": len(without)}


def seconds(action: Callable[[], object]) -> float:
    before = time.process_time()
    action()
    return time.process_time() - before


def forward_actions(pair: Pair, clip: Tensor, warm: int) -> dict[str, Callable[[], object]]:
    """A forward of each with a full memory."""
    state = pair.ours.init_state(1)
    with torch.no_grad():
        for _ in range(warm):
            _, state = pair.ours(clip, state)
            pair.public(clip, "a")

    def ours() -> None:
        with torch.no_grad():
            pair.ours(clip, state)

    def public() -> None:
        with torch.no_grad():
            pair.public(clip, "a")

    return {"ours": ours, "public": public}


def train_actions(pair: Pair, clip: Tensor, warm: int) -> dict[str, Callable[[], object]]:
    """A training step of each."""
    pair.ours.train()
    pair.public.train()
    state = pair.ours.init_state(1, pending=True)
    with torch.no_grad():
        for _ in range(warm):
            _, state = pair.ours(clip, state)
            pair.public(clip, "a")

    def ours() -> None:
        pair.ours(clip, state)[0].square().sum().backward()
        pair.ours.zero_grad()

    def public() -> None:
        pair.public(clip, "a")[0].square().sum().backward()
        pair.public.zero_grad()

    return {"ours": ours, "public": public}


def summary(samples: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(samples, n=4) if len(samples) > 1 else samples * 3
    numbers = {"best_s": min(samples), "median_s": middle, "p25_s": low, "p75_s": high}
    return {name: round(value, 4) for name, value in numbers.items()}


def timed(actions: dict[str, dict[str, Callable[[], object]]], rounds: int) -> list[dict[str, Any]]:
    """All actions by turns; rows of times, and of ratios of medians and of best times."""
    samples: dict[str, dict[str, list[float]]] = {kind: {who: [] for who in pair} for kind, pair in actions.items()}
    for number in range(rounds):
        for kind, pair in actions.items():
            for who in list(pair) if number % 2 else list(pair)[::-1]:
                samples[kind][who].append(seconds(pair[who]))
    found = {kind: {who: summary(taken) for who, taken in pair.items()} for kind, pair in samples.items()}
    rows: list[dict[str, Any]] = [
        {"name": f"{kind}, {who}", "n": rounds, **numbers}
        for kind, pair in found.items()
        for who, numbers in pair.items()
    ]

    def ratio(name: str, above: dict[str, float], below: dict[str, float]) -> dict[str, Any]:
        parts = {of.removesuffix("_s"): round(above[of] / below[of], 3) for of in ("median_s", "best_s")}
        return {"name": name, **parts}

    rows += [ratio(f"{kind}: ours / public", pair["ours"], pair["public"]) for kind, pair in found.items()]
    if "forward, off" in found:
        rows += [
            ratio(f"memory on / off: {who}", found["forward"][who], found["forward, off"][who])
            for who in ("ours", "public")
        ]
    return rows


def divided(action: Callable[[], object]) -> dict[str, float]:
    """Share of the CPU time by kind of operation."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        action()
    shares = dict.fromkeys([*SHARES, "others"], 0.0)
    for event in profile.key_averages():
        kind = next((kind for kind, parts in SHARES.items() if any(part in event.key for part in parts)), "others")
        shares[kind] += event.self_cpu_time_total
    total = sum(shares.values())
    return {kind: round(value / total, 3) for kind, value in shares.items()}


def boxes_state(crop: int, reach: int, gap: int) -> dict[str, Any]:
    """What is kept with the block over boxes."""
    pair = make_pair(crop, reach, gap, boxes=True)
    clip, boxes_R5 = torch.zeros(1, 3, 16, crop, crop), torch.tensor([[0.0, 1.0, 1.0, crop - 1.0, crop - 1.0]])
    state = pair.ours.init_state(1)
    with torch.no_grad():
        for _ in range(reach * gap + 1):
            _, state = pair.ours(clip, state, boxes_R5)
            pair.public(clip, "a", boxes_R5)
    sizes = {"ours": state.nbytes() / 1e6, "public": pair.public.bytes_kept() / 1e6}
    return {"name": "boxes_state_mb", **{who: round(size, 2) for who, size in sizes.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--code", type=Path, required=True, help="a checkout of facebookresearch/MeMViT")
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--reach", type=int, default=2)
    parser.add_argument("--gap", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--divided", action="store_true", help="also say where the time goes")
    parser.add_argument("--boxes", action="store_true", help="also what is kept with the block over boxes")
    parser.add_argument("--note", default="", help="what else the machine did")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    absent = import_public(given.code)
    warm = given.reach * given.gap + 1
    generator = torch.Generator().manual_seed(0)
    clips = [torch.randn(1, 3, 16, given.crop, given.crop, generator=generator) for _ in range(2 * warm)]
    pair = make_pair(given.crop, given.reach, given.gap)
    rows: list[dict[str, Any]] = [{"name": "largest differences", **check(pair, clips)}]
    off = make_pair(given.crop, 0, 1, pair.ours)
    actions = {
        "forward": forward_actions(pair, clips[0], warm),
        "forward, off": forward_actions(off, clips[0], 1),
        "train": train_actions(make_pair(given.crop, given.reach, given.gap, pair.ours), clips[0], warm),
    }
    rows += timed(actions, given.rounds)
    state = pair.ours.init_state(1)
    kept = {"ours": round(state.nbytes() / 1e6, 2), "public": round(pair.public.bytes_kept() / 1e6, 2)}
    rows.append({"name": "state_mb", **kept})
    rows += [boxes_state(given.crop, given.reach, given.gap)] if given.boxes else []
    if given.divided:
        for kind in ("forward", "train"):
            rows += [
                {"name": f"where a {kind} goes, {who}", **divided(actions[kind][who])} for who in ("ours", "public")
            ]
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    options = [f"--{name} {value}" for name, value in vars(given).items() if name not in ("code", "note") and value]
    options = [option.replace(" True", "") for option in options]
    result = {
        "what": f"MeMViT-16, 16 x {given.crop}^2, M = {given.reach}, G = {given.gap}, against facebookresearch/MeMViT",
        "command": f"python benchmarks/memvit_public.py --code MeMViT {' '.join(options)}",
        "commit": commit.stdout.strip(),
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} {platform.machine()} cores (load {load}), no GPU, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads. {given.note}".strip(),
        "stand_ins": absent,
        "rows": rows,
    }
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text)


if __name__ == "__main__":
    main()
