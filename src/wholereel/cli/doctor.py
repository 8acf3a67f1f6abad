"""`wholereel doctor`: what this machine has, what is missing, and what to do about it.

Each check is a function that yields findings; a check that breaks is itself a finding, so that the list always ends.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wholereel import __version__

__all__ = ["CHECKS", "Finding", "doctor"]

Level = Literal["ok", "note", "FAIL"]

CORE = ("torch", "torchvision", "numpy", "av", "safetensors", "pyyaml", "tyro")
EXTRAS = {"plots": "matplotlib", "tensorboard": "tensorboard", "parquet": "pyarrow", "hub": "huggingface_hub"}
GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One line of the report; `advice` says what to do where the level is not "ok"."""

    level: Level
    name: str
    detail: str
    advice: str = ""


def doctor() -> int:
    """What this machine has, what is missing, what to do. Exit code 1 where something does not work."""
    failed = 0
    for name, check in CHECKS.items():
        for finding in _findings(name, check):
            print(f"{finding.level:<4}  {finding.name:<18}{finding.detail}")
            if finding.advice:
                print(f"{'':<24}-> {finding.advice}")
            failed += finding.level == "FAIL"
    print(f"\n{failed} problems" if failed else "\nEverything that was tried works.")
    return 1 if failed else 0


def _findings(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # whatever is wrong with this machine is what the report is about
        yield Finding("FAIL", name, f"{type(error).__name__}: {error}", "make setup")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions() -> Iterator[Finding]:
    yield Finding("ok", "wholereel", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    for package in CORE:
        version = _version(package)
        if version is None:
            yield Finding("FAIL", package, "not installed", "pip install wholereel")
        else:
            yield Finding("ok", package, version)


def _extras() -> Iterator[Finding]:
    for extra, package in EXTRAS.items():
        version = _version(package)
        advice = "" if version else f"only if you need it: pip install 'wholereel[{extra}]'"
        yield Finding("ok" if version else "note", f"extra {extra}", version or f"{package} not installed", advice)


def _processor() -> Iterator[Finding]:
    import torch

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    threads = torch.get_num_threads()
    yield Finding("ok", "processor", f"{usable} usable cores, {memory:.0f} GiB memory")
    if threads > usable:
        yield Finding("note", "threads", f"torch uses {threads} for {usable} cores", f"export OMP_NUM_THREADS={usable}")
    else:
        yield Finding("ok", "threads", f"torch uses {threads}")


def _accelerators() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        why = "this torch is built without CUDA" if torch.version.cuda is None else "no usable NVIDIA GPU or driver"
        yield Finding("note", "GPU", why, "everything runs on the CPU, slower; see `nvidia-smi` if there should be one")
        return
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        yield Finding("ok", f"GPU {index}", f"{device.name}, {device.total_memory / GIB:.0f} GiB")
    total = float((torch.ones(8, 8, device="cuda") @ torch.ones(8, 8, device="cuda")).sum())
    if total != 512.0:
        yield Finding("FAIL", "GPU", f"a product of matrices gave {total}, not 512", "check the driver's version")


def _torchvision() -> Iterator[Finding]:
    """Whether torch and torchvision fit each other: a mismatch imports but has no operators."""
    import torch
    import torchvision.ops

    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [5.0, 5.0, 6.0, 6.0]])
    kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist()
    if kept != [0, 2]:
        advice = "pip install --force-reinstall torch torchvision (in one command, from one index)"
        yield Finding("FAIL", "torchvision ops", f"answer wrongly ({kept})", advice)
    else:
        yield Finding("ok", "torchvision ops", "fit the installed torch")


def _codecs() -> Iterator[Finding]:
    import av

    libraries = ", ".join(
        f"{name} {'.'.join(map(str, version))}" for name, version in sorted(av.library_versions.items())
    )
    yield Finding("ok", "FFmpeg inside av", libraries)
    missing = [name for name in ("h264", "hevc", "vp9", "av1", "mpeg4") if not _has_codec(name, "r")]
    if missing:
        yield Finding("note", "decoders", f"missing: {', '.join(missing)}", "pip install --upgrade av")
    else:
        yield Finding("ok", "decoders", "h264, hevc, vp9, av1, mpeg4")
    if not _has_codec("libx264", "w"):
        yield Finding("FAIL", "encoders", "no libx264, needed for generated data", "pip install --upgrade av")


def _has_codec(name: str, mode: Literal["r", "w"]) -> bool:
    from av.codec import Codec

    try:
        Codec(name, mode)
    except ValueError:  # av's UnknownCodecError, whose home differs between versions
        return False
    return True


def _round_trip() -> Iterator[Finding]:
    """Write a small video and read one of its frames back."""
    import numpy as np

    from wholereel.media.video_reader import VideoReader
    from wholereel.media.video_writer import write_video

    frames_THWC = np.stack([np.full((32, 32, 3), 20 * index, np.uint8) for index in range(10)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "doctor.mp4"
        write_video(path, frames_THWC, frame_rate=10, gop=5)
        value = float(VideoReader(path).read(indices=[7]).pixels_TCHW.float().mean())
    if abs(value - 140) > 6:
        yield Finding(
            "FAIL", "video round trip", f"frame 7 has brightness {value:.0f}, not 140", "pip install --upgrade av"
        )
    else:
        yield Finding("ok", "video round trip", "written, and the right frame read back")


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(".").free / GIB
    low = free < 5
    yield Finding(
        "note" if low else "ok", "disk", f"{free:.0f} GiB free here", "runs and caches may need more" if low else ""
    )
    shared = Path("/dev/shm")
    if shared.is_dir() and (size := shutil.disk_usage(shared).total / GIB) < 0.5:
        advice = "loader processes pass clips through it: use --set stages.STAGE.data.workers=0 or enlarge it"
        yield Finding("note", "shared memory", f"{size:.2f} GiB in {shared}", advice)


def _open_files() -> Iterator[Finding]:
    if sys.platform == "win32":
        return
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = 0 <= soft < 1024
    yield Finding("note" if low else "ok", "open files", f"limit {soft}", "ulimit -n 4096" if low else "")


CHECKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "versions": _versions,
    "extras": _extras,
    "processor": _processor,
    "GPU": _accelerators,
    "torchvision ops": _torchvision,
    "codecs": _codecs,
    "video round trip": _round_trip,
    "disk": _disk,
    "open files": _open_files,
}
