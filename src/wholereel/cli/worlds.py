"""`wholereel worlds ...`: generated data sets whose ceilings are known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from wholereel.cli.text import table
from wholereel.errors import ConfigError

__all__ = ["ceilings", "list_worlds", "make", "picture", "verify"]

Name = Annotated[str, arg(metavar="WORLD")]
Options = Annotated[tuple[str, ...], arg(metavar="NAME=VALUE")]


def list_worlds() -> int:
    """The worlds: number of classes, standard sizes of the splits, and the worlds that go with them."""
    from wholereel.datasets.worlds import WORLDS

    rows = [
        (
            name,
            str(len(world.classes) or "-"),
            " ".join(f"{split}={size}" for split, size in world.std_sizes.items()),
            world.summary + (f" [with {', '.join(world.companions)}]" if world.companions else ""),
        )
        for name, world in WORLDS.items()
    ]
    print(table(rows, head=("world", "classes", "standard size", "")))
    return 0


def make(
    world: Name,
    out: Annotated[Path, arg(metavar="DIR")],
    /,
    profile: Literal["smoke", "std", "full"] = "std",
    seed: int = 0,
    sizes: Annotated[tuple[str, ...], arg(metavar="SPLIT=N")] = (),
    workers: int = 1,
    options: Options = (),
) -> int:
    """Generate a world: files, manifest and a record of how it was made.

    Args:
        world: Name from `wholereel worlds list`, or `all`: each in its own folder of DIR.
        out: Folder to make.
        profile: A twentieth, one, or ten times the standard sizes.
        seed: Same seed, same files.
        sizes: Sizes of your own, e.g. --sizes train=400 val=100.
        workers: Processes.
        options: Options of the world, e.g. --options size=112.
    """
    from wholereel.datasets.worlds import WORLDS, make_world, read_options, worker_pool

    if world == "all" and (sizes or options):
        raise ConfigError("--sizes and --options belong to one world; make it by its name")
    if workers < 1:
        raise ConfigError(f"--workers {workers}: expected 1 or more")
    with worker_pool(workers) as pool:
        for name in WORLDS if world == "all" else [world]:
            folder = make_world(
                name,
                out / name if world == "all" else out,
                profile=profile,
                seed=seed,
                sizes=_sizes(sizes),
                options=read_options(name, options),
                pool=pool,
            )
            print(folder, flush=True)
    return 0


def ceilings(world: Annotated[str | None, arg(metavar="WORLD")] = None, /, options: Options = ()) -> int:
    """Best possible scores: of one clip, of averaged clips, of the whole video, and what else a world tells apart.

    Args:
        world: Only this one.
        options: Options of the world, e.g. --options label_noise=0.1.
    """
    from wholereel.datasets.worlds import WORLDS, get_world, read_options

    if world is None and options:
        raise ConfigError("--options belongs to one world; name it")
    rows = [
        (name, level, f"{value:.4f}")
        for name in (WORLDS if world is None else [world])
        for level, value in get_world(name, **read_options(name, options)).ceilings().items()
    ]
    print(table(rows, head=("world", "level", "ceiling")))
    return 0


def verify(folder: Annotated[Path, arg(metavar="DIR")], /) -> int:
    """Check a generated folder against its own record; exit code 1 where something differs.

    Args:
        folder: Made by `wholereel worlds make`.
    """
    from wholereel.datasets.worlds import describe_world, verify_world

    problems = verify_world(folder)
    for line in (*describe_world(folder), *problems):
        print(line)
    print(f"{folder}: {len(problems)} problems" if problems else f"{folder}: as it should be")
    return 1 if problems else 0


def picture(world: Name, out: Annotated[Path, arg(metavar="FILE.png")], /, seed: int = 0, options: Options = ()) -> int:
    """Draw frames of a few scenes of a world, and their sound as spectrograms.

    Args:
        world: Name from `wholereel worlds list`.
        out: PNG file to write.
        seed: Of the world.
        options: Options of the world, e.g. --options motion=fast.
    """
    from wholereel.datasets.worlds import draw_world, get_world, read_options

    draw_world(get_world(world, **read_options(world, options)), out, seed=seed)
    print(out)
    return 0


def _sizes(words: tuple[str, ...]) -> dict[str, int] | None:
    sizes = {}
    for word in words:
        split, _, number = word.partition("=")
        if not split or not number.isdecimal():
            raise ConfigError(f"--sizes {word}: expected SPLIT=N, e.g. train=400.")
        sizes[split] = int(number)
    return sizes or None
