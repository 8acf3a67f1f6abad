"""Random states of one process as tensors: for checkpoints, and for passes that must draw the same numbers twice.

Dropout and stochastic depth draw from PyTorch's process-wide generators, so these are what must be saved and replayed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["draw_seeds", "get_random_state", "kept_randomness", "replayed", "seeded", "set_random_state"]


def get_random_state(device: torch.device) -> dict[str, Tensor]:
    """States of the CPU generator and, for a CUDA device, of its generator: uint8 tensors on the CPU."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_state(states: dict[str, Tensor], device: torch.device) -> None:
    """The inverse of `get_random_state`; a state of a device that is not there is left out."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


@contextmanager
def kept_randomness(device: torch.device) -> Iterator[None]:
    """Whatever is drawn inside, the numbers drawn afterwards are the same."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


@contextmanager
def replayed(states: dict[str, Tensor], device: torch.device) -> Iterator[None]:
    """Draw from given states inside, as before afterwards."""
    with kept_randomness(device):
        set_random_state(states, device)
        yield


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from a fresh stream inside, as before afterwards."""
    with kept_randomness(device):
        torch.manual_seed(seed)
        yield


def draw_seeds(count: int) -> list[int]:
    """Seeds for `seeded`, drawn from the CPU generator (no synchronisation with a device)."""
    return torch.randint(2**62, (count,)).tolist()
