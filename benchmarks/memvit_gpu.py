"""MeMViT-16 on a GPU: clips a second in training and inference, peak memory over M, routes of attention, waits.

Ours against the baseline of `memvit.py`, over the same weights, at equal batch: eager in float32 (TF32 products) and in
bfloat16, both as CUDA graphs, which need no host, then ours compiled. The baseline does not compare names of videos or
make index tables on the host, as the public code does in every layer and step: on a GPU it is quicker than that code.
Each part is written as it comes; on a CPU small sizes run for a trial.

    python benchmarks/memvit_gpu.py --out benchmarks/results/memvit_h100.json
    python benchmarks/memvit_gpu.py --device cpu --depth 3 --crop 64 --batch 1 --rounds 1
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from memvit import Baseline, make_model
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from wholereel.models.memvit import MeMViT
from wholereel.models.memvit_state import MemvitState
from wholereel.ops.attention import ATTENTION_ROUTES
from wholereel.ops.depthwise_conv3d import BEST

PRECISIONS = ("bf16", "fp32-tf32")
PARTS = (
    "throughput",
    "graphs_inference",
    "compiled_inference",
    "compiled_training",
    "graphs_training",
    "memory",
    "depthwise",
    "routes",
    "waits",
    "agreement",
)
FUSED = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


class Report:
    """The parts, in order of importance; each by itself, so that one that fails costs no other."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.device = given, torch.device(given.device)
        self.begin = time.perf_counter()
        self.found: dict[str, Any] = {"seconds": {}}
        self.baselines: dict[tuple[str, bool, int], float] = {}  # seconds of a step by precision, training, batch
        self.model = self.make(given.reach)
        self.found["seconds"]["model"] = round(time.perf_counter() - self.begin, 1)
        self.clip = self.clips(given.batch[0])

    def run(self) -> None:
        for name in self.given.parts:
            part = getattr(self, name)
            begin = time.perf_counter()
            if self.late():
                self.found[name] = f"left out: {self.given.seconds} seconds are over"
            else:
                try:
                    self.found[name] = part()
                except Exception:  # the other parts are wanted all the same
                    traceback.print_exc()
                    self.found[name] = f"failed: {traceback.format_exc(limit=-1)}"
                self.model.zero_grad()
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
            self.found["seconds"][name] = round(time.perf_counter() - begin, 1)
            write(self.given, self.found)

    def clips(self, batch: int) -> Tensor:
        own = torch.Generator(self.device).manual_seed(0)
        return torch.randn(batch, 3, 16, self.given.crop, self.given.crop, generator=own, device=self.device)

    def late(self) -> bool:
        return time.perf_counter() - self.begin > self.given.seconds

    def make(self, reach: int) -> MeMViT:
        with self.device:  # random numbers are quicker there
            return make_model(self.given.depth, self.given.crop, reach, self.given.gap)

    # ------------------------------------------------------------------------------------------------------- the steps

    def precision(self, name: str) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16) if name == "bf16" else nullcontext()

    def state(self, precision: str, *, pending: bool, model: MeMViT | None = None) -> MemvitState:
        """A memory that is full."""
        model = model or self.model
        state = model.init_state(len(self.clip), pending=pending)
        with torch.no_grad(), self.precision(precision):
            for _ in range(model.memory.reach * model.memory.gap + 1):
                _, state = model(self.clip, state)
        return state

    def ours(self, precision: str, training: bool, model: MeMViT | None = None) -> Callable[[], object]:
        one = model or self.model
        state = self.state(precision, pending=training, model=one)

        def infer() -> Tensor:
            with torch.no_grad(), self.precision(precision):
                return one(self.clip, state)[0]

        def train() -> None:
            with self.precision(precision):
                loss = one(self.clip, state)[0].float().square().sum()
            loss.backward()
            one.zero_grad()

        return train if training else infer

    def baseline(self, precision: str, training: bool) -> Callable[[], object]:
        baseline = Baseline(self.model)

        def infer() -> Tensor:
            with torch.no_grad(), self.precision(precision):
                return baseline.step(self.clip)

        def train() -> None:
            with self.precision(precision):
                loss = baseline.step(self.clip).float().square().sum()
            loss.backward()
            self.model.zero_grad()

        for _ in range(self.model.memory.reach * self.model.memory.gap + 1):
            infer()
        return train if training else infer

    def clock(self, action: Callable[[], object], repeats: int = 3) -> float:
        """Seconds of one call: the best of several rounds of some calls each."""
        action()
        best = float("inf")
        for _ in range(self.given.rounds):
            self.synchronize()
            begin = time.perf_counter()
            for _ in range(repeats):
                action()
            self.synchronize()
            best = min(best, (time.perf_counter() - begin) / repeats)
        return best

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak(self, action: Callable[[], object]) -> float:
        """MB above what was allocated before; 0 on a CPU."""
        if self.device.type != "cuda":
            action()
            return 0.0
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        action()
        torch.cuda.synchronize()
        return round((torch.cuda.max_memory_allocated() - before) / 1e6, 1)

    # ------------------------------------------------------------------------------------------------------- the parts

    def agreement(self) -> dict[str, Any]:
        """Of ours with the baseline, and of bfloat16 with float32 (without TF32)."""
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            ours = self.ours("fp32", False)()
            theirs = self.baseline("fp32", False)()
        torch.set_float32_matmul_precision(before)
        half = self.ours("bf16", False)()
        cosine = torch.nn.functional.cosine_similarity(half.float(), ours, dim=1)
        return {
            "largest_relative_error_of_ours": float((ours - theirs).abs().max() / theirs.std()),
            "bf16_cosine": [float(cosine.min()), "above 0.999"],
        }

    def waits(self) -> dict[str, Any]:
        """How often a step makes the host wait for the device."""
        found: dict[str, Any] = {}
        for name, make in (("ours", self.ours), ("baseline", self.baseline)):
            for training in (False, True):
                step = make("bf16", training)
                step()
                with counted_waits(self.device) as messages:
                    step()
                found[f"{name}, {'training' if training else 'inference'}"] = len(messages)
        return {**found, "asked": "0 of ours"}

    def routes(self) -> list[dict[str, Any]]:
        """Each way to add the bias, and each kernel for the folded one, in milliseconds of a batch."""
        rows = []
        ways = [(precision, route, None) for precision in PRECISIONS for route in ATTENTION_ROUTES]
        ways += [("bf16", "folded", kernel) for kernel in FUSED] + [("bf16", "masked", "efficient")]
        try:
            for precision, route, kernel in ways:
                if self.late():
                    break
                self.choose(route)
                row: dict[str, Any] = {"route": route, "kernel": kernel or "as chosen", "precision": precision}
                try:
                    with nullcontext() if kernel is None else sdpa_kernel(FUSED[kernel]):
                        for training in (False, True):
                            step = self.ours(precision, training)
                            key = "training_ms" if training else "inference_ms"
                            row[key] = round(1000 * self.clock(step, 2), 2)
                except RuntimeError as error:  # refused, or not enough memory
                    row["refused"] = str(error).splitlines()[0][:120]
                rows.append(row)
                print(row, flush=True)
        finally:
            self.choose("auto")
        return rows

    def choose(self, route: str) -> None:
        for block in self.model.blocks:
            block.attn.route = route  # type: ignore[union-attr]

    def throughput(self) -> list[dict[str, Any]]:
        """Clips a second of both, eager, by batch and precision."""
        rows = []
        for batch in self.given.batch:
            self.clip = self.clips(batch)
            for precision in PRECISIONS:
                for training in (False, True) if not self.late() else ():
                    ours, theirs = self.clock(self.ours(precision, training)), None
                    try:
                        theirs = self.clock(self.baseline(precision, training))
                    except torch.cuda.OutOfMemoryError:
                        self.model.zero_grad()
                        torch.cuda.empty_cache()
                    rows.append(self.row(precision, training, ours, theirs, "eager"))
        self.clip = self.clips(self.given.batch[0])
        return rows

    def graphs_inference(self) -> list[dict[str, Any]]:
        """Both captured as CUDA graphs, so that kernels are compared without the host; ours by route of attention."""
        rows: list[dict[str, Any]] = []
        try:
            for batch in self.given.batch:
                self.clip = self.clips(batch)
                for precision in PRECISIONS:
                    if self.late():
                        break
                    theirs = self.replayed(self.baseline(precision, False))
                    for route in ATTENTION_ROUTES:
                        self.choose(route)
                        ours = self.replayed(self.ours(precision, False))
                        rows.append(self.row(precision, False, ours, theirs, f"graph, {route}", both="graph"))
        finally:
            self.choose("auto")
            self.clip = self.clips(self.given.batch[0])
        return rows

    def graphs_training(self) -> list[dict[str, Any]]:
        """Forward and backward of both captured together, at the first batch size."""
        rows: list[dict[str, Any]] = []
        try:
            for precision in PRECISIONS:
                if self.late():
                    break
                theirs = self.replayed(self.baseline(precision, True))
                for route in ATTENTION_ROUTES:
                    self.choose(route)
                    ours = self.replayed(self.ours(precision, True))
                    rows.append(self.row(precision, True, ours, theirs, f"graph, {route}", both="graph"))
        finally:
            self.choose("auto")
        return rows

    def replayed(self, action: Callable[[], object]) -> float:
        """Seconds of one replay of what `action` asks of the device; on a CPU of the action itself.

        Replays see the state and the clip of the capture; what the action returns or leaves stays in the graph's pool.
        """
        if self.device.type != "cuda":
            return self.clock(action)
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(2):
                action()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            action()
        taken = self.clock(graph.replay)
        graph.reset()
        return taken

    def row(
        self, precision: str, training: bool, ours: float, theirs: float | None, how: str, both: str = "eager"
    ) -> dict[str, Any]:
        what, asked = ("training", "at least 3") if training else ("inference", "at least 4")
        key = (precision, training, len(self.clip))
        if theirs is not None and both == "eager":
            self.baselines[key] = theirs
        theirs = self.baselines.get(key) if theirs is None else theirs
        row: dict[str, Any] = {"what": what, "precision": precision, "ours": how, "batch": len(self.clip)}
        row["ours_clips_s"] = round(len(self.clip) / ours, 1)
        if theirs is not None:
            row["baseline"] = both
            row["baseline_clips_s"] = round(len(self.clip) / theirs, 1)
            row["ours_over_baseline"] = [round(theirs / ours, 2), asked]
        print(row, flush=True)
        return row

    def depthwise(self) -> list[dict[str, Any]]:
        """Ours with the other implementations of the pooling convolutions."""
        rows = []
        for name in ("split", "triton") if self.device.type == "cuda" else ("split",):
            with implementation(self.device, name):
                for precision in PRECISIONS if not self.late() else ():
                    for training in (False, True):
                        taken = self.clock(self.ours(precision, training))
                        rows.append(self.row(precision, training, taken, None, f"eager, {name} convolutions"))
        return rows

    def memory(self) -> list[dict[str, Any]]:
        """Peak and time of a step over M, with one video a batch."""
        rows, batch = [], self.clip
        self.clip = batch[:1]
        try:
            for reach in self.given.reaches:
                for compression in ("pipelined", "naive") if reach else ("pipelined",):
                    if self.late():
                        break
                    plain = self.make(max(reach, 1))
                    memory = replace(plain.memory, compression=compression)
                    if not reach:
                        memory = replace(memory, exclude=tuple(range(self.given.depth)))
                    with self.device:
                        model = MeMViT(plain.config, memory, num_classes=400).eval()
                    row: dict[str, Any] = {"M": reach, "compression": compression}
                    for training in (False, True):
                        step, name = self.ours("bf16", training, model), "training" if training else "inference"
                        row[f"{name}_ms"] = round(1000 * self.clock(step, 1), 2)
                        row[f"{name}_peak_mb"] = self.peak(step)
                    row["state_mb"] = round(model.init_state(1).nbytes() / 1e6, 2)
                    rows.append(row)
                    print(row, flush=True)
        finally:
            self.clip = batch
        return rows

    def compiled_inference(self) -> dict[str, Any]:
        return self.compiled(training=False)

    def compiled_training(self) -> dict[str, Any]:
        return self.compiled(training=True)

    def compiled(self, *, training: bool) -> dict[str, Any]:
        """Ours compiled, in bfloat16; seconds that the compiler took."""
        model = self.make(self.given.reach)
        state = self.state("bf16", pending=training, model=model)
        model.compile_stages()

        def step() -> None:
            with torch.set_grad_enabled(training), self.precision("bf16"):
                logits, _ = model(self.clip, state)
                loss = logits.float().square().sum()
            if training:
                loss.backward()
                model.zero_grad()

        key = ("bf16", training, len(self.clip))
        if key not in self.baselines:
            self.baselines[key] = self.clock(self.baseline("bf16", training))
        begin = time.perf_counter()
        step()
        self.synchronize()
        compiling = round(time.perf_counter() - begin, 1)
        return {**self.row("bf16", training, self.clock(step), None, "compiled"), "compile_s": compiling}


@contextmanager
def implementation(device: torch.device, name: str) -> Iterator[None]:
    """Of depthwise convolutions, for a while."""
    keys = [(device.type, dtype) for dtype in (torch.float32, torch.bfloat16)]
    before = {key: BEST[key] for key in keys if key in BEST}
    BEST.update(dict.fromkeys(keys, name))
    try:
        yield
    finally:
        for key in keys:
            BEST.pop(key)
        BEST.update(before)


@contextmanager
def counted_waits(device: torch.device) -> Iterator[list[str]]:
    """Messages of PyTorch about operations that wait for the device."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield messages
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
    messages += [str(one.message) for one in caught if "called a synchronizing" in str(one.message)]


def commit() -> str:
    """Of the code that ran; a copy without history is told by `WHOLEREEL_COMMIT`."""
    if "WHOLEREEL_COMMIT" in os.environ:
        return os.environ["WHOLEREEL_COMMIT"]
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"


def write(given: argparse.Namespace, found: dict[str, Any]) -> None:
    machine = torch.cuda.get_device_name() if given.device == "cuda" else f"{platform.machine()}, no GPU"
    result = {
        "what": f"MeMViT, {given.depth} blocks, 16 x {given.crop}^2, M = {given.reach}, G = {given.gap}, batch "
        f"{', '.join(map(str, given.batch))}",
        "command": "python " + " ".join(sys.argv),
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
        "machine": f"{machine}, torch {torch.__version__}",
        "cudnn_benchmark": given.cudnn_benchmark,
        **found,
    }
    text = json.dumps(result, indent=1) + "\n"
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text)
    print(text, end="", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--reach", type=int, default=2)
    parser.add_argument("--gap", type=int, default=1)
    parser.add_argument("--batch", type=int, nargs="+", default=[8], help="the first one is that of all other parts")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--reaches", type=int, nargs="+", default=[0, 1, 2, 4, 8, 16], metavar="M")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="in this order")
    parser.add_argument("--cudnn-benchmark", action="store_true", help="cuDNN tries its kernels, some seconds a shape")
    parser.add_argument("--seconds", type=float, default=70.0, help="no part begins later")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    flags = {"benchmark": given.cudnn_benchmark, "benchmark_limit": 4, "allow_tf32": True}
    torch.set_float32_matmul_precision("high")  # TF32, as trained with
    with torch.backends.cudnn.flags(enabled=True, **flags):
        Report(given).run()


if __name__ == "__main__":
    main()
