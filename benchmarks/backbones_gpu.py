"""Backbones and their operators on a CUDA device: kernels against PyTorch's, train steps, memory.

    python benchmarks/backbones_gpu.py                        # everything, a few minutes
    python benchmarks/backbones_gpu.py --only depthwise csn   # some parts
    python benchmarks/backbones_gpu.py --small                # tiny shapes, to try the script, also without a device

Parts: `depthwise` (forward and both gradients, against PyTorch's in both memory formats), `correlation` (against the
streaming form, and memory against the unfolded one), `csn` (train step with the kernels and with PyTorch's
convolutions, both on channels-last memory), `csn_contiguous` (PyTorch's on contiguous memory, where it is quicker),
`profile` (where the device's time goes in a step of ir-CSN-50), `throughput` (bf16 train steps on channels-last
memory), `checkpointing` (memory and time of a step with and without),
`non_local` (attention of 16x8 networks at 256 pixels: fused, and written out).

Outputs and gradients are compared before anything is timed: the correlation in bf16 with the streaming form in float32
on the same rounded inputs. CUDA events, median of rounds behind two calls to warm up. Times of `depthwise` are given
twice: of calls from Python (`_ms`), and of the device alone, a replayed CUDA graph (`_device_ms`). `--keep FILE` takes
the parts that are not run from an earlier result of the same device; `commits` says which code each part measured.
cuDNN picks its algorithms as PyTorch sets it (no benchmark mode) unless `--cudnn-benchmark`; TF32 as PyTorch sets it.
A train step is forward under bf16 autocast, backward and SGD with momentum.
Operators and networks on a CPU: `backbones.py`. Tiles: `triton_tiles.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

from cuda_timing import (
    DEVICE,
    Record,
    as_tuple,
    copy_gb_per_second,
    device_milliseconds,
    largest_error,
    milliseconds,
    peak_mb,
    say,
)

from wholereel.layers.non_local import attend
from wholereel.models import create_model
from wholereel.ops.correlation import correlate
from wholereel.ops.depthwise_conv3d import depthwise_conv3d

Rows = list[dict[str, Any]]
LAST = torch.channels_last_3d
# Shape, stride of ir-CSN-50 on 8 clips of 32 x 224 x 224: inside res2 to res5, and where res3 to res5 begin.
DEPTHWISE = [
    ((8, 64, 32, 56, 56), (1, 1, 1)),
    ((8, 128, 16, 28, 28), (1, 1, 1)),
    ((8, 256, 8, 14, 14), (1, 1, 1)),
    ((8, 512, 4, 7, 7), (1, 1, 1)),
    ((8, 128, 32, 56, 56), (2, 2, 2)),
    ((8, 256, 16, 28, 28), (2, 2, 2)),
    ((8, 512, 8, 14, 14), (2, 2, 2)),
]
# Shape, groups of CorrNet: res2, res3, res4.
CORRELATION = [((8, 64, 32, 56, 56), 2), ((8, 128, 32, 28, 28), 4), ((8, 256, 32, 14, 14), 8)]
THROUGHPUT = (
    "r2plus1d_18",
    "r2plus1d_34",
    "r2plus1d_50",
    "slowfast_8x8_50",
    "i3d_50",
    "ip_csn_50",
    "ir_csn_50",
    "corrnet_26",
    "r2plus1d_ptv_26",
)


def kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def require(ours: Any, theirs: Any, tolerance: float, what: str) -> float:
    error = largest_error(ours, theirs)
    if not error <= tolerance:
        raise ValueError(f"{what}: differs by {error:.1e} of the largest value, more than {tolerance:.0e}")
    return error


def depthwise(rows: Rows, rounds: int, small: bool) -> None:
    for dtype, tolerance in ((torch.bfloat16, 2e-2), (torch.float32, 1e-4)):
        for shape, stride in [((2, 6, 3, 4, 5), (1, 1, 1)), ((1, 6, 4, 4, 4), (2, 2, 2))] if small else DEPTHWISE:
            row = {"shape": shape, "stride": stride, "dtype": kind(dtype)}
            try:
                row |= depthwise_row(shape, stride, dtype, tolerance, rounds)
            except (ValueError, RuntimeError) as error:
                row["failed"] = str(error)[:300]
            rows.append(row)
            say(row)


def depthwise_row(shape: Any, stride: Any, dtype: torch.dtype, tolerance: float, rounds: int) -> dict[str, Any]:
    torch.manual_seed(0)
    last = torch.randn(shape, device=DEVICE, dtype=dtype).to(memory_format=LAST).requires_grad_()
    first = last.detach().contiguous().requires_grad_()
    w = torch.randn(shape[1], 1, 3, 3, 3, device=DEVICE, dtype=dtype).requires_grad_()

    def forward(name: Any, x: Tensor) -> Tensor:
        return depthwise_conv3d(x, w, stride, (1, 1, 1), name)

    error = torch.randn_like(forward("native", last))
    runs = {"triton": ("triton", last), "stock": ("native", first), "stock_last": ("native", last)}

    def step(name: Any, x: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(forward(name, x), (x, w), error)

    ours, theirs = ((forward(*run), *step(*run)) for run in (runs["triton"], runs["stock"]))
    off = require(ours, theirs, tolerance, f"depthwise {shape} {stride} {kind(dtype)}")
    found: dict[str, Any] = {"error": f"{off:.1e}"}
    with torch.no_grad():
        for name, run in runs.items():
            found[f"{name}_forward_ms"] = round(milliseconds(lambda run=run: forward(*run), rounds), 4)
    for name, run in runs.items():
        found[f"{name}_ms"] = round(milliseconds(lambda run=run: step(*run), rounds), 4)
    for name, run in runs.items():
        if found[f"{name}_ms"] > 4 * found["stock_ms"]:
            continue  # not the better one of stock's, whoever is timed
        try:
            found[f"{name}_device_ms"] = round(device_milliseconds(lambda run=run: step(*run), rounds), 4)
        except RuntimeError as error:
            found[f"{name}_device_failed"] = str(error)[:200]
    for kind_of_time, speedup in (("_device_ms", "device_speedup"), ("_ms", "speedup")):
        stock = [found[f"{name}{kind_of_time}"] for name in ("stock", "stock_last") if f"{name}{kind_of_time}" in found]
        if stock and f"triton{kind_of_time}" in found:
            found[speedup] = round(min(stock) / found[f"triton{kind_of_time}"], 2)
    return found | {"asked_of_device": 3.0}


def correlation(rows: Rows, rounds: int, small: bool) -> None:
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 1e-2)):
        for shape, groups in [((2, 4, 2, 5, 4), 2)] if small else CORRELATION:
            torch.manual_seed(0)
            x = torch.randn(shape, device=DEVICE, dtype=dtype).requires_grad_()
            w = torch.rand(shape[2], shape[1], 7, 7, device=DEVICE, dtype=dtype).requires_grad_()

            def forward(name: Any, x: Tensor = x, w: Tensor = w, groups: int = groups) -> Tensor:
                return correlate(x, w, dilation=2, groups=groups, implementation=name)

            def step(name: Any, x: Tensor = x, w: Tensor = w, forward: Any = forward) -> tuple[Tensor, ...]:
                y = forward(name, x, w)
                return torch.autograd.grad(y, (x, w), torch.ones_like(y))

            row: dict[str, Any] = {"shape": shape, "groups": groups, "dtype": kind(dtype)}
            try:
                exact = x.detach().float().requires_grad_(), w.detach().float().requires_grad_()
                expected = forward("streaming", *exact).detach(), *step("streaming", *exact)
                off = require((forward("triton").detach(), *step("triton")), expected, tolerance, "correlation")
                row["error"] = f"{off:.1e}"
                del exact, expected
            except ValueError as failed:
                row["differs"] = str(failed)
            for name in ("triton", "streaming"):
                with torch.no_grad():
                    row[f"{name}_forward_ms"] = round(milliseconds(lambda: forward(name), rounds), 3)  # noqa: B023
                row[f"{name}_ms"] = round(milliseconds(lambda: step(name), rounds), 3)  # noqa: B023
                row[f"{name}_mb"] = peak_mb(lambda: step(name))  # noqa: B023
            row |= {"speedup": round(row["streaming_ms"] / row["triton_ms"], 2), "asked": 5.0}
            row |= unfolded(step, x, w)
            rows.append(row)
            say(row)


def unfolded(step: Callable[..., Any], x: Tensor, w: Tensor) -> dict[str, Any]:
    """Peak memory of the unfolded form against the kernels', on as many of the clips as fit."""
    for clips in (len(x), max(len(x) // 4, 1), 1):
        part = x.detach()[:clips].requires_grad_()
        try:
            plain = peak_mb(lambda: step("plain", part, w))  # noqa: B023
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            continue
        ours = peak_mb(lambda: step("triton", part, w))  # noqa: B023
        found = {"unfold_clips": clips, "unfold_mb": plain, "triton_mb_of_these": ours}
        return found | {"less_memory": round(plain / ours, 1) if ours else None, "asked_less": 5.0}
    return {"unfold_mb": "does not fit"}


def stepper(model: nn.Module, clip: Tensor) -> Callable[[], Tensor]:
    optimiser = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9)
    label = torch.zeros(len(clip), dtype=torch.long, device=DEVICE)

    def step() -> Tensor:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE.type, torch.bfloat16):
            logits = model(clip)
        loss = F.cross_entropy(logits.float(), label)
        loss.backward()
        optimiser.step()
        return loss.detach()

    return step


def build(name: str, small: bool, memory: torch.memory_format = LAST, **options: Any) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    if name.startswith("corrnet") and small:
        options["frames"] = 4
    model = create_model(name, dropout=0.0, **options)
    info = model.info
    shape = (2, 3, 4, 32, 32) if small else (8, 3, info.frames, info.crop, info.crop)
    model.to(DEVICE, memory_format=memory).train()
    return model, torch.randn(shape, device=DEVICE).to(memory_format=memory)


def measured(step: Callable[[], Tensor], clips: int, rounds: int) -> dict[str, Any]:
    for _ in range(2):
        loss = step()
    if not loss.isfinite():
        raise ValueError(f"the loss is {loss.item()}")
    peak = peak_mb(step)
    time = milliseconds(step, rounds, least=0.0)
    return {"step_ms": round(time, 2), "clips_per_second": round(1e3 * clips / time, 1), "peak_mb": peak}


def csn(rows: Rows, rounds: int, small: bool) -> None:
    csn_rows(rows, rounds, small, LAST)


def csn_contiguous(rows: Rows, rounds: int, small: bool) -> None:
    csn_rows(rows, rounds, small, torch.contiguous_format)


def csn_rows(rows: Rows, rounds: int, small: bool, of_stock: torch.memory_format) -> None:
    for name in ("ir_csn_50", "ip_csn_50"):
        found: dict[str, dict[str, Any]] = {}
        losses = {}
        for implementation in ("auto", "native"):
            memory = LAST if implementation == "auto" else of_stock
            model, clip = build(name, small, memory, implementation=implementation)
            with torch.no_grad(), torch.autocast(DEVICE.type, torch.bfloat16):
                losses[implementation] = model(clip).float()
            found[implementation] = measured(stepper(model, clip), len(clip), rounds)
            del model
        row = {"name": name, "clip": tuple(clip.shape), "ours": found["auto"], "stock": found["native"]}
        row["logits_differ"] = f"{largest_error(losses['auto'], losses['native']):.1e}"
        row["speedup"] = round(found["native"]["step_ms"] / found["auto"]["step_ms"], 2)
        row["asked"] = 2.0
        rows.append(row)
        say(row)


def profile(rows: Rows, rounds: int, small: bool) -> None:
    """Where the device's time goes in a step of ir-CSN-50: kernels by their sum."""
    model, clip = build("ir_csn_50", small)
    step = stepper(model, clip)
    for _ in range(2):
        step()
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CUDA if DEVICE.type == "cuda" else activity.CPU]) as found:
        step()
    time_of = "self_device_time_total" if DEVICE.type == "cuda" else "self_cpu_time_total"
    events = sorted(found.key_averages(), key=lambda event: -getattr(event, time_of))
    total = sum(getattr(event, time_of) for event in events)
    kernels = [
        {
            "kernel": event.key[:60],
            "ms": round(getattr(event, time_of) / 1e3, 3),
            "percent": round(100 * getattr(event, time_of) / total, 2),
        }
        for event in events[:22]
    ]
    row = {"name": "ir_csn_50", "clip": tuple(clip.shape), "device_ms": round(total / 1e3, 3), "kernels": kernels}
    rows.append(row)
    say(row)


def throughput(rows: Rows, rounds: int, small: bool) -> None:
    for name in THROUGHPUT:
        try:
            model, clip = build(name, small)
            row = {"name": name, "clip": tuple(clip.shape), **measured(stepper(model, clip), len(clip), rounds)}
        except (ValueError, RuntimeError) as error:
            row = {"name": name, "failed": str(error)[:300]}
        rows.append(row)
        say(row)
        model = clip = None
        if DEVICE.type == "cuda":
            torch.cuda.empty_cache()


def checkpointing(rows: Rows, rounds: int, small: bool) -> None:
    for name in ("slowfast_8x8_50",) if small else ("slowfast_8x8_50", "ir_csn_50"):
        for checkpointed in (False, True):
            model, clip = build(name, small, checkpointed=checkpointed)
            row = {"name": name, "checkpointed": checkpointed, "clip": tuple(clip.shape)}
            rows.append(row | measured(stepper(model, clip), len(clip), rounds))
            say(rows[-1])


def non_local(rows: Rows, rounds: int, small: bool) -> None:
    """Positions of res3 and res4 of 16 frames of 256 pixels; the read side is pooled (1, 2, 2)."""

    def naive(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return torch.softmax(query @ key.transpose(1, 2) * query.shape[2] ** -0.5, 2) @ value

    sizes = [("tiny", 8, 4, 4)] if small else [("res3", 16384, 4096, 256), ("res4", 4096, 1024, 512)]
    for name, positions, read, width in sizes:
        torch.manual_seed(0)
        inputs = [
            torch.randn(8, count, width, device=DEVICE, dtype=torch.bfloat16).requires_grad_()
            for count in (positions, read, read)
        ]

        def step(run: Any, inputs: Any = inputs) -> tuple[Tensor, ...]:
            y = run(*inputs)
            return y, *torch.autograd.grad(y, inputs, torch.ones_like(y))

        runs = {"fused": lambda q, k, v: attend(q, k, v, "softmax"), "naive": naive}
        row: dict[str, Any] = {"name": name, "positions": positions, "read": read, "width": width}
        row["error"] = f"{require(as_tuple(runs['fused'](*inputs)), as_tuple(naive(*inputs)), 2e-2, name):.1e}"
        for way, run in runs.items():
            row[f"{way}_ms"] = round(milliseconds(lambda: step(run), rounds), 3)  # noqa: B023
            row[f"{way}_mb"] = peak_mb(lambda: step(run))  # noqa: B023
        row["speedup"] = round(row["naive_ms"] / row["fused_ms"], 2)
        rows.append(row)
        say(row)


PARTS: dict[str, Callable[[Rows, int, bool], None]] = {
    "depthwise": depthwise,
    "correlation": correlation,
    "csn": csn,
    "csn_contiguous": csn_contiguous,
    "profile": profile,
    "throughput": throughput,
    "checkpointing": checkpointing,
    "non_local": non_local,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), default=tuple(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="tiny shapes, to try the script")
    parser.add_argument("--cudnn-benchmark", action="store_true", help="let cuDNN try its algorithms")
    parser.add_argument("--note", default="")
    parser.add_argument("--keep", type=Path, help="earlier result, of which the parts that are not run are kept")
    parser.add_argument("--result", type=Path, default=Path(__file__).parent / "results" / "backbones_gpu.json")
    given = parser.parse_args()
    if DEVICE.type != "cuda" and not given.small:
        parser.error("there is no CUDA device; --small tries the script without one")
    torch.backends.cudnn.benchmark = given.cudnn_benchmark
    words = "python benchmarks/backbones_gpu.py " + " ".join(sys.argv[1:])
    record = Record(given.result, "backbones on a CUDA device", words, given.note, given.keep)
    record.content["copy_gb_per_second"] = round(copy_gb_per_second(), 1)
    record.content["cudnn_benchmark"] = given.cudnn_benchmark
    print(record.content["machine"], record.content["versions"], f"copy {record.content['copy_gb_per_second']} GB/s")
    for name in given.only:
        with record.part(name) as rows:
            PARTS[name](rows, given.rounds, given.small)
    if record.content["failed"]:
        sys.exit(f"failed: {', '.join(record.content['failed'])}")


if __name__ == "__main__":
    main()
