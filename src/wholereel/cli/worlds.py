"""`wholereel worlds ...`: generated data sets with ceilings known in closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from wholereel.cli.text import table
from wholereel.errors import ConfigError

__all__ = ["ceilings", "list_worlds", "make", "verify"]

Name = Annotated[str, arg(metavar="WORLD")]


def list_worlds() -> int:
    """The worlds, with their number of classes and the standard sizes of their splits."""
    from wholereel.datasets.worlds import WORLDS

    rows = [
        (
            name,
            str(len(world.classes)),
            " ".join(f"{split}={size}" for split, size in world.std_sizes.items()),
            world.summary,
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
) -> int:
    """Generate a world: video files, manifest and a record of how it was made.

    Args:
        world: Name from `wholereel worlds list`.
        out: Folder to make.
        profile: A twentieth, one, or ten times the standard sizes.
        seed: Same seed, same files.
        sizes: Sizes of your own, e.g. --sizes train=400 val=100.
        workers: Processes.
    """
    from wholereel.datasets.worlds import make_world

    folder = make_world(world, out, profile=profile, seed=seed, sizes=_sizes(sizes), workers=workers)
    print(folder)
    return 0


def ceilings(world: Annotated[str | None, arg(metavar="WORLD")] = None, /) -> int:
    """Best possible accuracies: of one clip, of averaged clips, of the whole video; in closed form.

    Args:
        world: Only this one.
    """
    from wholereel.datasets.worlds import WORLDS, get_world

    names = list(WORLDS) if world is None else [world]
    values = {name: get_world(name).ceilings() for name in names}
    levels = list(dict.fromkeys(level for one in values.values() for level in one))
    rows = [(name, *(f"{one[level]:.4f}" if level in one else "-" for level in levels)) for name, one in values.items()]
    print(table(rows, head=("world", *levels)))
    return 0


def verify(folder: Annotated[Path, arg(metavar="DIR")], /) -> int:
    """Check a generated folder against its own record; exit code 1 where something differs.

    Args:
        folder: Made by `wholereel worlds make`.
    """
    from wholereel.datasets.worlds import verify_world

    problems = verify_world(folder)
    for problem in problems:
        print(problem)
    print(f"{folder}: {len(problems)} problems" if problems else f"{folder}: as it should be")
    return 1 if problems else 0


def _sizes(words: tuple[str, ...]) -> dict[str, int] | None:
    sizes = {}
    for word in words:
        split, _, number = word.partition("=")
        if not split or not number.isdecimal():
            raise ConfigError(f"--sizes {word}: expected SPLIT=N, e.g. train=400.")
        sizes[split] = int(number)
    return sizes or None
