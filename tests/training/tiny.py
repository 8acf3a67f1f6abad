"""Stand-ins for tests: a learnable set of tiny clips made of numbers, its loader, tasks on small models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from wholereel import config
from wholereel.batches import ClipBatch, Fault, Target
from wholereel.models.registry import create_model
from wholereel.models.video_model import VideoModel
from wholereel.tasks.classification import ClassificationTask

CLASSES = ("dark", "bright", "red")
SIZE = 8


def clip_batch(indices: list[int], *, clips: int = 3, seed: int = 0, valid: torch.Tensor | None = None) -> ClipBatch:
    """Videos whose class shows in brightness and colour; sample i is a pure function of (seed, i)."""
    pixels, labels = [], []
    for index in indices:
        generator = torch.Generator().manual_seed(1000 * seed + index)
        label = index % len(CLASSES)
        base = torch.tensor([[60, 60, 60], [180, 180, 180], [200, 40, 40]][label])
        noise = torch.randint(-40, 40, (clips, 4, 3, SIZE, SIZE), generator=generator)
        pixels.append((base[None, None, :, None, None] + noise).clamp(0, 255).to(torch.uint8))
        labels.append(label)
    shape = (len(indices), clips)
    return ClipBatch(
        clips_BNTCHW=torch.stack(pixels),
        seconds_BNT=torch.arange(4, dtype=torch.float64).expand(*shape, 4),
        valid_BN=torch.ones(shape, dtype=torch.bool) if valid is None else valid,
        target=Target(labels={"label": torch.tensor(labels)}),
        ids=tuple(f"video{index}" for index in indices),
    )


@dataclass
class TinyLoader:
    """`length` videos in an order per epoch, dealt to ranks; indices in `bad` are replaced by their neighbours."""

    length: int = 12
    batch: int = 4
    rank: int = 0
    world_size: int = 1
    clips: int = 3
    bad: frozenset[int] = frozenset()

    @property
    def steps_per_epoch(self) -> int:
        return self.length // (self.batch * self.world_size)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[ClipBatch]:
        order = torch.randperm(self.length, generator=torch.Generator().manual_seed(epoch)).tolist()
        for step in range(start_step, self.steps_per_epoch):
            size = self.batch * self.world_size
            indices = order[step * size : (step + 1) * size][self.rank :: self.world_size]
            faults = tuple(
                Fault(f"video{i}", f"{i}.mp4", "no\tframes", f"video{i + 1}") for i in indices if i in self.bad
            )
            batch = clip_batch([i + 1 if i in self.bad else i for i in indices], clips=self.clips)
            yield ClipBatch(**{**vars(batch), "faults": faults})


class StopHere(Exception):
    """Stands for a killed process."""


@dataclass
class Stopping(TinyLoader):
    """Breaks off in front of one (epoch, step)."""

    stop: tuple[int, int] | None = None

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[ClipBatch]:
        for step, batch in enumerate(super().epoch(epoch, start_step), start_step):
            if (epoch, step) == self.stop:
                raise StopHere
            yield batch


def video_model(memory: config.Memory | None = None, *, norm: str = "group", name: str = "tiny2d", seed: int = 0):
    """A small model with random but fixed weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = VideoModel(create_model(name, num_classes=len(CLASSES), norm=norm, width=8), memory)
        for parameter in model.memories.parameters():  # W_o starts at zero, where truncated and exact gradients agree
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=2.0 * parameter.shape[1] ** -0.5)
    return model


def tiny_task(
    memory: config.Memory | None = None, *, norm: str = "group", name: str = "tiny2d", seed: int = 0, **task: object
) -> ClassificationTask:
    return ClassificationTask(video_model(memory, norm=norm, name=name, seed=seed), config.Task(**task), len(CLASSES))
