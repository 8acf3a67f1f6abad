"""Three hours of video through `Stream` on the CPU: does resident memory stay flat?

A file is generated (a square that moves over noise, another colour every minute; low resolution, so that the hours are
cheap), then streamed by each model in a process of its own, at one clip per second, while the process' resident memory
is sampled. First it is checked, on the first minute of the same video, that `late_read` says what the offline model
says, and that MeMViT's stream says what its clips give one after the other. Half way, the stream is saved, and another
one goes on from the file: its clips must be those of the first.

- rss_mb: resident memory at a time of the video, after Python's own collection; warm: after the first 5 % of the video
- slope_mb_per_hour: least squares over the warm samples, per hour of video
- state_bytes: of the file that `save` writes, at the quarters of the video

    python benchmarks/long_stream.py --hours 3 --picture docs/_static/long_stream.svg
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wholereel import config
from wholereel.cli.stream_view import memory_megabytes
from wholereel.inference import Predictor
from wholereel.inference.stream import ClipScore, Stream
from wholereel.media.clip_assembly import ClipAssembler
from wholereel.media.frames import Frames
from wholereel.media.model_input import to_model_input
from wholereel.media.video_reader import VideoReader
from wholereel.media.video_writer import write_video
from wholereel.models.memvit import memvit_tiny
from wholereel.models.package import Package
from wholereel.models.registry import create_model
from wholereel.models.video_model import VideoModel
from wholereel.report.charts import Series, line_chart

RATE, HEIGHT, WIDTH, CLASSES = 24, 36, 48, 5
RUNS = {"collaborative, causal": "causal", "collaborative, late_read": "late_read", "MeMViT, causal": "memvit"}


def pictures(seconds: int) -> Iterator[np.ndarray]:
    """A square that moves over noise; both change with every minute."""
    for minute in range(-(-seconds // 60)):
        random = np.random.default_rng(minute)
        noise = random.integers(60, 160, (HEIGHT // 6, WIDTH // 6, 3), dtype=np.uint8).repeat(6, 0).repeat(6, 1)
        colour = random.integers(0, 255, 3, dtype=np.uint8)
        for frame in range(min(60, seconds - 60 * minute) * RATE):
            picture = noise.copy()
            left = frame // 2 % (WIDTH - 10)
            picture[12:22, left : left + 10] = colour
            yield picture


def make_package(run: str) -> Package:
    """A network with random weights, large enough that memories matter."""
    torch.manual_seed(0)
    if run == "memvit":
        model: Any = memvit_tiny(num_classes=CLASSES)
        spec, clips = config.Model("memvit_tiny"), config.Clips(frames=4, stride=6)
    else:
        memory = config.Memory(dim=16)
        model = VideoModel(create_model("tiny2d", num_classes=CLASSES), memory)
        for parameter in model.memories.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        spec, clips = config.Model("tiny2d", memory=memory), config.Clips(frames=8, stride=3)
    names, info = tuple(f"class {k}" for k in range(CLASSES)), model.info
    return Package(model.eval(), spec, names, config.Task(), clips, 36, 32, info.mean, info.std, {})


def check_equal(run: str, path: Path) -> float:
    """Largest difference between the stream and the offline answer on a video of a minute."""
    package = make_package(run)
    if run == "memvit":
        found = list(Stream(package, device="cpu").run(path))
        assembler = ClipAssembler(package.clips, frame_rate=RATE)
        state, expected = package.model.init_state(1), []
        with VideoReader(path, size=36) as reader, torch.no_grad():
            for frames in reader.stream():
                for clip in assembler.push(frames):
                    x = to_model_input(clip.pixels_TCHW[None, ..., 2:34, 8:40], mean=package.mean, std=package.std)
                    logits, state = package.model(x, state)
                    expected.append(logits[0].softmax(-1))
        return float((torch.stack([clip.scores_K for clip in found]) - torch.stack(expected)).abs().max())
    clips = config.Clips("contiguous", 10_000, package.clips.frames, package.clips.stride)
    offline = Predictor(package, device="cpu", clips=clips)(path)
    final = [clip for clip in Stream(package, mode="late_read", device="cpu").run(path) if clip.final]
    return float((torch.stack([clip.scores_K for clip in final]) - offline.clip_scores_NK).abs().max())


def measure(run: str, path: Path, samples: int) -> dict[str, Any]:
    """One run over the whole file."""
    package = make_package(run)
    settings: dict[str, Any] = {"mode": "late_read" if run == "late_read" else "causal", "device": "cpu"}
    stream = Stream(package, **settings)
    rows, bytes_, told = [], [], []
    with VideoReader(path, size=36) as reader, tempfile.TemporaryDirectory() as folder:
        seconds = reader.frame_count / RATE
        total, state = round(seconds), Path(folder) / "state"
        cpu, wall = time.process_time(), time.monotonic()
        for clip in stream.run(reader):
            if clip.final and run == "late_read":
                continue
            if clip.number % max(1, total // samples) == 0:
                gc.collect()
                rows.append([round(clip.end / 3600, 5), round(memory_megabytes(), 2)])
            if clip.number + 1 in (total // 4, total // 2, 3 * total // 4):
                stream.save(state)
                bytes_.append(state.stat().st_size)
                if clip.number + 1 == total // 2:
                    state.rename(state.with_suffix(".half"))
            if total // 2 <= clip.number < total // 2 + 60:
                told.append(clip)
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        resumed_equal = resume(package, settings, state.with_suffix(".half"), reader, told)
    warm = [(hour, mb) for hour, mb in rows if hour > 0.05 * rows[-1][0]]
    hours_S, mb_S = np.array(warm).T
    return {
        "clips": stream.clips_seen,
        "cpu_s": round(cpu, 1),
        "wall_s": round(wall, 1),
        "rss_first_mb": rows[0][1],
        "rss_warm_min_mb": float(mb_S.min()),
        "rss_warm_max_mb": float(mb_S.max()),
        "rss_last_mb": rows[-1][1],
        "slope_mb_per_hour": round(float(np.polyfit(hours_S, mb_S, 1)[0]), 3),
        "state_bytes": bytes_,
        "resumed_equal": resumed_equal,
        "rss": rows,
    }


def resume(package: Package, settings: dict[str, Any], state: Path, reader: VideoReader, told: list[ClipScore]) -> bool:
    """Whether a stream that goes on from the state says the same of the next minute."""
    stream = Stream(package, **settings)
    stream.load(state)
    for clip, other in zip(stream.run(reader), told, strict=False):
        if clip.number != other.number or not torch.equal(clip.scores_K, other.scores_K):
            return False
        if other is told[-1]:
            return True
    return False


def picture(result: dict[str, Any], path: Path) -> None:
    """Growth of resident memory over the video's time, from the first clip on."""
    series = []
    for row in result["rows"]:
        hours, megabytes = zip(*row["rss"], strict=True)
        series.append(Series(row["name"], hours, [mb - megabytes[0] for mb in megabytes]))
    chart = line_chart(
        series,
        title=f"{result['hours']:g} hours of video through Stream, one clip a second",
        x_label="hours of video",
        y_label="growth of resident memory (MB)",
        y_range=(min(0.0, 1.1 * min(min(one.y) for one in series)), max(20.0, 1.1 * max(max(one.y) for one in series))),
    )
    path.write_text(chart + "\n", encoding="utf-8")


def short_of(path: Path, folder: Path) -> Path:
    """The first minute as a file of its own."""
    with VideoReader(path) as reader:
        frames: Frames = reader.read(indices=range(min(reader.frame_count, 60 * RATE)))
    short = folder / "minute.mp4"
    write_video(short, frames.pixels_TCHW.permute(0, 2, 3, 1).contiguous().numpy(), frame_rate=RATE, gop=240)
    return short


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--video", type=Path, default=None, help="keep the generated video here, or take it from here")
    parser.add_argument("--one", choices=list(RUNS.values()), default=None, help="one run, result to standard output")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/long_stream.json"))
    parser.add_argument("--picture", type=Path, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.one is not None:
        print(json.dumps(measure(given.one, given.video, given.samples)))
        return
    with tempfile.TemporaryDirectory() as name:
        path = given.video or Path(name) / "long.mp4"
        if not path.exists():
            write_video(path, pictures(round(3600 * given.hours)), frame_rate=RATE, gop=240)
        short = short_of(path, Path(name))
        rows = []
        for label, run in RUNS.items():
            row = {"name": label, "difference_to_offline": check_equal(run, short)}
            assert row["difference_to_offline"] < 2e-6, row
            words = [sys.executable, __file__, "--one", run, "--video", str(path), "--samples", str(given.samples)]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            rows.append({**row, **json.loads(done.stdout)})
            print({key: value for key, value in rows[-1].items() if key != "rss"}, flush=True)
        megabyte = path.stat().st_size / 1e6
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    result = {
        "what": f"{given.hours:g} hours of {WIDTH}x{HEIGHT} video, {RATE} frames/s, {megabyte:.0f} MB, through Stream",
        "command": f"python benchmarks/long_stream.py --hours {given.hours:g}",
        "commit": commit.stdout.strip(),
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, 1 thread, no GPU (load {os.getloadavg()[1]:.1f}, other jobs included), "
        f"torch {torch.__version__}",
        "hours": given.hours,
        "rows": rows,
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    if given.picture is not None:
        picture(result, given.picture)


if __name__ == "__main__":
    main()
