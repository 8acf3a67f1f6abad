"""Small real videos and small random model packages, for the tests of inference, evaluation and report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from wholereel import config
from wholereel.media.video_writer import write_video
from wholereel.models.package import save_package
from wholereel.models.registry import create_model
from wholereel.models.video_model import VideoModel

CLASSES = ("left", "right")
CLIPS = config.Clips(plan="stratified", count=3, frames=4, stride=2)


def moving_square(path: Path, *, frames: int, right: bool, seed: int) -> Path:
    """A yellow square that moves left or right over coloured noise, 48 x 64 pixels at 10 frames a second."""
    noise = np.random.default_rng(seed).integers(60, 160, (6, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    pictures = []
    for time in range(frames):
        picture = noise.copy()
        left = (time if right else frames - time) % 50
        picture[16:32, left : left + 12] = (255, 220, 40)
        pictures.append(picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, np.stack(pictures), frame_rate=10, gop=10)
    return path


def package(folder: Path, memory: config.Memory | None, **task: object) -> Path:
    """A package with random weights; the memory's output projection is not zero, so that the memory matters."""
    torch.manual_seed(0)
    model = VideoModel(create_model("tiny2d", num_classes=2), memory)
    for parameter in model.memories.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return save_package(
        folder,
        model,
        spec=config.Model("tiny2d", memory=memory),
        num_classes=2,
        classes=CLASSES,
        task=config.Task(**task),
        input={"mean": model.info.mean, "std": model.info.std, "short_side": 36, "crop": 32, "clips": CLIPS},
    )
