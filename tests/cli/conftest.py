"""A small folder of classes and an untrained model package for the commands that need them."""

from __future__ import annotations

import numpy as np
import pytest

from wholereel import config
from wholereel.media.video_writer import write_video
from wholereel.models.package import build_model, save_package

CLASSES = ("dark", "light")


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """ROOT/{train,test}/{dark,light}/*.mp4: 24 frames of 48 x 40 pixels at 8 per second."""
    root = tmp_path_factory.mktemp("videos")
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for brightness, name in ((40, "dark"), (200, "light")):
            for number in range(2):
                frames_THWC = generator.integers(-20, 20, (24, 40, 48, 3)) + brightness
                folder = root / split / name
                folder.mkdir(parents=True, exist_ok=True)
                write_video(folder / f"{number}.mp4", frames_THWC.astype(np.uint8), frame_rate=8, gop=8)
    return root


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """Folder of a model package: tiny2d with a memory, fresh weights."""
    spec = config.Model("tiny2d", options={"width": 8}, memory=config.Memory(dim=4))
    model = build_model(spec, len(CLASSES))
    clips = config.Clips(plan="uniform", count=3, frames=2, stride=4)
    info = model.info
    return save_package(
        tmp_path_factory.mktemp("run") / "best",
        model,
        spec=spec,
        num_classes=len(CLASSES),
        classes=CLASSES,
        task=config.Task(),
        input={"mean": info.mean, "std": info.std, "short_side": 36, "crop": 32, "clips": clips},
    )
