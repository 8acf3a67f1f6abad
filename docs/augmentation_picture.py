"""Draw `docs/_static/augmentation.jpg`: what a training clip looks like under each choice of `data.augment`.

`python docs/augmentation_picture.py VIDEO [FIRST SECOND]`: two clips of one film that begin at these seconds; the
second one is the partner of blends. The committed picture shows `tears-of-steel-battle-clip-medium.webm` (excerpt of
*Tears of Steel*, (CC) Blender Foundation, mango.blender.org, CC BY 3.0; from mdn/shared-assets) at 23 and 0 seconds.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from wholereel.config import Augment, Erasing, Mixing, RandAugment, ResizedCrop
from wholereel.media.augment import TrainAugment
from wholereel.media.mixed_input import blended, draw_blend, erase
from wholereel.media.model_input import to_model_input
from wholereel.media.video_reader import VideoReader

OUT = Path(__file__).parent / "_static" / "augmentation.jpg"
MEAN, STD = (0.45,) * 3, (0.225,) * 3
SIDE, CROP, SHOWN = 256, 224, 112  # as on Kinetics; pictures are shown at half their size
FRAMES, SECONDS = 4, 2.0  # of a clip of two seconds four frames are shown
GAP, TEXT = 4, 170
COLUMNS = slice(50, 370)  # of the wide film, so that crops show nearly the same
NONE = Augment((SIDE, SIDE), CROP, flip=0.0)
# What is shown, settings, and a seed whose draw shows it.
ROWS: tuple[tuple[str, Augment, int], ...] = (
    ("none of it", NONE, 0),
    ("color_jitter: 0.4", replace(NONE, color_jitter=0.4), 3),
    ("lighting: 0.1", replace(NONE, lighting=0.1), 6),
    ("rand_augment: {}", replace(NONE, rand_augment=RandAugment()), 1),
    ("rand_augment: {}", replace(NONE, rand_augment=RandAugment()), 5),
    ("rand_augment: {}", replace(NONE, rand_augment=RandAugment()), 9),
    ("resized_crop: {}", replace(NONE, resized_crop=ResizedCrop()), 2),
    ("erasing: {}", replace(NONE, erasing=Erasing(probability=1.0)), 3),
    ("mixing: {cutmix: 0}", replace(NONE, mixing=Mixing(cutmix=0.0)), 4),
    ("mixing: {mixup: 0}", replace(NONE, mixing=Mixing(mixup=0.0)), 7),
)


def clip_of(video: Path, begin: float) -> Tensor:
    """clip_TCHW, uint8."""
    with VideoReader(video, size=SIDE) as reader:
        return reader.read(seconds=[begin + SECONDS * n / FRAMES for n in range(FRAMES)]).pixels_TCHW[..., COLUMNS]


def shown(clips_BTCHW: Tensor, augment: Augment, seed: int) -> tuple[Tensor, str]:
    """The first clip as the model sees it, and what was drawn."""
    generator = torch.Generator().manual_seed(seed)
    done = [TrainAugment(augment)(clip[None], generator=generator) for clip in clips_BTCHW]
    pixels_BTCHW = torch.cat([one.clips_NTCHW for one in done])
    input_BCTHW = to_model_input(pixels_BTCHW, mean=MEAN, std=STD)
    erase(input_BCTHW[:, None], done[0].erased, range(1))
    note = " ".join(f"{operation.name} {operation.level:+.2f}" for operation in done[0].draws[0].operations)
    if augment.mixing is not None:
        blend = draw_blend(augment.mixing, len(clips_BTCHW), CROP, CROP, generator)
        input_BCTHW, note = blended(input_BCTHW, blend), f"own share {float(blend.share_B[0]):.2f}"
    pixels_TCHW = (input_BCTHW[0] * STD[0] + MEAN[0]).transpose(0, 1)
    return (pixels_TCHW * 255).round().clamp(0, 255).to(torch.uint8), note


def draw(clips_BTCHW: Tensor) -> Image.Image:
    """One row for each setting: its text, what was drawn, and the frames."""
    width, height = TEXT + FRAMES * (SHOWN + GAP), len(ROWS) * (SHOWN + GAP) - GAP
    page = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(page)
    for row, (name, augment, seed) in enumerate(ROWS):
        pixels_TCHW, note = shown(clips_BTCHW, augment, seed)
        top = row * (SHOWN + GAP)
        pen.text((2, top + 8), name, fill="black", font_size=14)
        for line, text in enumerate(note.split(" ") if augment.rand_augment else [note]):
            pen.text((2 + 100 * (line % 2 if augment.rand_augment else 0), top + 34 + 16 * (line // 2)), text,
                     fill="dimgray", font_size=12)  # fmt: skip
        for column, frame in enumerate(pixels_TCHW):
            picture = Image.fromarray(frame.permute(1, 2, 0).numpy()).resize((SHOWN, SHOWN), Image.Resampling.LANCZOS)
            page.paste(picture, (TEXT + column * (SHOWN + GAP), top))
    return page


def main() -> None:
    """Of the film that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("seconds", type=float, nargs="*", default=[23.0, 0.0])
    given = parser.parse_args()
    draw(torch.stack([clip_of(given.video, second) for second in given.seconds])).save(OUT, quality=85)


if __name__ == "__main__":
    main()
