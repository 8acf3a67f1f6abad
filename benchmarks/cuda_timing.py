"""Time, memory and records of what runs on a CUDA device; without one the wall clock, to try a script."""

from __future__ import annotations

import datetime
import json
import os
import statistics
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor

Run = Callable[[], Any]
CUDNN = torch.backends.cudnn.version()
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def milliseconds(run: Run, rounds: int, least: float = 5.0) -> float:
    """Median over rounds by CUDA events, behind two calls to warm up; a round repeats short runs for `least` ms."""
    for _ in range(2):
        run()
    if DEVICE.type != "cuda":
        began = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - began)

    def once(repeats: int) -> float:
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            run()
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) / repeats

    repeats = max(1, int(least / max(once(1), 1e-3)))
    return statistics.median(once(repeats) for _ in range(rounds))


def device_milliseconds(run: Run, rounds: int) -> float:
    """As `milliseconds`, of the device alone: a captured CUDA graph is replayed, in which the host has no part.

    Raises: RuntimeError: what cannot be captured.
    """
    if DEVICE.type != "cuda":
        return milliseconds(run, rounds)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    repeats = max(1, min(10, int(2.0 / max(milliseconds(run, 1, least=0.0), 1e-3))))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(repeats):
            run()
    return milliseconds(graph.replay, rounds, least=1.0) / repeats


def peak_mb(run: Run) -> float:
    """Most that is allocated during a call beyond what was before; 0 without a CUDA device."""
    if DEVICE.type != "cuda":
        run()
        return 0.0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    began = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return round((torch.cuda.max_memory_allocated() - began) / 2**20, 1)


def copy_gb_per_second() -> float:
    """Bytes read and written by a copy of 512 MB, a second: the floor of whatever moves bytes."""
    source = torch.empty(2**29 if DEVICE.type == "cuda" else 2**20, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    return 2 * source.numel() / milliseconds(lambda: target.copy_(source), 5) / 1e6


def largest_error(ours: Any, theirs: Any) -> float:
    """Relative to each tensor's largest value."""
    errors = [
        ((one.double() - other.double()).abs().max() / other.double().abs().max().clamp(min=1e-30)).item()
        for one, other in zip(as_tuple(ours), as_tuple(theirs), strict=True)
    ]
    return max(errors)


def as_tuple(found: Any) -> tuple[Any, ...]:
    return (found,) if isinstance(found, Tensor) else tuple(found)


class Record:
    """A result file that is written anew after each part, so that a crash of one part loses no other."""

    def __init__(self, path: Path, what: str, command: str, note: str, kept: Path | None = None) -> None:
        """`kept`: an earlier result of the same device, whose parts stay where they are not measured anew."""
        cuda = DEVICE.type == "cuda"
        self.path = path
        earlier = json.loads(kept.read_text()) if kept else {"seconds": {}}
        self.content: dict[str, Any] = {
            "what": what,
            "command": command,
            "commit": commit(),
            "commits": earlier.get("commits", dict.fromkeys(earlier["seconds"], earlier.get("commit"))),
            "date": datetime.date.today().isoformat(),
            "machine": torch.cuda.get_device_name() if cuda else "no CUDA device: numbers mean nothing",
            "versions": f"torch {torch.__version__}, triton {triton.__version__}, cudnn {CUDNN}",
            "note": " ".join(filter(None, (earlier.get("note", ""), note))),
            "seconds": earlier["seconds"],
            "failed": {},
        }
        self.content |= {part: earlier[part] for part in earlier["seconds"] if part in earlier}
        if kept and earlier["machine"] != self.content["machine"]:
            raise ValueError(
                f"{kept} is of {earlier['machine']!r}, this machine is {self.content['machine']!r}: no common file"
            )

    @contextmanager
    def part(self, name: str) -> Iterator[list[dict[str, Any]]]:
        """Rows of a part; what it raises is printed and noted, and the script goes on."""
        rows: list[dict[str, Any]] = []
        self.content[name] = rows
        self.content["commits"][name] = self.content["commit"]
        began = time.perf_counter()
        try:
            yield rows
        except Exception as error:
            traceback.print_exc()
            self.content["failed"][name] = f"{type(error).__name__}: {error}"[:500]
        self.content["seconds"][name] = round(time.perf_counter() - began, 1)
        print(f"--- {name}: {self.content['seconds'][name]} s", flush=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.content, indent=1) + "\n")


def say(row: dict[str, Any]) -> None:
    print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)


def commit() -> str:
    """Of the environment variable WHOLEREEL_COMMIT, of Git, or `unknown`."""
    if given := os.environ.get("WHOLEREEL_COMMIT"):
        return given
    try:
        run = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return run.stdout.strip()
