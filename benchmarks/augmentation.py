"""CPU-seconds of what training does to one clip of 16 frames, beside decoding it.

A generated film of 640 x 360 (H.264, groups of 12 frames); 16 frames at stride 4, short side 256, cropped to 224: the
sizes of Kinetics trainings. RandAugment is timed on the same draws as PIL's, frame by frame, which public code calls;
the two are compared first: colours by at most one step of 255, geometry in the mean. Rounds take turns; process time,
one thread.

    python benchmarks/augmentation.py --out benchmarks/results/augmentation.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor

from tests.media.test_rand_augment import GEOMETRY, PIL_OPERATIONS
from wholereel.config import Augment, Erasing, Mixing, RandAugment, ResizedCrop
from wholereel.media.augment import TrainAugment
from wholereel.media.mixed_input import blended, draw_blend, erase
from wholereel.media.model_input import to_model_input
from wholereel.media.rand_augment import OPERATIONS, Operation, apply_operations, draw_operations
from wholereel.media.video_reader import VideoReader
from wholereel.media.video_writer import write_video
from wholereel.recipes.mvit import KINETICS_AUGMENT

FRAMES, STRIDE, SIDE = 16, 4, 256
PLAIN = Augment((SIDE, SIDE), 224)
SETTINGS: dict[str, Augment] = {
    "crop, flip": PLAIN,
    "crop, flip, color_jitter": Augment((SIDE, SIDE), 224, color_jitter=0.4),
    "crop, flip, lighting": Augment((SIDE, SIDE), 224, lighting=0.1),
    "resized crop, flip": Augment((SIDE, SIDE), 224, resized_crop=ResizedCrop()),
    "RandAugment, crop, flip": Augment((SIDE, SIDE), 224, rand_augment=RandAugment()),
    "all of Kinetics, one copy": KINETICS_AUGMENT,
}


def film(path: Path) -> None:
    """A camera panning over a soft texture."""
    coarse = torch.rand(1, 3, 24, 96, generator=torch.Generator().manual_seed(0))
    wall = torch.nn.functional.interpolate(coarse, size=(360, 1440), mode="bicubic")[0].clamp(0, 1)
    wall_HWC = (wall.permute(1, 2, 0) * 255).byte().numpy()
    frames = np.stack([wall_HWC[:, 4 * t : 4 * t + 640] for t in range(200)])
    write_video(path, frames, frame_rate=30, gop=12)


def read(path: Path) -> Tensor:
    with VideoReader(path, size=SIDE) as reader:
        return reader.read(indices=range(60, 60 + FRAMES * STRIDE, STRIDE)).pixels_TCHW


def by_pil(pixels_TCHW: Tensor, operations: tuple[Operation, ...]) -> Tensor:
    """Frame by frame, bicubic, as facebookresearch/SlowFast does; from tensors and back."""
    frames = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in pixels_TCHW]
    for operation in operations:
        apply = PIL_OPERATIONS[operation.name]
        frames = [apply(frame, operation.level, Image.BICUBIC) for frame in frames]
    return torch.stack([torch.from_numpy(np.array(frame)).permute(2, 0, 1) for frame in frames])


def check(pixels_TCHW: Tensor) -> None:
    for name in OPERATIONS:
        operations = (Operation(name, 0.7),)
        apart = (apply_operations(pixels_TCHW[:2], operations).int() - by_pil(pixels_TCHW[:2], operations).int()).abs()
        assert apart.float().mean() < 4 if name in GEOMETRY else apart.amax() <= 1, name


def tasks(path: Path, draws: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name; each does one clip `draws` times, decoding excepted."""
    pixels_TCHW = read(path)
    check(pixels_TCHW)
    generator = torch.Generator().manual_seed(0)
    drawn = [draw_operations(RandAugment(), generator) for _ in range(draws)]
    input_BCTHW = to_model_input(pixels_TCHW[None, ..., :224, :224], mean=(0.45,) * 3, std=(0.225,) * 3)
    pair_BCTHW = torch.cat([input_BCTHW, input_BCTHW.flip(-1)])

    def augmented(augment: Augment) -> None:
        train = TrainAugment(augment)
        for seed in range(draws):
            train(pixels_TCHW[None], generator=torch.Generator().manual_seed(seed)).clips_NTCHW.contiguous()

    def on_input() -> None:
        for seed in range(draws):
            source = torch.Generator().manual_seed(seed)
            patches = TrainAugment(Augment((224, 224), 224, erasing=Erasing())).draws(1, 224, 224, source)[0].erased
            erase(pair_BCTHW[:, None], patches, range(1))
            blended(pair_BCTHW, draw_blend(Mixing(), 2, 224, 224, source))

    return {
        "decode": lambda: read(path),
        "RandAugment alone": lambda: [apply_operations(pixels_TCHW, operations) for operations in drawn],
        "RandAugment alone, PIL": lambda: [by_pil(pixels_TCHW, operations) for operations in drawn],
        **{name: lambda augment=augment: augmented(augment) for name, augment in SETTINGS.items()},
        "erasing and mixing, of two clips": on_input,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=30)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--note", default="", help="what else the machine did")
    given = parser.parse_args()
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        film(path)
        work = tasks(path, given.draws)
        for _ in range(given.rounds):
            for name, run in work.items():
                begin = time.process_time()
                run()
                spent = time.process_time() - begin
                seconds.setdefault(name, []).append(spent / (1 if name == "decode" else given.draws))
    rows = [{"name": name, "best_s": round(min(times), 5), "median_s": round(statistics.median(times), 5)}
            for name, times in seconds.items()]  # fmt: skip
    for row in rows:
        print(f"{row['name']:34s} best {row['best_s'] * 1000:7.1f} ms   median {row['median_s'] * 1000:7.1f} ms")
    result = {
        "what": "CPU-seconds a clip of 16 frames",
        "command": " ".join(["python", *sys.argv]),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        ).stdout.strip(),
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} x86-64 cores, {platform.system()}, torch {torch.__version__}, "
        f"torchvision {torchvision.__version__}, one thread",
        "note": given.note,
        "rows": rows,
    }
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
