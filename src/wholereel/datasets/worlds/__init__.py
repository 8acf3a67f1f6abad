"""Worlds: generated data sets of real files whose ceilings are known.

A world is one file here and a line in `WORLDS`. `make_world` writes it, `verify_world` checks a folder, the pages of
`docs/worlds/` prove the ceilings.
"""

from __future__ import annotations

from wholereel.datasets.worlds.base import Recording, Scene, World, oracle_scores
from wholereel.datasets.worlds.make import make_world, worker_pool
from wholereel.datasets.worlds.picture import draw_world
from wholereel.datasets.worlds.table import WORLDS, get_world, read_options
from wholereel.datasets.worlds.verify import describe_world, verify_world

__all__ = [
    "WORLDS",
    "Recording",
    "Scene",
    "World",
    "describe_world",
    "draw_world",
    "get_world",
    "make_world",
    "oracle_scores",
    "read_options",
    "verify_world",
    "worker_pool",
]
