"""The worlds that exist, by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from wholereel.datasets.worlds.av_bounce import AvBounce
from wholereel.datasets.worlds.ava_rooms import AvaRooms
from wholereel.datasets.worlds.ava_rooms_clips import AvaRoomsClips
from wholereel.datasets.worlds.base import World
from wholereel.datasets.worlds.bounce_material import BounceMaterial
from wholereel.datasets.worlds.bounce_rhythm import BounceRhythm
from wholereel.datasets.worlds.cue_probe import CueProbe
from wholereel.datasets.worlds.cue_probe_clips import CueProbeClips
from wholereel.datasets.worlds.distinit_transfer import DistInitTransfer, StillsObjects, StillsScenes, UnlabelledMix
from wholereel.datasets.worlds.events8 import Events8
from wholereel.datasets.worlds.finemotion8 import FineMotion8
from wholereel.datasets.worlds.gblend4 import Gblend4
from wholereel.datasets.worlds.hashtags import Hashtags
from wholereel.datasets.worlds.kitchen import Kitchen
from wholereel.datasets.worlds.match8 import Match8
from wholereel.datasets.worlds.motion_objects import MotionObjects
from wholereel.datasets.worlds.multi_events import MultiEvents
from wholereel.datasets.worlds.order2 import Order2
from wholereel.datasets.worlds.pair6 import Pair6
from wholereel.datasets.worlds.sparse6 import Sparse6, Sparse6Clips
from wholereel.datasets.worlds.stick_actions import StickActions
from wholereel.datasets.worlds.sticks import Sticks
from wholereel.datasets.worlds.stills_clips import StillsClips, StillsClipsStills
from wholereel.errors import ConfigError, closest

__all__ = ["WORLDS", "get_world", "read_options"]

WORLDS: dict[str, type[World[Any]]] = {
    "events8": Events8,
    "match8": Match8,
    "pair6": Pair6,
    "order2": Order2,
    "cue_probe": CueProbe,
    "cue_probe_clips": CueProbeClips,
    "ava_rooms": AvaRooms,
    "ava_rooms_clips": AvaRoomsClips,
    "kitchen": Kitchen,
    "multi_events": MultiEvents,
    "sparse6": Sparse6,
    "sparse6_clips": Sparse6Clips,
    "av_bounce": AvBounce,
    "bounce_rhythm": BounceRhythm,
    "bounce_material": BounceMaterial,
    "gblend4": Gblend4,
    "finemotion8": FineMotion8,
    "sticks": Sticks,
    "stick_actions": StickActions,
    "stills_clips": StillsClips,
    "stills_clips_stills": StillsClipsStills,
    "motion_objects": MotionObjects,
    "distinit_transfer": DistInitTransfer,
    "stills_objects": StillsObjects,
    "stills_scenes": StillsScenes,
    "unlabelled_mix": UnlabelledMix,
    "hashtags": Hashtags,
}


def get_world(name: str, **options: Any) -> World[Any]:
    """World by name; `options` are its fields (`size` and the like).

    Raises: ConfigError: there is no such world, or it has no such option.
    """
    if name not in WORLDS:
        raise ConfigError(f"no world {name!r}.{closest(name, WORLDS)} There are: {', '.join(WORLDS)}.")
    known = [field.name for field in fields(WORLDS[name])]
    for option in options:
        if option not in known:
            raise ConfigError(f"world {name!r} has no option {option!r}; it has: {', '.join(known) or 'none'}")
    return WORLDS[name](**options)


def read_options(name: str, words: Iterable[str]) -> dict[str, Any]:
    """Options of a world from words NAME=VALUE, each of the type of its default.

    Raises: ConfigError: a word without `=`, an unknown option, a value of another type.
    """
    defaults = get_world(name).options
    options: dict[str, Any] = {}
    for word in words:
        option, _, value = word.partition("=")
        if option not in defaults or not value:
            known = ", ".join(defaults) or "no options"
            raise ConfigError(f"option {word!r} of world {name!r}: expected NAME=VALUE; it has {known}")
        options[option] = _value(word, value, defaults[option])
    return options


def _value(word: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise ConfigError(f"option {word!r}: expected true or false")
        return text == "true"
    try:
        return type(default)(text)
    except ValueError:
        raise ConfigError(f"option {word!r}: expected a value like {default!r}") from None
