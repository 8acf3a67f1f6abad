"""Our reader beside TorchCodec (exact mode), frame by frame and time by time, bit for bit.

    python -m tests.media.torchcodec_parity

Files of a constant rate, of a variable rate, and with a first time stamp that is not zero, each with and without
B-frames. TorchCodec needs FFmpeg's shared libraries; it is offered those that come with PyAV, so that both run one
decoder, which takes a new process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
import torch

from tests.media.nasty_files import encode, moving
from wholereel.media import VideoReader

MARK = "TORCHCODEC_PARITY_LIBRARIES"
B_FRAMES = {"x264-params": "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-pyramid=normal"}


def made(folder: Path) -> list[Path]:
    """The three kinds of files, twice."""
    frames = moving()
    steps = np.random.default_rng(1).integers(1, 6, len(frames))
    times = {
        "constant": None,
        "variable": np.cumsum(steps).tolist(),
        "late_start": list(range(500, 500 + len(frames))),
        "variable_late": (np.cumsum(steps) + 37).tolist(),
    }
    return [
        encode(folder / f"{name}{'_b' if options else ''}.mp4", frames, times=stamps, options=options)
        for name, stamps in times.items()
        for options in (None, B_FRAMES)
    ]


def differences(path: Path) -> list[str]:
    """What TorchCodec and we see differently, in words."""
    from torchcodec.decoders import VideoDecoder

    theirs = VideoDecoder(str(path), seek_mode="exact", num_ffmpeg_threads=1)
    found = []
    with VideoReader(path) as ours:
        if ours.frame_count != len(theirs):
            return [f"{ours.frame_count} frames, TorchCodec {len(theirs)}"]
        every = theirs.get_frames_in_range(0, len(theirs))
        first = float(every.pts_seconds[0])
        apart = (ours.seconds_T - (every.pts_seconds - first)).abs().max()
        if apart > 1e-6:
            found.append(f"times differ by up to {float(apart):.6f} s")
        if not torch.equal(ours.read(indices=range(len(theirs))).pixels_TCHW, every.data):
            found.append("pixels of frames by number differ")
        # Between two frames the earlier one is shown: a third of the way is far from both.
        seconds_T = ours.seconds_T
        middles = (seconds_T[:-1] + (seconds_T[1:] - seconds_T[:-1]) / 3)[torch.randperm(len(theirs) - 1)[:40]]
        shown = theirs.get_frames_played_at((middles + first).tolist())
        read = ours.read(seconds=middles)
        if not torch.equal(read.pixels_TCHW, shown.data):
            found.append("pixels of frames by time differ")
        if (read.seconds_T - (shown.pts_seconds - first)).abs().max() > 1e-6:
            found.append("other frames at the same time")
    return found


def with_libraries() -> int:
    """Run this module in a process whose loader finds PyAV's FFmpeg libraries under their plain names."""
    shipped = Path(av.__file__).parent.parent / "av.libs"
    with tempfile.TemporaryDirectory() as folder:
        for library in shipped.iterdir() if shipped.is_dir() else ():
            name, _, version = library.name.partition(".so.")
            if name.startswith(("libav", "libsw")):
                (Path(folder) / f"{name.rsplit('-', 1)[0]}.so.{version.split('.')[0]}").symlink_to(library)
        path = os.pathsep.join([folder, str(shipped), os.environ.get("LD_LIBRARY_PATH", "")])
        environment = {**os.environ, MARK: folder, "LD_LIBRARY_PATH": path}
        return subprocess.run([sys.executable, "-m", "tests.media.torchcodec_parity"], env=environment).returncode


def main() -> int:
    if MARK not in os.environ:
        return with_libraries()
    torch.manual_seed(0)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        files = made(Path(folder))
        for path in files:
            found = differences(path)
            wrong += bool(found)
            print(f"{path.name}: {'; '.join(found) or 'the same'}", flush=True)
    print(f"{len(files)} files, {wrong} differ")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
