"""What a step of MeMViT costs with a bias tensor and stored lists, and with folded bias and fixed shapes: CPU-seconds.

The baseline is ours, written for this purpose over the same weights, with the operations of the public code
(facebookresearch/MeMViT, read, not copied) in its order and with its copies; it shares no operation of ours:

- q, k and v are pooled one by one; each time heads are folded into the batch, the map is permuted and made contiguous,
  and the class token is cut off and put back; the skip path likewise, by a max pool that in 13 of 16 blocks has size 1;
- scores are one tensor, (q * scale) k^T; for every remembered clip and for the present one it is rewritten once for
  space (two additions) and once for time (one), each time through a new tensor that is copied into its place;
- softmax, product with v, queries added in place behind the class token;
- keys and values of *all* layers are kept in lists, and *all* layers compress, also those that don't read them; the
  keys and values of remembered clips are projected again in each step.

Not in it, as it costs nothing on a processor: names of videos compared one by one, index tables made on the host.
First the outputs of both are compared step by step; then they take turns, and the median of several rounds counts.

- forward_s: process time of a step with full memory, without gradients (all threads)
- train_s: the same with gradients and backward
- state_mb: what is kept of one video between two steps, in inference
- curve: forward_s of ours with M remembered clips, over that without memory, and the state; --picture draws it

    python benchmarks/memvit.py --rounds 5 --curve 0 1 2 4 8 --out benchmarks/results/memvit_2core.json
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
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wholereel.layers.pooling_attention import PoolingAttention
from wholereel.layers.token_pooling import Grid
from wholereel.models.memvit import MeMViT, memvit_config
from wholereel.models.memvit_state import MemoryConfig
from wholereel.ops.attention import ATTENTION_ROUTES
from wholereel.ops.relative_positions import axis_rows, memory_time_rows, spatial_rows
from wholereel.report.charts import Mark, Series, line_chart

Entry = tuple[Tensor, Tensor]


class Baseline:
    """The same function of the same weights, without folded bias and without a state of fixed shape."""

    def __init__(self, model: MeMViT) -> None:
        self.model = model
        self.lists: list[list[Entry]] = [[] for _ in model.blocks]

    def clear(self) -> None:
        self.lists = [[] for _ in self.model.blocks]

    def bytes_kept(self) -> int:
        return sum(t.nbytes for entries in self.lists for entry in entries for t in entry)

    def step(self, clip_BCTHW: Tensor) -> Tensor:
        model = self.model
        x = model.patch_embed.proj(clip_BCTHW)
        grid: Grid = (x.shape[2], x.shape[3], x.shape[4])
        x = torch.cat([model.cls_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
        for index, block in enumerate(model.blocks):
            x, grid = self._block(index, block, x, grid)
        logits: Tensor = model.head.projection(model.norm(x)[:, 0])
        return logits

    def _block(self, index: int, block: Any, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        attention = block.attn
        normed = block.norm1(x)
        attended, query_grid = self._attention(index, attention, normed, grid)
        skip = x if block.proj is None else block.proj(normed)
        skip, _ = pooled(skip[:, None], grid, block.pool_skip or nn.MaxPool3d(1), None)
        x = skip[:, 0] + attended
        hidden = F.gelu(block.mlp.fc1(block.norm2(x)))
        return x + block.mlp.fc2(hidden), query_grid

    def _attention(self, index: int, attention: Any, normed: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        memory, heads = self.model.memory, attention.heads
        folded = normed.reshape(*normed.shape[:2], heads, -1).permute(0, 2, 1, 3)
        query, query_grid = pooled(folded, grid, attention.pool_q, attention.norm_q)
        key, key_grid = pooled(folded, grid, attention.pool_k, attention.norm_k)
        value, _ = pooled(folded, grid, attention.pool_v, attention.norm_v)
        query, key, value = (t.permute(0, 2, 1, 3).reshape(len(t), t.shape[2], -1) for t in (query, key, value))
        entries = self.lists[index]
        past, gap = len(entries), memory.gap
        chosen = [past - gap * i for i in range(past // gap, 0, -1)]
        if past:
            last = entries[-1]
            entries[-1] = (
                pooled(last[0][:, None], key_grid, attention.compress_k, attention.norm_compress_k)[0][:, 0],
                pooled(last[1][:, None], key_grid, attention.compress_v, attention.norm_compress_v)[0][:, 0],
            )
        used = [] if index in memory.exclude else [entries[i] for i in chosen]
        keys = torch.cat([*(entry[0] for entry in used), key], 1)
        values = torch.cat([*(entry[1] for entry in used), value], 1)
        if past:
            entries[-1] = (entries[-1][0].detach(), entries[-1][1].detach())
        entries.append((key.detach(), value.detach()))
        self.lists[index] = entries[-memory.reach * gap :]
        return explicit(attention, query, keys, values, query_grid, key_grid, len(used)), query_grid


def pooled(x_BALD: Tensor, grid: Grid, pool: nn.Module, norm: nn.Module | None) -> tuple[Tensor, Grid]:
    """The class token cut off and put back, heads in the batch axis, every layout made contiguous."""
    batch, heads, _, width = x_BALD.shape
    first, rest = x_BALD[:, :, :1], x_BALD[:, :, 1:]
    maps = rest.reshape(batch * heads, *grid, width).permute(0, 4, 1, 2, 3).contiguous()
    maps = pool(maps)
    size: Grid = (maps.shape[2], maps.shape[3], maps.shape[4])
    tokens = torch.cat([first, maps.reshape(batch, heads, width, -1).transpose(2, 3)], 2)
    return (tokens if norm is None else norm(tokens)), size


def explicit(
    attention: PoolingAttention, query: Tensor, key: Tensor, value: Tensor, grid: Grid, key_grid: Grid, steps: int
) -> Tensor:
    """The score tensor, rewritten once for space and once for time, for every remembered clip and the present one."""
    parts = (attention.q(query), attention.k(key), attention.v(value))
    q, k, v = (part.reshape(*part.shape[:2], attention.heads, -1).permute(0, 2, 1, 3) for part in parts)
    scores = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)
    tokens = q[:, :, 1:].reshape(*q.shape[:2], *grid, q.shape[3])
    memory = attention.compressed_grid(key_grid)
    hw = (grid[1], grid[2])
    spans, start = [], 0
    for size in [memory] * steps + [key_grid]:
        stop = start + 1 + size[0] * size[1] * size[2]
        spans.append((start + 1, stop, size))
        start = stop

    def add(span: tuple[int, int, Grid], *biases: Tensor) -> None:
        start, stop, size = span
        changed = scores[:, :, 1:, start:stop].reshape(*scores.shape[:2], *grid, *size)
        for bias in biases:  # one after the other, each a new tensor of the size of the scores
            changed = changed + bias
        scores[:, :, 1:, start:stop] = changed.reshape(*scores.shape[:2], -1, stop - start)

    def spatial(rows: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        high = torch.einsum("bathwd,hkd->bathwk", tokens, rows[0])
        wide = torch.einsum("bathwd,wkd->bathwk", tokens, rows[1])
        return high[..., None, :, None], wide[..., None, None, :]

    if steps:
        rows = spatial_rows(attention.rel_pos_mem_h, attention.rel_pos_mem_w, hw, (memory[1], memory[2]), "square")
        biases = spatial(rows)
        for span in spans[:-1]:
            add(span, *biases)
    rows = spatial_rows(attention.rel_pos_h, attention.rel_pos_w, hw, (key_grid[1], key_grid[2]), "square")
    add(spans[-1], *spatial(rows))
    if steps and attention.compression and attention.compression.stride:
        stride = attention.compression.stride[0]
        rows_t = memory_time_rows(attention.rel_pos_mem_t, grid[0], steps * memory[0], stride)
        times = torch.einsum("bathwd,tkd->bathwk", tokens, rows_t)
        for span, bias in zip(spans[:-1], times.chunk(steps, 5), strict=True):
            add(span, bias[..., None, None])
    times = torch.einsum("bathwd,tkd->bathwk", tokens, axis_rows(attention.rel_pos_t, grid[0], key_grid[0]))
    add(spans[-1], times[..., None, None])
    result = scores.softmax(3) @ v
    result[:, :, 1:] += q[:, :, 1:]
    projected: Tensor = attention.proj(result.transpose(1, 2).reshape(len(q), q.shape[2], -1))
    return projected


def make_model(depth: int, crop: int, reach: int, gap: int) -> MeMViT:
    """MeMViT-16, or its first blocks on smaller clips for a trial."""
    torch.manual_seed(0)
    config = replace(memvit_config("16x4"), crop=crop, depth=depth)
    config = replace(config, widen=config.widen if depth > 14 else config.widen[:2], q_strides=config.q_strides[:depth])
    memory = MemoryConfig(reach=reach, gap=gap, exclude=tuple(range(1, depth, 2)))
    model = MeMViT(config, memory, num_classes=400).eval()
    for name, parameter in model.named_parameters():
        if "rel_pos" in name:
            nn.init.normal_(parameter, std=0.2)
    return model


def seconds(action: Callable[[], object]) -> float:
    before = time.process_time()
    action()
    return time.process_time() - before


def summary(samples: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(samples, n=4) if len(samples) > 1 else samples * 3
    return {"median_s": round(middle, 4), "p25_s": round(low, 4), "p75_s": round(high, 4)}


def compare(model: MeMViT, clip: Tensor, rounds: int) -> list[dict[str, Any]]:
    baseline = Baseline(model)
    steps = model.memory.reach * model.memory.gap + 2
    clips = [torch.roll(clip, step, 3) for step in range(steps)]
    state, error = model.init_state(len(clip)), 0.0
    with torch.no_grad():
        for one in clips:
            expected = baseline.step(one)
            ours, state = model(one, state)
            error = max(error, float((ours - expected).abs().max() / expected.std()))
    if error > 1e-3:
        raise SystemExit(f"the two disagree by {error:.1e}")
    kept = baseline.bytes_kept()
    training = model.init_state(len(clip), pending=True)
    with torch.no_grad():
        for one in clips[:-1]:
            _, training = model(one, training)

    def ours_forward() -> None:
        with torch.no_grad():
            model(clip, state)

    def baseline_forward() -> None:
        with torch.no_grad():
            baseline.step(clip)

    def ours_train() -> None:
        model(clip, training)[0].square().sum().backward()
        model.zero_grad()

    def baseline_train() -> None:
        baseline.step(clip).square().sum().backward()
        model.zero_grad()

    actions = {"ours": (ours_forward, ours_train), "baseline": (baseline_forward, baseline_train)}
    samples: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in actions}
    for _ in range(rounds):
        for name, pair in actions.items():
            for action, taken in zip(pair, samples[name], strict=True):
                taken.append(seconds(action))
    rows = []
    for name, (forward, train) in samples.items():
        size = state.nbytes() if name == "ours" else kept
        rows.append(
            {
                "name": name,
                "n": rounds,
                "forward": summary(forward),
                "train": summary(train),
                "state_mb": round(size / 1e6, 2),
                "largest_relative_error": error,
            }
        )
    for kind in ("forward", "train"):
        ratio = rows[0][kind]["median_s"] / rows[1][kind]["median_s"]
        rows.append({"name": f"{kind}: ours / baseline", "ratio": round(ratio, 3)})
    return rows


def curve(depth: int, crop: int, gap: int, reaches: list[int], clip: Tensor, rounds: int) -> list[dict[str, Any]]:
    """Forward time against the number of remembered clips; 0 = no layer remembers."""
    models = {}
    for reach in reaches:
        model = make_model(depth, crop, max(reach, 1), gap)
        if not reach:
            nothing = replace(model.memory, exclude=tuple(range(depth)))
            model = MeMViT(model.config, nothing, num_classes=400).eval()
        state = model.init_state(len(clip))
        with torch.no_grad():
            for _ in range(max(reach, 1) * gap + 1):
                _, state = model(clip, state)
        models[reach] = (model, state)
    samples: dict[int, list[float]] = {reach: [] for reach in reaches}
    with torch.no_grad():
        for _ in range(rounds):
            for reach, (model, state) in models.items():
                samples[reach].append(seconds(lambda model=model, state=state: model(clip, state)))
    rows: list[dict[str, Any]] = []
    for reach, taken in samples.items():
        rows.append({"name": f"M = {reach}", "n": rounds, **summary(taken)})
        rows[-1]["state_mb"] = round(models[reach][1].nbytes() / 1e6, 2)
        if 0 in samples:
            rows[-1]["over_none"] = round(statistics.median(taken) / statistics.median(samples[0]), 3)
    return rows


def routes(model: MeMViT, clip: Tensor, rounds: int) -> list[dict[str, Any]]:
    """Forward and training step of ours with each way to add the bias."""
    states = [model.init_state(len(clip), pending=pending) for pending in (False, True)]
    samples: dict[str, tuple[list[float], list[float]]] = {route: ([], []) for route in ATTENTION_ROUTES}

    def forward() -> None:
        with torch.no_grad():
            model(clip, states[0])

    def train() -> None:
        model(clip, states[1])[0].square().sum().backward()
        model.zero_grad()

    for round_number in range(rounds + 1):  # the first one warms up
        for route, taken in samples.items():
            for block in model.blocks:
                block.attn.route = route  # type: ignore[union-attr]
            for action, times in zip((forward, train), taken, strict=True):
                needed = seconds(action)
                times += [needed] if round_number else []
    return [
        {"name": f"route {route}", "n": rounds, "forward": summary(taken[0]), "train": summary(taken[1])}
        for route, taken in samples.items()
    ]


def picture(result: dict[str, Any]) -> str:
    """Time of a clip against remembered clips, as SVG text."""
    rows = [row for row in result["rows"] if row["name"].startswith("M = ")]
    reaches = [float(row["name"].removeprefix("M = ")) for row in rows]
    none = rows[0]["median_s"]
    series = Series(
        "forward, seconds over that without memory",
        reaches,
        [row["median_s"] / none for row in rows],
        [row["p25_s"] / none for row in rows],
        [row["p75_s"] / none for row in rows],
    )
    top = max(1.2, *series.high)
    return line_chart(
        [series],
        title="MeMViT-16: a clip's time against remembered clips",
        x_label="remembered clips M",
        y_label="time, without memory = 1",
        marks=[Mark("without memory", 1.0)],
        y_range=(0.0, top),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--reach", type=int, default=2)
    parser.add_argument("--gap", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--curve", type=int, nargs="*", default=[], metavar="M")
    parser.add_argument("--routes", action="store_true", help="also time every way to add the bias")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path, help="SVG of the curve")
    parser.add_argument("--drawn-from", type=Path, help="a result file: draw it and measure nothing")
    given = parser.parse_args()
    if given.drawn_from is not None:
        given.picture.write_text(picture(json.loads(given.drawn_from.read_text())) + "\n")
        return
    clip = torch.randn(1, 3, 16, given.crop, given.crop, generator=torch.Generator().manual_seed(0))
    rows = compare(make_model(given.depth, given.crop, given.reach, given.gap), clip, given.rounds)
    if given.curve:
        rows += curve(given.depth, given.crop, given.gap, given.curve, clip, given.rounds)
    if given.routes:
        rows += routes(make_model(given.depth, given.crop, given.reach, given.gap), clip, given.rounds)
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    result = {
        "what": f"MeMViT, {given.depth} blocks, 16 x {given.crop}^2, M = {given.reach}, G = {given.gap}: CPU-seconds",
        "command": "python benchmarks/memvit.py "
        + " ".join(f"--{k} {' '.join(map(str, v)) if isinstance(v, list) else v}" for k, v in vars(given).items() if v),
        "commit": commit.stdout.strip(),
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} {platform.machine()} cores (load {load}, other jobs included), no GPU, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads",
        "rows": rows,
    }
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text)
    if given.picture is not None:
        given.picture.write_text(picture(result) + "\n")


if __name__ == "__main__":
    main()
