"""What packing buys: CPU-seconds of reading training clips from files as they are, from shards, and encoded anew.

Sets of generated videos (10 s, 340x256 and 1280x720, x264's own defaults: B-frames, up to 250 frames from key frame to
key frame) are packed twice: copied byte for byte, and encoded with a short side of 128 and a key frame every 12 frames.
Then every video is opened cold and 4 clips of 8 frames (stride 8) are read at random places with a short side of 128.
Before anything is timed, the copied shards' frames are compared with the files' bit for bit, and the encoded ones'
times exactly and pixels as PSNR. `--data` adds data sets of one's own.

    python benchmarks/pack.py --out benchmarks/results/pack.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import torch
from reader import scene

from wholereel.datasets.manifest import read_manifest
from wholereel.datasets.sample import Manifest
from wholereel.datasets.shard_encode import Encoding
from wholereel.datasets.shards import pack
from wholereel.media import VideoReader, write_video

SIDE, GOP, CLIPS, FRAMES, STRIDE = 128, 12, 4, 8, 8
SECONDS, RATE = 10, 25
GENERATED = {"340x256": (12, 256, 340), "1280x720": (3, 720, 1280)}  # videos, height, width


def generate(folder: Path, videos: int, height: int, width: int) -> None:
    """Videos as cameras and web sites make them."""
    folder.mkdir()
    lines = ["path,label"]
    defaults = {"crf": "23", "preset": "medium", "threads": "1"}
    for number in range(videos):
        frames = scene(height, width, SECONDS * RATE)
        write_video(folder / f"v{number:02d}.mp4", frames, frame_rate=RATE, gop=250, options=defaults)
        lines.append(f"v{number:02d}.mp4,x")
    (folder / "annotations.csv").write_text("\n".join(lines) + "\n")


def clip_indices(frames: int, number: int) -> list[int]:
    """Frames of the clips of one video, the same for each way of keeping it."""
    generator = torch.Generator().manual_seed(number)
    last = max(1, frames - (FRAMES - 1) * STRIDE)
    starts = torch.randint(last, (CLIPS,), generator=generator).tolist()
    return [min(start + i * STRIDE, frames - 1) for start in starts for i in range(FRAMES)]


def read_all(manifest: Manifest, counts: list[int]) -> None:
    """One epoch: open, read the clips, close."""
    for number, sample in enumerate(manifest.samples):
        with VideoReader(sample.path, size=SIDE) as reader:
            reader.read(indices=clip_indices(counts[number], number))


def check(plain: Manifest, copied: Manifest, encoded: Manifest) -> dict[str, Any]:
    """Copied: equal bits. Encoded: equal frame counts and times; PSNR at the size that is read."""
    errors = []
    for number, (file, copy, new) in enumerate(zip(plain.samples, copied.samples, encoded.samples, strict=True)):
        with VideoReader(file.path) as a, VideoReader(copy.path) as b, VideoReader(new.path) as c:
            indices = clip_indices(a.frame_count, number)
            assert torch.equal(a.read(indices=indices).pixels_TCHW, b.read(indices=indices).pixels_TCHW), file.path
            assert a.frame_count == c.frame_count, file.path
            torch.testing.assert_close(a.seconds_T, c.seconds_T, atol=6e-6, rtol=0)
            size = (c.metadata.height, c.metadata.width)
            with VideoReader(file.path, size=size) as small:
                x, y = (r.read(indices=indices).pixels_TCHW.float() for r in (small, c))
            errors.append(float((x - y).square().mean()))
    psnr = [10 * torch.log10(torch.tensor(255**2 / error)).item() for error in errors]
    return {"copied_frames": "identical", "encoded_times": "identical", "encoded_psnr_db": round(min(psnr), 1)}


def race(ways: dict[str, Manifest], counts: list[int], rounds: int) -> dict[str, list[float]]:
    """CPU-seconds of this process for an epoch, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, manifest in ways.items():
            begin = time.process_time()
            read_all(manifest, counts)
            times[name].append(time.process_time() - begin)
    return times


def measure(source: Path, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Pack twice, check, race."""
    plain = read_manifest(source)
    begin = time.process_time()
    pack(plain, folder / "copied")
    copy_s = time.process_time() - begin
    begin = time.process_time()
    pack(plain, folder / "encoded", encoding=Encoding(SIDE, GOP))
    encode_s = time.process_time() - begin
    ways = {"files": plain, "copied": read_manifest(folder / "copied"), "encoded": read_manifest(folder / "encoded")}
    kept = [sample.id for sample in ways["encoded"].samples]
    assert kept == [sample.id for sample in plain.samples], "some files could not be packed"
    checked = check(*ways.values())
    counts = []
    for sample in plain.samples:
        with VideoReader(sample.path) as reader:
            counts.append(reader.frame_count)
    times = race(ways, counts, rounds)
    sizes = {"files": sum(sample.path.stat().st_size for sample in plain.samples)}
    sizes |= {name: sum(p.stat().st_size for p in (folder / name).glob("*.tar")) for name in ("copied", "encoded")}
    packing = {"files": 0.0, "copied": copy_s, "encoded": encode_s}
    first = statistics.median(times["files"])
    return [
        {
            "name": name,
            "videos": len(plain),
            "frames": sum(counts),
            "mbyte": round(sizes[name] / 1e6, 2),
            "packing_cpu_s": round(packing[name], 2),
            "epoch_cpu_s": round(statistics.median(taken), 4),
            "p25_s": round(statistics.quantiles(taken, n=4)[0], 4),
            "p75_s": round(statistics.quantiles(taken, n=4)[2], 4),
            "speed_up": round(first / statistics.median(taken), 2),
            **(checked if name == "encoded" else {}),
        }
        for name, taken in times.items()
    ]


def main() -> None:
    """Run and write the result file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", default="benchmarks/results/pack.json")
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, sizes in GENERATED.items():
            generate(Path(folder) / name, *sizes)
        for number, source in enumerate((*(Path(folder) / name for name in GENERATED), *arguments.data)):
            for row in measure(source, Path(folder) / f"packed{number}", arguments.rounds):
                rows.append({"data": source.name, **row})
                print(rows[-1], flush=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    result = {
        "what": f"{CLIPS} clips x {FRAMES} frames x stride {STRIDE}, short side {SIDE}: CPU-seconds of an epoch in one "
        "process, one thread",
        "command": f"python benchmarks/pack.py --rounds {arguments.rounds}"
        + "".join(f" --data {source.name}" for source in arguments.data[:1])
        + "".join(f" {source.name}" for source in arguments.data[1:]),
        "commit": commit.stdout.strip(),
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} {platform.machine()} cores (load {os.getloadavg()[1]:.1f}, other jobs included), "
        f"no GPU, torch {torch.__version__}, PyAV {av.__version__}",
        "rows": rows,
    }
    Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
