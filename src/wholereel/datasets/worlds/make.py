"""Write a world to disk: videos or pictures, manifest, class names, description, and official annotation files.

The result is a pure function of (name, profile or sizes, seed, options): the number of processes, interruptions and
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
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wholereel.datasets.atomic_files import write_text_file
from wholereel.datasets.mirror import MIRROR_FILE, Mirror, mirror_text
from wholereel.datasets.worlds.base import Recording, Scene, World
from wholereel.datasets.worlds.table import get_world
from wholereel.errors import ConfigError, DataError
from wholereel.media.video_writer import write_video

__all__ = [
    "WorldFolder",
    "array_hash",
    "file_path",
    "make_world",
    "manifest_row",
    "read_world",
    "worker_pool",
    "write_recording",
]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class WorldFolder:
    """What `world.json` says, enough to make the folder again.

    Args:
        name, seed: the world and its root seed.
        profile: as asked for; only the sizes matter.
        options: fields of the world (its canvas and the like).
        sizes: samples in each split.
        version: of the world's drawing rules.
    """

    name: str
    profile: str
    seed: int
    options: Mapping[str, Any]
    sizes: Mapping[str, int]
    version: int

    @property
    def world(self) -> World[Any]:
        """The world object that draws this folder's scenes."""
        return get_world(self.name, **self.options)

    @property
    def places(self) -> list[tuple[str, int]]:
        """(split, index) of every sample, in the manifest's order."""
        return [(split, index) for split, count in self.sizes.items() for index in range(count)]

    def scenes(self) -> Iterator[Any]:
        """Every scene, in the manifest's order."""
        world = self.world
        return (world.sample(self.seed, *place) for place in self.places)

    def record(self) -> dict[str, Any]:
        """As in `world.json`: the options stand beside the other keys."""
        return {
            "name": self.name,
            "profile": self.profile,
            "seed": self.seed,
            **self.options,
            "sizes": dict(self.sizes),
            "version": self.version,
        }


def make_world(
    name: str,
    out: str | Path,
    *,
    profile: str = "std",
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    workers: int = 1,
    options: Mapping[str, Any] | None = None,
    pool: Executor | None = None,
    progress: Progress | None = None,
) -> Path:
    """Make a world's folder, or finish one that was interrupted; a complete one is left as it is.

    Args:
        name: key of `WORLDS`.
        out: folder to fill; other files in it are not touched.
        profile: `smoke`, `std` or `full`.
        seed: root seed, >= 0.
        sizes: samples of some splits, instead of the profile's; multiples of the world's `block`, 0 leaves one out.
        workers: processes; more than one needs the usual `if __name__ == "__main__":` in the calling script.
        options: fields of the world, such as `{"size": 112}`.
        pool: of `worker_pool`, instead of `workers` new processes: for several worlds one after another.
        progress: called as `progress(done, total)` after each sample.
    Returns: the folder: `videos/` or `images/`, `manifest.jsonl`, `classes.json`, `world.json`; where left and right
        matter `mirror.json`; in worlds that export one, the folder `official`.
    Raises:
        ConfigError: unknown name, profile or option, sizes that cannot be balanced.
        DataError: the folder holds a world made with other settings.
    """
    world = get_world(name, **(options or {}))
    if seed < 0 or workers < 1:
        raise ConfigError(f"seed must be >= 0 and workers >= 1, got seed {seed} and workers {workers}")
    wanted = WorldFolder(name, profile, seed, world.options, _sizes(world, profile, sizes), world.version)
    folder = Path(out)
    _claim(folder, wanted)
    if _is_complete(folder, wanted):
        return folder
    partial_dir = folder / ".partial"
    partial_dir.mkdir(exist_ok=True)
    write_text_file(folder / "classes.json", as_text(class_names(world)))
    if world.mirror() != Mirror():
        write_text_file(folder / MIRROR_FILE, mirror_text(world.mirror(), world.label_spaces()))
    rows = []
    with nullcontext(pool) if pool is not None else worker_pool(workers) as helpers:
        for row in _make_rows(wanted, folder, helpers):
            rows.append(row)
            if progress is not None:
                progress(len(rows), len(wanted.places))
    # A broken export of an earlier, interrupted call must not stay.
    shutil.rmtree(folder / "official", ignore_errors=True)
    world.export(folder, wanted.scenes())
    write_text_file(folder / "manifest.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
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
        fixed = {key: content.pop(key) for key in ("name", "profile", "seed", "sizes", "version")}
        content.pop("ceilings")
        return WorldFolder(**fixed, options=content)
    except FileNotFoundError:
        raise DataError(path, "no such file", expected, "Is this the folder of a world?") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            path, f"not understood ({error})", expected, "Make the world again in an empty folder."
        ) from None


def manifest_row(world: World[Any], scene: Scene, recording: Recording) -> dict[str, Any]:
    """One line of the manifest: everything that is true about a sample, times in seconds."""
    truth = world.truth(scene)
    hashes = {"sha256": array_hash(recording.frames_THWC)}
    if recording.pcm_CS is not None:
        hashes |= {"pcm_sha256": array_hash(recording.pcm_CS)}
    place = {"id": scene.id, "path": file_path(world, scene), "start": None, "end": None, "split": scene.split}
    rest = {key: value for key, value in truth.items() if key != "meta"}
    return place | rest | {"meta": hashes | truth.get("meta", {})}


def file_path(world: World[Any], scene: Scene) -> str:
    """Path of a scene's file inside the folder."""
    return f"videos/{scene.id}.mp4" if world.frame_rate else f"images/{scene.id}.png"


def array_hash(array: np.ndarray) -> str:
    """sha256 of raw pixels, or of int16 samples, before encoding."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def class_names(world: World[Any]) -> list[str] | dict[str, list[str]]:
    """The content of `classes.json`: a list where there is no label column beside `label`."""
    spaces = {name: list(classes) for name, classes in world.label_spaces().items()}
    return spaces.get("label", []) if spaces.keys() <= {"label"} else spaces


def write_recording(path: Path, world: World[Any], recording: Recording) -> None:
    """Encode a recording such that groups of frames share nothing (`media/video_writer.py`); stills as PNG."""
    if not world.frame_rate:
        Image.fromarray(recording.frames_THWC[0]).save(path, format="png")
        return
    pcm_CS = recording.pcm_CS
    write_video(
        path,
        recording.frames_THWC,
        frame_rate=world.frame_rate,
        gop=world.group_frames,
        audio=None if pcm_CS is None else (pcm_CS, recording.sample_rate),
    )


def as_text(content: Any) -> str:
    """JSON with a line for each item."""
    return json.dumps(content, indent=1) + "\n"


def _sizes(world: World[Any], profile: str, sizes: Mapping[str, int] | None) -> dict[str, int]:
    result = world.sizes(profile)
    block = world.block
    for split, count in (sizes or {}).items():
        if split not in result:
            raise ConfigError(f"sizes: unknown split {split!r}; choose among {', '.join(result)}")
        if count < 0:
            raise ConfigError(f"sizes: {split}={count}, expected a number of samples, 0 or more")
        if count % block:
            low = count // block * block
            raise ConfigError(
                f"sizes: {split}={count} samples cannot be balanced over the {block} classes of {world.name!r}; "
                f"use a multiple of {block}, e.g. {low} or {low + block}"
            )
        result[split] = count
    return result


def _claim(folder: Path, wanted: WorldFolder) -> None:
    (folder / ("videos" if wanted.world.frame_rate else "images")).mkdir(parents=True, exist_ok=True)
    if not (folder / "world.json").exists():
        write_text_file(folder / "world.json", as_text(wanted.record() | {"ceilings": wanted.world.ceilings()}))
        return
    found = read_world(folder)
    # The profile's name is not compared: equal sizes make equal folders.
    if replace(found, profile=wanted.profile) != wanted:
        raise DataError(
            folder,
            f"holds a world made as {found.record()}",
            f"nothing, or {wanted.record()}",
            "Choose another folder, or delete this one.",
        )


def _is_complete(folder: Path, wanted: WorldFolder) -> bool:
    if not (folder / "manifest.jsonl").exists():
        return False
    world = wanted.world
    return all((folder / file_path(world, scene)).exists() for scene in wanted.scenes())


@contextmanager
def worker_pool(workers: int) -> Iterator[Executor | None]:
    """Processes that make samples, to be handed to `make_world`; `None` (this process) for one worker."""
    if workers == 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        yield pool


def _make_rows(wanted: WorldFolder, folder: Path, pool: Executor | None) -> Iterator[dict[str, Any]]:
    make_one = partial(_make_one, wanted, folder)
    if pool is None:
        return map(make_one, wanted.places)
    return pool.map(make_one, wanted.places, chunksize=8)


def _make_one(wanted: WorldFolder, folder: Path, place: tuple[str, int]) -> dict[str, Any]:
    world = wanted.world
    scene = world.sample(wanted.seed, *place)
    recording = world.record(scene)
    path = folder / file_path(world, scene)
    # A file under its final name is complete: it is moved there after it was closed.
    if not path.exists():
        unfinished = folder / ".partial" / path.name
        write_recording(unfinished, world, recording)
        os.replace(unfinished, path)
    return manifest_row(world, scene, recording)


def _end_with_parent() -> None:
    """Make a worker leave when the main process was killed; it would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
