"""CPU-seconds of reading clips: this library, TorchCodec (exact seek mode) and OpenCV side by side in one process.

Question: 8 clips x 16 frames x stride 4, spread evenly over a video of 40 s, short side 224, file opened cold each
time; then an hour-long file, and streaming. CPU time of the whole process is measured (all threads; all are set to 1).

- ours: open, read with `size=224` (colour conversion and scaling in one pass), close
- ours, decoding only: the same without colours and scaling: what every exact reader on this decoder has to do
- torchcodec: open in exact mode, `get_frames_at`, scaled inside the decoder by its own `Resize` transform, or after it
  by torchvision's `resize` (bilinear, antialias); ratios are to the faster of the two
- opencv: open, seek to each clip, `grab` between frames, `resize` (INTER_AREA); its frames are not checked

Before timing, our frames at native size are compared with TorchCodec's bit for bit. Each file exists in two encodings:
"groups" (this library's default: no B-frames) and "b-frames" (three and a pyramid, x264's default, as most files have).

    python benchmarks/reader.py --out benchmarks/results/reader.json

TorchCodec needs FFmpeg's shared libraries; the script offers it those that come with PyAV: both run one decoder.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor

from wholereel.media import VideoReader, write_video

RATE = 25
SECONDS = 40
SIDE = 224
STREAMED = 6_000
ENCODINGS: dict[str, Callable[[int], dict[str, str] | None]] = {
    "groups": lambda gop: None,
    "b-frames": lambda gop: {
        "crf": "23",
        "preset": "veryfast",
        "threads": "1",
        "x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0",
    },
}


def scene(height: int, width: int, frames: int) -> Iterator[np.ndarray]:
    """A camera panning over a soft texture, with eight soft sprites."""
    rng = np.random.default_rng(0)
    wall_HWC = _soft(rng, height, 2 * width, 24)
    sprites = [_soft(rng, height // 6, height // 6, 4) for _ in range(8)]
    phase, speed = rng.random((8, 2)) * 6.28, rng.random((8, 2)) * 0.08 + 0.02
    for t in range(frames):
        pan = int((0.5 + 0.5 * np.sin(t / 70)) * (width - 1))
        picture_HWC = wall_HWC[:, pan : pan + width].copy()
        for sprite, p, s in zip(sprites, phase, speed, strict=True):
            y, x = ((0.5 + 0.5 * np.sin(p + s * t)) * (np.array([height, width]) * 5 / 6 - 1)).astype(int)
            picture_HWC[y : y + len(sprite), x : x + len(sprite)] = sprite
        yield picture_HWC


def _soft(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    coarse = torch.from_numpy(rng.random((1, 3, cells, cells * width // height))).float()
    fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    return (fine[0].permute(1, 2, 0) * 170 + 40).clamp(0, 255).byte().numpy()


def clip_indices(frames: int) -> list[int]:
    """8 clips of 16 frames, every 4th frame."""
    starts = np.linspace(0, frames - 61, 8).astype(int)
    return [int(s) + 4 * i for s in starts for i in range(16)]


def ours(path: str, indices: list[int], size: int | None = SIDE) -> Tensor:
    """Open, read, close."""
    with VideoReader(path, size=size) as reader:
        return reader.read(indices=indices).pixels_TCHW


def decode_only(path: str, indices: list[int]) -> int:
    """What any exact reader on this decoder has to do: the frames asked for, left as they come out of it."""
    with VideoReader(path) as reader:
        return sum(1 for _ in reader._decoder.frames(reader._index(), sorted(set(indices))))


def torchcodec_readers(height: int, width: int) -> dict[str, Callable[[str, list[int]], Tensor]]:
    """The two ways of getting scaled frames, and "native" for the comparison; empty if it cannot be loaded."""
    try:
        from torchcodec.decoders import VideoDecoder  # noqa: PLC0415  optional
        from torchvision.transforms.v2 import Resize  # noqa: PLC0415
        from torchvision.transforms.v2.functional import resize  # noqa: PLC0415
    except (ImportError, RuntimeError, OSError) as error:
        print(f"TorchCodec is left out: {str(error).splitlines()[0]}")
        return {}
    size = [height, width]

    def native(path: str, indices: list[int]) -> Tensor:
        return VideoDecoder(path, seek_mode="exact", num_ffmpeg_threads=1).get_frames_at(indices).data

    def inside(path: str, indices: list[int]) -> Tensor:
        decoder = VideoDecoder(path, seek_mode="exact", num_ffmpeg_threads=1, transforms=[Resize(size)])
        return decoder.get_frames_at(indices).data

    def after(path: str, indices: list[int]) -> Tensor:
        return resize(native(path, indices), size, antialias=True)

    return {"torchcodec, resize inside": inside, "torchcodec, torchvision resize": after, "native": native}


def opencv_reader(height: int, width: int) -> Callable[[str, list[int]], np.ndarray] | None:
    """None if OpenCV is not installed."""
    try:
        import cv2  # noqa: PLC0415  optional
    except ImportError:
        print("OpenCV is left out: not installed")
        return None
    cv2.setNumThreads(1)

    def read(path: str, indices: list[int]) -> np.ndarray:
        video = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        pictures, position = [], 0
        for index in indices:
            if not 0 <= index - position < 8:
                video.set(cv2.CAP_PROP_POS_FRAMES, index)
                position = index
            while position < index:
                video.grab()
                position += 1
            picture = video.read()[1]
            position += 1
            scaled = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            pictures.append(cv2.cvtColor(scaled, cv2.COLOR_BGR2RGB))
        video.release()
        return np.stack(pictures)

    return read


def race(runners: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """CPU-seconds; the runners take turns, so that a slow minute of the machine hits all."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, run in runners.items():
            begin = time.process_time()
            run()
            times[name].append(time.process_time() - begin)
    return {
        name: {"n": rounds, "best_cpu_s": round(min(t), 5), "median_cpu_s": round(statistics.median(t), 5)}
        for name, t in times.items()
    }


def clip_rows(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """One row for each size, key-frame distance, encoding and reader."""
    rows: list[dict[str, Any]] = []
    for height, width in ((240, 320), (720, 1280)):
        for gop in (12, 250):
            for encoding, options in ENCODINGS.items():
                path = str(folder / f"{height}_{gop}_{encoding}.mp4")
                frames = SECONDS * RATE
                write_video(path, scene(height, width, frames), frame_rate=RATE, gop=gop, qp=28, options=options(gop))
                case = {"file": f"{width}x{height}", "gop": gop, "encoding": encoding}
                case["mbit_per_s"] = round(os.path.getsize(path) * 8e-6 / SECONDS, 2)
                rows += race_one(path, case, clip_indices(frames), (SIDE, SIDE * width // height), rounds)
                os.remove(path)
    return rows


def race_one(
    path: str, case: dict[str, Any], indices: list[int], size: tuple[int, int], rounds: int
) -> list[dict[str, Any]]:
    """Check that the frames are the same, then time all readers on one file."""
    theirs = torchcodec_readers(*size)
    native = theirs.pop("native", None)
    if native is not None:
        case["identical_to_torchcodec"] = bool(torch.equal(ours(path, indices, None), native(path, indices)))
    runners: dict[str, Callable[[], object]] = {"ours": lambda: ours(path, indices)}
    runners["ours, decoding only"] = lambda: decode_only(path, indices)
    runners |= {name: functools.partial(read, path, indices) for name, read in theirs.items()}
    if (opencv := opencv_reader(*size)) is not None:
        runners["opencv"] = lambda: opencv(path, indices)
    results = race(runners, rounds)
    best = min((r["median_cpu_s"] for name, r in results.items() if name.startswith("torchcodec")), default=None)
    if best is not None:
        case["ours_over_torchcodec"] = round(results["ours"]["median_cpu_s"] / best, 3)
        case["decoding_over_torchcodec"] = round(results["ours, decoding only"]["median_cpu_s"] / best, 3)
    print(case, {name: r["median_cpu_s"] for name, r in results.items()}, flush=True)
    return [{"name": name, **case, **result} for name, result in results.items()]


def repeat_file(source: Path, target: Path, times: int) -> None:
    """Join a file to itself without encoding again."""
    with av.open(str(target), "w") as out:
        stream = None
        for number in range(times):
            with av.open(str(source)) as container:
                video = container.streams.video[0]
                stream = stream or out.add_stream_from_template(video)
                step = int(Fraction(1, RATE) / video.time_base)
                for packet in container.demux(video):
                    if packet.size:
                        packet.pts += number * step * SECONDS * RATE
                        packet.dts += number * step * SECONDS * RATE
                        packet.stream = stream
                        out.mux(packet)


def hour_rows(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Cold reading and streaming of an hour at 320x240."""
    piece, hour = folder / "piece.mp4", folder / "hour.mp4"
    rows: list[dict[str, Any]] = []
    for encoding, options in ENCODINGS.items():
        write_video(piece, scene(240, 320, SECONDS * RATE), frame_rate=RATE, gop=12, qp=28, options=options(12))
        repeat_file(piece, hour, 3600 // SECONDS)
        case = {"file": "320x240, 1 hour", "gop": 12, "encoding": encoding}
        case["mbyte"] = round(hour.stat().st_size / 1e6, 1)
        rows += race_one(str(hour), case, clip_indices(3600 * RATE), (SIDE, 298), rounds)
        streamed = stream_rows(hour, case)
        print(streamed, flush=True)
        rows += streamed
    return rows


def stream_rows(path: Path, case: dict[str, Any]) -> list[dict[str, Any]]:
    """Frames per CPU-second at native size and growth of memory, beside decoding alone (no colours, no arrays)."""
    best: dict[str, dict[str, Any]] = {}
    for _ in range(3):
        for name, run in (("ours, streaming", stream_ours), ("PyAV, decoding only", decode_all)):
            begin = time.process_time()
            memory = run(path)
            rate = round(STREAMED / (time.process_time() - begin))
            if rate > best.get(name, {"frames_per_cpu_s": 0})["frames_per_cpu_s"]:
                best[name] = {"name": name, **case, "frames": STREAMED, "frames_per_cpu_s": rate, **memory}
    return list(best.values())


def stream_ours(path: Path) -> dict[str, int]:
    """Stream; memory in MB after 2,000 frames and at the end."""
    seen, early = 0, 0
    with VideoReader(path) as reader:
        for frames in reader.stream(chunk=16):
            seen += len(frames)
            if not early and seen >= 2000:
                early = resident_mb()
            if seen >= STREAMED:
                return {"mb_after_2000_frames": early, "mb_at_the_end": resident_mb()}
    raise RuntimeError(f"the file has only {seen} frames")


def decode_all(path: Path) -> dict[str, int]:
    """What no reader on this decoder can beat."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for number, _ in enumerate(container.decode(stream), start=1):
            if number >= STREAMED:
                break
    return {}


def resident_mb() -> int:
    """Memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 2**20


def offer_shared_libraries() -> None:
    """Start again with PyAV's FFmpeg libraries, under their plain names, in the loader's path."""
    shipped = Path(av.__file__).parent.parent / "av.libs"
    if "READER_BENCHMARK_LIBS" in os.environ or not shipped.is_dir():
        return
    plain = Path(tempfile.mkdtemp())
    for library in shipped.iterdir():
        name, _, version = library.name.partition(".so.")
        if name.startswith(("libav", "libsw")):
            (plain / f"{name.rsplit('-', 1)[0]}.so.{version.split('.')[0]}").symlink_to(library)
    path = os.pathsep.join([str(plain), str(shipped), os.environ.get("LD_LIBRARY_PATH", "")])
    environment = {**os.environ, "READER_BENCHMARK_LIBS": str(plain), "LD_LIBRARY_PATH": path}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def main() -> None:
    """Run all and write the result file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", default="benchmarks/results/reader.json")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    offer_shared_libraries()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = hour_rows(Path(folder), arguments.rounds) + clip_rows(Path(folder), arguments.rounds)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    result = {
        "what": "reader: 8 clips x 16 frames x stride 4, short side 224; CPU-seconds of one process, one thread",
        "command": f"python benchmarks/reader.py --rounds {arguments.rounds}",
        "commit": commit.stdout.strip(),
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} {platform.machine()} cores (load {os.getloadavg()[1]:.1f}, other jobs included), "
        f"no GPU, torch {torch.__version__}, PyAV {av.__version__}",
        "rows": rows,
    }
    Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
