"""The worlds that exist, by name."""

from __future__ import annotations

from typing import Any

from wholereel.datasets.worlds.base import World
from wholereel.datasets.worlds.events8 import Events8
from wholereel.datasets.worlds.match8 import Match8
from wholereel.datasets.worlds.order2 import Order2
from wholereel.datasets.worlds.pair6 import Pair6
from wholereel.errors import ConfigError, closest

__all__ = ["WORLDS", "get_world"]

WORLDS: dict[str, type[World]] = {
    "events8": Events8,
    "match8": Match8,
    "pair6": Pair6,
    "order2": Order2,
}


def get_world(name: str, **options: Any) -> World:
    """World by name; `options` are its fields (`size`).

    Raises: ConfigError: there is no such world.
    """
    if name not in WORLDS:
        raise ConfigError(f"no world {name!r}.{closest(name, WORLDS)} There are: {', '.join(WORLDS)}.")
    return WORLDS[name](**options)
