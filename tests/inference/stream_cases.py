"""Packages and streams for the tests of streaming: collaborative memories of all kinds, and tiny MeMViTs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from tests.inference.builders import CLASSES
from wholereel import config
from wholereel.inference.stream import Stream
from wholereel.media.frames import Frames
from wholereel.media.video_reader import VideoReader
from wholereel.models.memvit import MeMViT, memvit_tiny
from wholereel.models.package import Package

CLIPS = config.Clips(plan="contiguous", count=1000, frames=4, stride=2)
MEMORIES = {
    "last": config.Memory(dim=8),
    "two": config.Memory(after=("layer1", "last"), dim=8, value="separate"),
    "max": config.Memory(interaction="max", dim=8),
    "none": None,
}


SPACES = {"verb": ("open", "close"), "noun": ("door", "box", "jar")}


class Chopped(VideoReader):
    """A file that is read in chunks of any sizes."""

    sizes: Sequence[int] = (16,)

    def stream(self, *, start=0.0, chunk=16):
        turn = 0
        for frames in super().stream(start=start, chunk=64):
            begin = 0
            while begin < len(frames):
                part = slice(begin, begin + self.sizes[turn % len(self.sizes)])
                yield Frames(frames.pixels_TCHW[part], frames.seconds_T[part])
                begin, turn = part.stop, turn + 1


def memvit_package(*, causal_stem: bool = False, spaces: bool = False, **options: Any) -> Package:
    """A tiny MeMViT that remembers, with weights large enough that what it remembers matters."""
    torch.manual_seed(0)
    model = memvit_tiny(num_classes=(2, 3) if spaces else 2, **options)  # type: ignore[arg-type]
    if causal_stem:
        classes, info = (2, 3) if spaces else 2, model.info
        config_ = replace(model.config, causal_stem=True)
        model = MeMViT(config_, model.memory, num_classes=classes, info=info)
    model = model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3.0)
    return Package(
        model=model,
        spec=config.Model("memvit_tiny"),
        classes=tuple(name for names in SPACES.values() for name in names) if spaces else CLASSES,
        task=config.Task(),
        clips=config.Clips(frames=4, stride=1),
        short_side=36,
        crop=32,
        mean=model.info.mean,
        std=model.info.std,
        extra={},
        spaces=SPACES if spaces else {},
    )


def equal(found, expected, *, exact: bool = True) -> None:
    """Two lists of clips say the same."""
    assert [clip.number for clip in found] == [clip.number for clip in expected]
    assert [(clip.begin, clip.end, clip.final) for clip in found] == [(c.begin, c.end, c.final) for c in expected]
    for clip, other in zip(found, expected, strict=True):
        for name in ("scores_K", "video_scores_K", "frame_scores_TK"):
            a, b = getattr(clip, name), getattr(other, name)
            assert (a is None) == (b is None)
            if a is not None and exact:
                assert torch.equal(a, b), name
            elif a is not None:
                torch.testing.assert_close(a, b, rtol=0, atol=2e-6)


def run_file(package: Package, path, sizes: Sequence[int] = (16,), **settings):
    """The stream, and what it says of a file."""
    stream = Stream(package, device="cpu", **settings)
    with Chopped(path, size=stream.short_side) as reader:
        reader.sizes = sizes
        return stream, list(stream.run(reader))
