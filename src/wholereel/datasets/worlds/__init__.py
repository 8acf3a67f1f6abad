"""Worlds: generated data sets of real video files whose ceilings are known in closed form.

A world is one file here and a line in `WORLDS`. `make_world` writes it, `verify_world` checks a folder,
`docs/worlds.md` proves the ceilings.
"""

from __future__ import annotations

from wholereel.datasets.worlds.base import Event, Scene, World, oracle_accuracies
from wholereel.datasets.worlds.make import make_world
from wholereel.datasets.worlds.table import WORLDS, get_world
from wholereel.datasets.worlds.verify import verify_world

__all__ = ["WORLDS", "Event", "Scene", "World", "get_world", "make_world", "oracle_accuracies", "verify_world"]
