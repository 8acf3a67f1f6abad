"""Check a world's folder: is it what its description says, do the files show it, and do the ceilings hold?

Everything is drawn and painted again from the seed and compared with manifest and files, so an edited label, an
exchanged video or a missing file is found.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from wholereel.datasets.worlds.base import Scene, World, oracle_accuracies
from wholereel.datasets.worlds.make import WorldFolder, manifest_row, read_world, video_path
from wholereel.errors import VideoError
from wholereel.media.video_reader import VideoReader
from wholereel.media.video_writer import write_video

__all__ = ["dependent_segments", "oracle_problems", "verify_world"]

# Mean absolute difference, in grey levels, between painted and decoded frames: 3.6 to 3.8 after encoding (the colours
# of the noise are stored at half resolution); 20 and more for the video of another scene.
LARGEST_DIFFERENCE = 6.0
ORACLE_SAMPLES = 1000


def verify_world(directory: str | Path) -> list[str]:
    """Problems of a world's folder, in words; an empty list means that all is well.

    Checks: manifest and class names equal what the seed gives; labels balanced exactly; every file there, none too
    many; every video has the right number, size and rate of frames and shows its scene; the oracles reach the
    ceilings; the codec carries nothing from one segment to another (one video).

    Raises: DataError: no folder of a world.
    """
    folder = Path(directory)
    described = read_world(folder)
    world = described.world
    if described.version != world.version:
        return [f"world.json: made by version {described.version} of {world.name!r}, this is version {world.version}"]
    if not (folder / "manifest.jsonl").exists():
        return ["manifest.jsonl: missing (making this world was interrupted; run it again)"]
    problems = [*_description_problems(folder, world), *oracle_problems(world, seed=described.seed)]
    try:
        lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
    except ValueError as error:
        return [*problems, f"manifest.jsonl: not JSON lines ({error})"]
    if len(rows) != len(described.places):
        problems.append(f"manifest.jsonl: {len(rows)} rows, world.json promises {len(described.places)}")
    problems += _balance_problems(described, rows)
    problems += _file_problems(folder, rows)
    problems += _sample_problems(folder, described, rows)
    if described.places:
        scene, changed = world.sample(described.seed, *described.places[0]), world.segments // 2
        problems += [
            f"codec: changing segment {changed} changes decoded pixels of segment {segment}"
            for segment in dependent_segments(world, scene, changed=changed)
        ]
    return problems


def oracle_problems(world: World, *, seed: int = 0, samples: int = ORACLE_SAMPLES) -> list[str]:
    """Ceilings that their oracle misses by more than four standard errors, on drawn scenes (no pixels)."""
    problems = []
    measured = oracle_accuracies(world, samples=samples, seed=seed)
    for level, ceiling in world.ceilings().items():
        if abs(measured[level] - ceiling) > 4 * (ceiling * (1 - ceiling) / samples) ** 0.5 + 1e-12:
            problems.append(
                f"oracle {level!r}: {measured[level]:.4f} on {samples} scenes, the ceiling is {ceiling:.4f}"
            )
    return problems


def dependent_segments(world: World, scene: Scene, *, changed: int) -> list[int]:
    """Segments other than `changed` whose decoded pixels change when that one is inverted before encoding."""
    frames_THWC = world.render(scene)
    other_THWC = frames_THWC.copy()
    part = slice(changed * world.segment_frames, (changed + 1) * world.segment_frames)
    other_THWC[part] = 255 - other_THWC[part]
    with tempfile.TemporaryDirectory() as directory:
        decoded = []
        for name, pixels_THWC in (("plain.mp4", frames_THWC), ("changed.mp4", other_THWC)):
            path = Path(directory) / name
            write_video(path, pixels_THWC, frame_rate=world.frame_rate, gop=world.segment_frames)
            decoded.append(decode(path))
    differs_T = (decoded[0] != decoded[1]).any(axis=(1, 2, 3))
    differs_segment = differs_T.reshape(world.segments, world.segment_frames).any(axis=1)
    return [int(segment) for segment in np.flatnonzero(differs_segment) if segment != changed]


def decode(path: Path) -> np.ndarray:
    """All frames of a video. Returns: frames_THWC, uint8."""
    reader = VideoReader(path)
    pixels_TCHW = reader.read(indices=range(reader.frame_count)).pixels_TCHW
    return np.asarray(pixels_TCHW.permute(0, 2, 3, 1).numpy())


def _description_problems(folder: Path, world: World) -> list[str]:
    path = folder / "classes.json"
    if not path.exists():
        return ["classes.json: missing"]
    found = json.loads(path.read_text(encoding="utf-8"))
    return [] if found == list(world.classes) else [f"classes.json: {found}, expected {list(world.classes)}"]


def _balance_problems(described: WorldFolder, rows: list[dict[str, Any]]) -> list[str]:
    classes = described.world.classes
    counts = Counter((row.get("split"), row.get("label")) for row in rows)
    return [
        f"manifest.jsonl: {counts[split, name]} videos of class {name!r} in {split!r}, expected {size // len(classes)}"
        for split, size in described.sizes.items()
        for name in classes
        if counts[split, name] != size // len(classes)
    ]


def _file_problems(folder: Path, rows: list[dict[str, Any]]) -> list[str]:
    listed = {str(row.get("path")) for row in rows}
    found = {f"videos/{path.name}" for path in (folder / "videos").iterdir()} if (folder / "videos").is_dir() else set()
    return [f"{path}: not listed in the manifest" for path in sorted(found - listed)]


def _sample_problems(folder: Path, described: WorldFolder, rows: list[dict[str, Any]]) -> list[str]:
    world = described.world
    problems = []
    for number, place in enumerate(described.places):
        scene = world.sample(described.seed, *place)
        frames_THWC = world.render(scene)
        if number < len(rows):
            expected = manifest_row(world, scene, frames_THWC)
            where = f"manifest.jsonl line {number + 1} ({scene.id})"
            problems += [f"{where}: {key!r} is not what the seed gives" for key in _differing(expected, rows[number])]
        problem = _video_problem(folder / video_path(scene), world, frames_THWC)
        if problem:
            problems.append(f"{video_path(scene)}: {problem}")
    return problems


def _differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    return [key for key in sorted(a.keys() | b.keys()) if key not in a or key not in b or a[key] != b[key]]


def _video_problem(path: Path, world: World, expected_THWC: np.ndarray) -> str:
    if not path.exists():
        return "missing"
    try:
        rate = VideoReader(path).metadata.frame_rate
        decoded_THWC = decode(path)
    except VideoError as error:
        return f"cannot be read ({error})"
    if decoded_THWC.shape != expected_THWC.shape or float(rate) != world.frame_rate:
        return f"{decoded_THWC.shape} at {float(rate)} frames/s, expected {expected_THWC.shape} at {world.frame_rate}"
    difference = np.abs(decoded_THWC.astype(np.int16) - expected_THWC).mean()
    if difference > LARGEST_DIFFERENCE:
        return f"shows something else than its scene (mean difference {difference:.1f}, at most {LARGEST_DIFFERENCE})"
    return ""
