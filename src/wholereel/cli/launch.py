"""`--devices`: one process, or several through torchrun, which starts this same command once per process."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from wholereel.errors import ConfigError

__all__ = ["device_kind", "first_process", "launched", "process_count", "relaunch", "torch_device", "torchrun_command"]

KINDS = ("auto", "cpu", "cuda")


def process_count(devices: str) -> int:
    """Number of processes that `--devices` asks for.

    Raises: ConfigError: neither a kind of device nor a positive number.
    """
    if devices in KINDS or _is_numbered_gpu(devices):
        return 1
    if devices.isdecimal() and int(devices) > 0:
        return int(devices)
    raise ConfigError(f"--devices {devices}: expected auto, cpu, cuda, cuda:N or a number of processes.")


def device_kind(devices: str) -> str:
    """What each process uses: `auto` (its own GPU where there is one), `cpu`, `cuda` or `cuda:N`."""
    return "auto" if devices.isdecimal() else devices


def _is_numbered_gpu(devices: str) -> bool:
    return devices.startswith("cuda:") and devices.removeprefix("cuda:").isdecimal()


def torch_device(kind: str) -> str:
    """The one device of a command that runs in a single process.

    Raises: ConfigError: not auto, cpu or cuda, or a GPU that is not there.
    """
    import torch

    if kind not in KINDS:
        raise ConfigError(f"--device {kind}: expected one of {', '.join(KINDS)}.")
    available = torch.cuda.is_available()
    if kind == "cuda" and not available:
        raise ConfigError("--device cuda: there is no usable GPU here; `wholereel doctor` says more.")
    return "cuda" if available and kind != "cpu" else "cpu"


def launched() -> bool:
    """Whether torchrun (or another launcher with its variables) has started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def first_process() -> bool:
    """Whether this process is the one that writes and speaks for all."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def torchrun_command(processes: int, words: Sequence[str]) -> list[str]:
    """The words that run `wholereel WORDS` in several processes of this machine."""
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *run, "-m", "wholereel", *words]


def relaunch(processes: int, words: Sequence[str]) -> None:
    """Become torchrun; does not return. Signals and the exit code are then torchrun's own."""
    command = torchrun_command(processes, words)
    sys.stdout.flush()
    os.execv(command[0], command)
