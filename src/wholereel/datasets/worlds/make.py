"""Write a world to disk: video files, manifest, class names, description.

The result is a pure function of (name, profile or sizes, seed, canvas): the number of processes, interruptions and
the order of work leave no trace. A folder is complete when it has a `manifest.jsonl`, which is written last.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wholereel.datasets.worlds.base import SPLITS, Scene, World
from wholereel.datasets.worlds.glyphs import NAMES
from wholereel.datasets.worlds.table import get_world
from wholereel.errors import ConfigError, DataError
from wholereel.media.video_writer import write_video

__all__ = ["WorldFolder", "frames_hash", "make_world", "manifest_row", "read_world", "video_path"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class WorldFolder:
    """What `world.json` says, enough to make the folder again.

    Args:
        name, seed, size: the world, its root seed, its canvas in pixels.
        profile: as asked for; only the sizes matter.
        sizes: videos in each split.
        version: of the world's drawing rules.
    """

    name: str
    profile: str
    seed: int
    size: int
    sizes: Mapping[str, int]
    version: int

    @property
    def world(self) -> World:
        """The world object that draws this folder's scenes."""
        return get_world(self.name, size=self.size)

    @property
    def places(self) -> list[tuple[str, int]]:
        """(split, index) of every sample, in the manifest's order."""
        return [(split, index) for split in SPLITS for index in range(self.sizes[split])]


def make_world(
    name: str,
    out: str | Path,
    *,
    profile: str = "std",
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    workers: int = 1,
    size: int = 64,
    progress: Progress | None = None,
) -> Path:
    """Make a world's folder, or finish one that was interrupted; a complete one is left as it is.

    Args:
        name: key of `WORLDS`.
        out: folder to fill; other files in it are not touched.
        profile: `smoke`, `std` or `full`.
        seed: root seed, >= 0.
        sizes: videos of some splits, instead of the profile's; multiples of the number of classes, 0 leaves one out.
        workers: processes; more than one needs the usual `if __name__ == "__main__":` in the calling script.
        size: side of the canvas in pixels.
        progress: called as `progress(done, total)` after each video.
    Returns: the folder: `videos/`, `manifest.jsonl`, `classes.json`, `world.json`.
    Raises:
        ConfigError: unknown name or profile, sizes that cannot be balanced.
        DataError: the folder holds a world made with other settings.
    """
    world = get_world(name, size=size)
    if seed < 0 or workers < 1:
        raise ConfigError(f"seed must be >= 0 and workers >= 1, got seed {seed} and workers {workers}")
    wanted = WorldFolder(name, profile, seed, size, _sizes(world, profile, sizes), world.version)
    folder = Path(out)
    _claim(folder, wanted)
    if _is_complete(folder, wanted):
        return folder
    partial_dir = folder / ".partial"
    partial_dir.mkdir(exist_ok=True)
    write_json(folder / "classes.json", list(world.classes))
    rows = []
    for row in _make_rows(wanted, folder, workers):
        rows.append(row)
        if progress is not None:
            progress(len(rows), len(wanted.places))
    write_text(folder / "manifest.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    shutil.rmtree(partial_dir)
    return folder


def read_world(directory: str | Path) -> WorldFolder:
    """The description in a world's folder.

    Raises: DataError: there is none, or it cannot be understood.
    """
    path = Path(directory) / "world.json"
    expected = "a world's description as written by make_world"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return WorldFolder(**{key: content[key] for key in WorldFolder.__dataclass_fields__})
    except FileNotFoundError:
        raise DataError(path, "no such file", expected, "Is this the folder of a world?") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            path, f"not understood ({error})", expected, "Make the world again in an empty folder."
        ) from None


def manifest_row(world: World, scene: Scene, frames_THWC: np.ndarray) -> dict[str, Any]:
    """One line of the manifest: everything that is true about a video, times in seconds."""
    rate = world.frame_rate
    events = [
        asdict(event)
        | {
            "name": NAMES[event.kind],
            "color": list(event.color),
            "seconds": [event.start / rate, (event.start + event.frames) / rate],
        }
        for event in scene.events
    ]
    return {
        "id": scene.id,
        "path": video_path(scene),
        "start": None,
        "end": None,
        "split": scene.split,
        "label": world.classes[scene.label],
        "meta": {"sha256": frames_hash(frames_THWC), "events": events},
    }


def video_path(scene: Scene) -> str:
    """Path of a scene's file inside the folder."""
    return f"videos/{scene.id}.mp4"


def frames_hash(frames_THWC: np.ndarray) -> str:
    """sha256 of the raw pixels before encoding."""
    return hashlib.sha256(np.ascontiguousarray(frames_THWC).data).hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file at once or not at all."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file at once or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _sizes(world: World, profile: str, sizes: Mapping[str, int] | None) -> dict[str, int]:
    result = world.sizes(profile)
    classes = len(world.classes)
    for split, count in (sizes or {}).items():
        if split not in SPLITS:
            raise ConfigError(f"sizes: unknown split {split!r}; choose among {', '.join(SPLITS)}")
        if count < 0 or count % classes:
            low = max(0, count // classes * classes)
            raise ConfigError(
                f"sizes: {split}={count} videos cannot be balanced over the {classes} classes of {world.name!r}; "
                f"use a multiple of {classes}, e.g. {low} or {low + classes}"
            )
        result[split] = count
    return result


def _claim(folder: Path, wanted: WorldFolder) -> None:
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    if not (folder / "world.json").exists():
        write_json(folder / "world.json", asdict(wanted) | {"ceilings": wanted.world.ceilings()})
        return
    found = read_world(folder)
    # The profile's name is not compared: equal sizes make equal folders.
    if (found.name, found.seed, found.size, found.sizes, found.version) != (
        wanted.name,
        wanted.seed,
        wanted.size,
        wanted.sizes,
        wanted.version,
    ):
        raise DataError(
            folder,
            f"holds a world made as {asdict(found)}",
            f"nothing, or {asdict(wanted)}",
            "Choose another folder, or delete this one.",
        )


def _is_complete(folder: Path, wanted: WorldFolder) -> bool:
    if not (folder / "manifest.jsonl").exists():
        return False
    world = wanted.world
    return all((folder / video_path(world.sample(wanted.seed, *place))).exists() for place in wanted.places)


def _make_rows(wanted: WorldFolder, folder: Path, workers: int) -> Iterator[dict[str, Any]]:
    make_one = partial(_make_one, wanted, folder)
    if workers == 1:
        yield from map(make_one, wanted.places)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        yield from pool.map(make_one, wanted.places, chunksize=8)


def _make_one(wanted: WorldFolder, folder: Path, place: tuple[str, int]) -> dict[str, Any]:
    world = wanted.world
    scene = world.sample(wanted.seed, *place)
    frames_THWC = world.render(scene)
    path = folder / video_path(scene)
    # A file under its final name is complete: it is moved there after it was closed.
    if not path.exists():
        unfinished = folder / ".partial" / path.name
        write_video(unfinished, frames_THWC, frame_rate=world.frame_rate, gop=world.segment_frames)
        os.replace(unfinished, path)
    return manifest_row(world, scene, frames_THWC)


def _end_with_parent() -> None:
    """Make a worker leave when the main process was killed; it would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
