"""Check a world's folder: is it what its description says, do the files show it, and do the ceilings hold?

Everything is drawn and painted again from the seed and compared with manifest and files, so an edited label, an
exchanged video, a wrong sound or a missing file is found. Extra letter: S samples of a wave.
"""

from __future__ import annotations

import filecmp
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np

from wholereel.datasets.mirror import MIRROR_FILE, Mirror, mirror_text
from wholereel.datasets.worlds.base import Recording, Scene, World, oracle_scores
from wholereel.datasets.worlds.make import (
    WorldFolder,
    class_names,
    file_path,
    manifest_row,
    read_world,
    write_recording,
)
from wholereel.errors import VideoError
from wholereel.media.frame_folder import open_frames
from wholereel.media.video_reader import VideoReader

__all__ = ["decode_sound", "describe_world", "dependent_groups", "oracle_problems", "verify_world"]

MEASURED_SCENES = 50
BLOCK = 8
# Smoke profile of all worlds: at most 10 after encoding. Another kind of glyph in events8: median 62, 5 % below 21.
LARGEST_DIFFERENCE = 20


def verify_world(directory: str | Path) -> list[str]:
    """Problems of a world's folder, in words; an empty list means that all is well.

    Checks: manifest, class names and official files equal what the seed gives; labels balanced exactly; every file
    there, none too many; every video has the right number, size and rate of frames and shows its scene, every picture
    is exact, every sound is exact to the sample; the oracles reach the ceilings; the codec carries nothing from one
    group of frames to another (one video).
    Raises: DataError: the folder has no readable description.
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
    problems += _export_problems(folder, described)
    return problems + _codec_problems(described)


def describe_world(directory: str | Path) -> list[str]:
    """What a world's folder is, in a few lines: the oracles beside the ceilings, and what the world measures itself."""
    described = read_world(directory)
    world, samples = described.world, described.world.oracle_samples
    ceilings = world.ceilings()
    lines = [
        f"oracle {level}: {score.value:.4f} +- {score.error:.4f} on {samples} scenes, ceiling {ceilings[level]:.4f}"
        for level, score in oracle_scores(world, samples=samples, seed=described.seed).items()
    ]
    scenes = list(itertools.islice(described.scenes(), MEASURED_SCENES))
    return lines + [f"{what}: {value:.4g}" for what, value in world.measurements(scenes).items()]


def oracle_problems(world: World[Any], *, seed: int = 0, samples: int | None = None) -> list[str]:
    """Ceilings that their oracle misses by more than four standard errors, on drawn scenes (no pixels)."""
    samples = world.oracle_samples if samples is None else samples
    ceilings = world.ceilings()
    return [
        f"oracle {level!r}: {score.value:.4f} on {samples} scenes, the ceiling is {ceilings[level]:.4f}"
        for level, score in oracle_scores(world, samples=samples, seed=seed).items()
        if abs(score.value - ceilings[level]) > 4 * score.error + 1e-12
    ]


def dependent_groups(world: World[Any], scene: Scene, *, changed: int) -> list[int]:
    """Groups of frames other than `changed` whose decoded pixels change when that one is inverted before encoding."""
    recording = world.record(scene)
    other_THWC = recording.frames_THWC.copy()
    part = slice(changed * world.group_frames, (changed + 1) * world.group_frames)
    other_THWC[part] = 255 - other_THWC[part]
    with tempfile.TemporaryDirectory() as directory:
        decoded = []
        for name, frames_THWC in (("plain.mp4", recording.frames_THWC), ("changed.mp4", other_THWC)):
            path = Path(directory) / name
            write_recording(path, world, Recording(frames_THWC, recording.wave_CS, recording.sample_rate))
            decoded.append(decode(path))
    differs_T = (decoded[0] != decoded[1]).any(axis=(1, 2, 3))
    groups = sorted(set((np.flatnonzero(differs_T) // world.group_frames).tolist()))
    return [group for group in groups if group != changed]


def decode(path: Path) -> np.ndarray:
    """All frames of a video, or the one of a picture. Returns: frames_THWC, uint8."""
    reader = open_frames(path)
    pixels_TCHW = reader.read(indices=range(reader.frame_count)).pixels_TCHW
    return np.asarray(pixels_TCHW.permute(0, 2, 3, 1).numpy())


def decode_sound(path: Path) -> tuple[np.ndarray, int] | None:
    """The stored sound, untouched. Returns: (pcm_CS int16, samples a second), or `None` without a sound track."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        blocks = [frame.to_ndarray() for frame in container.decode(stream)]
        pcm_1S = np.concatenate(blocks, axis=1) if blocks else np.zeros((1, 0), np.int16)
        # Interleaved, as FLAC is decoded: left, right, left, right, ...
        return pcm_1S.reshape(-1, stream.channels).T, stream.rate


def _description_problems(folder: Path, world: World[Any]) -> list[str]:
    path, expected = folder / "classes.json", class_names(world)
    if not path.exists():
        return ["classes.json: missing"]
    found = json.loads(path.read_text(encoding="utf-8"))
    problems = [] if found == expected else [f"classes.json: {found}, expected {expected}"]
    wanted = None if world.mirror() == Mirror() else mirror_text(world.mirror(), world.label_spaces())
    sides = folder / MIRROR_FILE
    if (sides.read_text(encoding="utf-8") if sides.exists() else None) != wanted:
        problems.append(f"{MIRROR_FILE}: {'is not what the world says' if sides.exists() else 'missing'}")
    return problems


def _balance_problems(described: WorldFolder, rows: list[dict[str, Any]]) -> list[str]:
    world = described.world
    if not (world.balanced and world.classes):
        return []
    classes = world.classes
    counts = Counter((row.get("split"), row.get("label")) for row in rows)
    return [
        f"manifest.jsonl: {counts[split, name]} samples of class {name!r} in {split!r}, expected {size // len(classes)}"
        for split, size in described.sizes.items()
        for name in classes
        if counts[split, name] != size // len(classes)
    ]


def _file_problems(folder: Path, rows: list[dict[str, Any]]) -> list[str]:
    listed = {str(row.get("path")) for row in rows}
    found = set(_files(folder, ("videos", "images")))
    return [f"{path}: not listed in the manifest" for path in sorted(found - listed)]


def _files(folder: Path, parts: Iterable[str]) -> list[str]:
    return [
        path.relative_to(folder).as_posix()
        for part in parts
        for path in sorted((folder / part).rglob("*"))
        if path.is_file()
    ]


def _sample_problems(folder: Path, described: WorldFolder, rows: list[dict[str, Any]]) -> list[str]:
    world = described.world
    problems = []
    for number, scene in enumerate(described.scenes()):
        recording = world.record(scene)
        if number < len(rows):
            # By way of text, as tuples become lists.
            expected = json.loads(json.dumps(manifest_row(world, scene, recording)))
            where = f"manifest.jsonl line {number + 1} ({scene.id})"
            problems += [f"{where}: {key!r} is not what the seed gives" for key in _differing(expected, rows[number])]
        path = file_path(world, scene)
        problem = _recording_problem(folder / path, world, recording)
        if problem:
            problems.append(f"{path}: {problem}")
    return problems


def _differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    return [key for key in sorted(a.keys() | b.keys()) if key not in a or key not in b or a[key] != b[key]]


def _recording_problem(path: Path, world: World[Any], expected: Recording) -> str:
    if not path.exists():
        return "missing"
    if not world.frame_rate:
        try:
            exact = np.array_equal(decode(path), expected.frames_THWC)
        except VideoError as error:
            return f"cannot be read ({error})"
        return "" if exact else "shows something else than its scene"
    try:
        rate = VideoReader(path).metadata.frame_rate
        decoded_THWC = decode(path)
    except VideoError as error:
        return f"cannot be read ({error})"
    painted_THWC = expected.frames_THWC
    if decoded_THWC.shape != painted_THWC.shape or float(rate) != world.frame_rate:
        return f"{decoded_THWC.shape} at {float(rate)} frames/s, expected {painted_THWC.shape} at {world.frame_rate}"
    difference = largest_difference(decoded_THWC, painted_THWC)
    if difference > LARGEST_DIFFERENCE:
        return (
            f"shows something else than its scene (somewhere by {difference:.0f} grey levels, the codec makes "
            f"{LARGEST_DIFFERENCE} at most)"
        )
    return _sound_problem(path, expected)


def largest_difference(a_THWC: np.ndarray, b_THWC: np.ndarray) -> float:
    """Largest absolute difference of means over blocks of 8 x 8 pixels, in any frame and colour, in grey levels.

    Means, because colours are stored at half resolution and noise is rounded by the codec.
    """
    _, height, width, _ = a_THWC.shape
    short = (-height % BLOCK, -width % BLOCK)
    difference_THWC = np.pad(a_THWC.astype(np.int16) - b_THWC, ((0, 0), (0, short[0]), (0, short[1]), (0, 0)))
    frames, rows, columns, _ = difference_THWC.shape
    blocks = difference_THWC.reshape(frames, rows // BLOCK, BLOCK, columns // BLOCK, BLOCK, 3)
    return float(np.abs(blocks.mean(axis=(2, 4), dtype=np.float32)).max())


def _sound_problem(path: Path, expected: Recording) -> str:
    sound, pcm_CS = decode_sound(path), expected.pcm_CS
    if sound is None or pcm_CS is None:
        return "" if sound is None and pcm_CS is None else f"{'no' if sound is None else 'a'} sound track is unexpected"
    found_CS, rate = sound
    if found_CS.shape != pcm_CS.shape or rate != expected.sample_rate:
        return f"sound of shape {found_CS.shape} at {rate} Hz, expected {pcm_CS.shape} at {expected.sample_rate} Hz"
    wrong = np.flatnonzero((found_CS != pcm_CS).any(axis=0))
    return f"sound differs from sample {wrong[0]} on" if len(wrong) else ""


def _export_problems(folder: Path, described: WorldFolder) -> list[str]:
    """Files below `official` that are not, byte for byte, what an export of the scenes gives."""
    with tempfile.TemporaryDirectory() as directory:
        again = Path(directory)
        described.world.export(again, described.scenes())
        expected, found = set(_files(again, ["official"])), set(_files(folder, ["official"]))
        problems = [f"{path}: missing" for path in sorted(expected - found)]
        problems += [f"{path}: not of this world" for path in sorted(found - expected)]
        problems += [
            f"{path}: is not what the seed gives"
            for path in sorted(expected & found)
            if not filecmp.cmp(again / path, folder / path, shallow=False)
        ]
    return problems


def _codec_problems(described: WorldFolder) -> list[str]:
    world = described.world
    if not described.places or not world.frame_rate:
        return []
    scene = next(described.scenes())
    changed = len(world.record(scene).frames_THWC) // world.group_frames // 2
    return [
        f"codec: changing group {changed} of frames changes decoded pixels of group {group}"
        for group in dependent_groups(world, scene, changed=changed)
    ]
