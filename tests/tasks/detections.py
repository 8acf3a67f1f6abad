"""Stand-ins for tests of detection: clips of noise with boxes, small detectors."""

from __future__ import annotations

import torch

from wholereel import config
from wholereel.batches import Boxes, ClipBatch, Target
from wholereel.models.detector import Detector
from wholereel.models.registry import create_model
from wholereel.tasks.detection import DetectionTask

CLASSES = 3
HEIGHT, WIDTH = 32, 40


def key_batch(
    videos: int = 2, clips: int = 3, *, seed: int = 0, judged: str = "centre", valid: torch.Tensor | None = None
) -> ClipBatch:
    """Two boxes at the middle clip of the first video, one at that of each other one; or at every clip."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (videos, clips, 4, 3, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8)
    where = range(clips) if judged == "all" else [clips // 2]
    rows = [(b, n) for b in range(videos) for n in where for _ in range(2 if b == 0 else 1)]
    corners = torch.rand(len(rows), 2, generator=generator) * 12
    sides = 8 + torch.rand(len(rows), 2, generator=generator) * 12
    boxes = Boxes(
        xyxy_R4=torch.cat([corners, corners + sides], 1),
        video_R=torch.tensor([row[0] for row in rows]),
        clip_R=torch.tensor([row[1] for row in rows]),
        seconds_R=torch.zeros(len(rows), dtype=torch.float64),
        labels_RK=(torch.rand(len(rows), CLASSES, generator=generator) < 0.5).float(),
    )
    return ClipBatch(
        clips_BNTCHW=pixels,
        seconds_BNT=torch.arange(4, dtype=torch.float64).expand(videos, clips, 4),
        valid_BN=torch.ones(videos, clips, dtype=torch.bool) if valid is None else valid,
        target=Target({"label": torch.zeros(videos, CLASSES)}, boxes),
        ids=tuple(f"film{index}" for index in range(videos)),
    )


def detector(
    memory: config.Memory | None = None,
    read: str = "clip",
    name: str = "tiny_r2plus1d",
    seed: int = 0,
    **options: object,
) -> Detector:
    """A small detector with random but fixed weights, memory not silent."""
    options = {"width": 24 if name == "mvit_tiny" else 8, **options}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Detector(create_model(name, num_classes=CLASSES, **options), memory, config.BoxHead(read=read))
        for parameter in model.memories.parameters():  # W_o starts at zero, where a memory says nothing
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=3.0 * parameter.shape[1] ** -0.5)
    return model


def detection_task(memory: config.Memory | None = None, read: str = "clip", **options: object) -> DetectionTask:
    return DetectionTask(detector(memory, read, **options), config.Task("detect", multi_label=True), CLASSES)
