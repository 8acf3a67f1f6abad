"""Small data sets for tests: healthy videos, and files that are broken in each of the usual ways."""

import os
from pathlib import Path

import numpy as np

from wholereel.media.video_writer import write_video

# What is said about each file of `broken_files`.
REASONS = {
    "missing.mp4": "no such file",
    "empty.mp4": "is empty (0 bytes)",
    "text.mp4": "cannot be opened as a video",
    "sound.mp4": "no video stream",
    "cut_header.mp4": "cannot be opened as a video",
}


def video(path: Path, seed: int, frames: int = 24, height: int = 32, width: int = 40) -> None:
    """A video of drifting stripes; no two frames, and no two seeds, look alike."""
    rows, columns = np.arange(height)[:, None, None], np.arange(width)[None, :, None]
    times = np.arange(frames)[:, None, None, None]
    pixels = (rows * (3 + seed) + columns * 5 + times * 7 + np.array([0, 60, 120]) + 31 * seed) % 256
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, pixels.astype(np.uint8), frame_rate=12, gop=6)


def sound_only(path: Path) -> None:
    """A second of a tone, in a file named like a video."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        wave = np.sin(np.arange(16000) / 20).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def broken_files(folder: Path) -> list[str]:
    """Write one file of each kind (the missing one excepted); returns the names."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("<html>403 Forbidden</html>\n" * 20)
    sound_only(folder / "sound.mp4")
    video(folder / "whole.mp4", 99)
    data = (folder / "whole.mp4").read_bytes()
    (folder / "cut_header.mp4").write_bytes(data[: len(data) // 3])  # the index stands at the end and is gone
    os.remove(folder / "whole.mp4")
    return list(REASONS)


def truncated_video(path: Path) -> None:
    """A video (`.avi`) whose header promises 60 frames while the last third of the file is gone."""
    video(path, 7, frames=60)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def data_set(root: Path, healthy: int = 12, split: str = "train") -> None:
    """Healthy videos of three classes in a table."""
    lines = ["path,label,split"]
    for number in range(healthy):
        name = f"videos/{split}_{number:02d}.mp4"
        video(root / name, number)
        lines.append(f"{name},{('jump', 'run', 'walk')[number % 3]},{split}")
    (root / "annotations.csv").write_text("\n".join(lines) + "\n")


def add_broken(root: Path, split: str = "train") -> list[str]:
    """Add one broken file of each kind to the table of `data_set`; returns the names."""
    names = [f"videos/{name}" for name in broken_files(root / "videos")]
    with (root / "annotations.csv").open("a") as file:
        file.writelines(f"{name},run,{split}\n" for name in names)
    return names
