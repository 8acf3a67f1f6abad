"""Stand-ins for tests of streams: clips made of numbers, their loader, a task on a tiny MeMViT or clip model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from tests.training.tiny import StopHere
from wholereel import config
from wholereel.batches import IGNORED, StreamBatch, Target
from wholereel.datasets.stream_places import StreamKey, StreamPlaces
from wholereel.models.package import build_model
from wholereel.tasks.stream_classification import StreamClassification

CLASSES = ("red", "green", "blue")
SIDE, FRAMES = 16, 2
LENGTHS = (3, 4, 2, 3)
MEMVIT = config.Model("memvit_tiny", options={"frames": FRAMES, "crop": SIDE, "width": 8, "dropout": 0.2})
COLLABORATIVE = config.Model("tiny2d", options={"width": 8, "norm": "group"}, memory=config.Memory(dim=8))


def stream_clip(video: int, clip: int, *, frames: int = FRAMES, side: int = SIDE) -> torch.Tensor:
    """The first clip of a video shows its class's colour, the others noise."""
    noise = torch.randint(0, 255, (frames, 3, side, side), generator=torch.Generator().manual_seed(100 * video + clip))
    pixels = noise.to(torch.uint8)
    if clip == 0:
        pixels[:, video % len(CLASSES)] = 255
    return pixels


def stream_batch(keys: list[StreamKey | None]) -> StreamBatch:
    """Every second clip has a label: its video's class."""
    zeros = torch.zeros(FRAMES, 3, SIDE, SIDE, dtype=torch.uint8)
    labels = [IGNORED if key is None or key.clip % 2 else key.video % len(CLASSES) for key in keys]
    return StreamBatch(
        clip_BTCHW=torch.stack([zeros if key is None else stream_clip(key.video, key.clip) for key in keys]),
        valid_B=torch.tensor([key is not None for key in keys]),
        starts_B=torch.tensor([key is not None and key.starts for key in keys]),
        seconds_B2=torch.tensor([[key.clip, key.clip + 1.0] if key else [0.0, 0.0] for key in keys]).double(),
        target=Target({"label": torch.tensor(labels)}),
        ids=tuple(f"video{key.video}#{key.clip}" if key else "" for key in keys),
    )


@dataclass
class TinyStreams:
    """Streams of `LENGTHS` clips; breaks off in front of one (epoch, step)."""

    rows: int = 2
    rank: int = 0
    world_size: int = 1
    stop: tuple[int, int] | None = None

    @property
    def places(self) -> StreamPlaces:
        return StreamPlaces(LENGTHS, self.rows, seed=0, rank=self.rank, world_size=self.world_size)

    @property
    def steps_per_epoch(self) -> int:
        return self.places.steps_per_epoch

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[StreamBatch]:
        for step, keys in enumerate(self.places.steps(epoch, start_step), start_step):
            if (epoch, step) == self.stop:
                raise StopHere
            yield stream_batch(keys)


def stream_task(spec: config.Model = MEMVIT, *, seed: int = 0) -> StreamClassification:
    """With random but fixed weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(spec, len(CLASSES))
    return StreamClassification(model, config.Task(kind="stream"), {"label": CLASSES})
