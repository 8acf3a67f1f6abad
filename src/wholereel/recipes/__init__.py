"""Named experiments. A recipe is a typed function that returns the whole tree of stages.

Nothing below imports one. `RECIPES` maps a name on the command line to `module:function`; users run their own with the
same spelling.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable

from wholereel.config import Recipe
from wholereel.errors import ConfigError, closest

__all__ = ["RECIPES", "load_recipe"]

RECIPES: dict[str, str] = {
    "demo": "wholereel.recipes.demo:demo",
    "match8": "wholereel.recipes.worlds:match8",
    "match8_baselines": "wholereel.recipes.baselines:match8_baselines",
    "weizmann_baselines": "wholereel.recipes.baselines:weizmann_baselines",
    "ucf_two_stages": "wholereel.recipes.two_stages:ucf_two_stages",
    "k400_clip_level": "wholereel.recipes.two_stages:k400_clip_level",
    "k400_collaborative_memory": "wholereel.recipes.two_stages:k400_collaborative_memory",
    "k700_clip_level": "wholereel.recipes.two_stages:k700_clip_level",
    "k700_collaborative_memory": "wholereel.recipes.two_stages:k700_collaborative_memory",
    "charades_clip_level": "wholereel.recipes.two_stages:charades_clip_level",
    "charades_collaborative_memory": "wholereel.recipes.two_stages:charades_collaborative_memory",
    "charades_feature_bank": "wholereel.recipes.two_stages:charades_feature_bank",
    "ssv1_clip_level": "wholereel.recipes.two_stages:ssv1_clip_level",
    "ssv1_collaborative_memory": "wholereel.recipes.two_stages:ssv1_collaborative_memory",
    "k400_corrnet101": "wholereel.recipes.two_stages:k400_corrnet101",
    "ssv1_corrnet101": "wholereel.recipes.two_stages:ssv1_corrnet101",
    "match8_by_count": "wholereel.recipes.worlds:match8_by_count",
    "pair6": "wholereel.recipes.worlds:pair6",
    "order2": "wholereel.recipes.worlds:order2",
    "memory_worlds": "wholereel.recipes.worlds:memory_worlds",
    "memvit_ava_16": "wholereel.recipes.memvit:memvit_ava_16",
    "memvit_ava_24": "wholereel.recipes.memvit:memvit_ava_24",
    "memvit_ava_rooms": "wholereel.recipes.memvit_worlds:memvit_ava_rooms",
    "memvit_epic_action": "wholereel.recipes.memvit:memvit_epic_action",
    "memvit_epic_anticipation": "wholereel.recipes.memvit:memvit_epic_anticipation",
    "memvit_kinetics400": "wholereel.recipes.memvit:memvit_kinetics400",
    "mvitv1_b_kinetics400": "wholereel.recipes.mvit:mvitv1_b_kinetics400",
    "mvitv2_b_kinetics400": "wholereel.recipes.mvit:mvitv2_b_kinetics400",
    "mvitv2_s_kinetics400": "wholereel.recipes.mvit:mvitv2_s_kinetics400",
    "memvit_cue_probe": "wholereel.recipes.memvit_worlds:memvit_cue_probe",
    "memvit_kitchen": "wholereel.recipes.memvit_worlds:memvit_kitchen",
    "memvit_order2": "wholereel.recipes.memvit_worlds:memvit_order2",
    "own_videos": "wholereel.recipes.own_videos:own_videos",
    "own_streams": "wholereel.recipes.own_streams:own_streams",
    "weizmann": "wholereel.recipes.weizmann:weizmann",
    "ava_rooms": "wholereel.recipes.detection:ava_rooms",
    "ava_rooms_gradients": "wholereel.recipes.detection:ava_rooms_gradients",
    "ava_clip_level": "wholereel.recipes.ava:ava_clip_level",
    "ava_collaborative_memory": "wholereel.recipes.ava:ava_collaborative_memory",
    "jhmdb_boxes": "wholereel.recipes.detection:jhmdb_boxes",
    "corrnet_finemotion8": "wholereel.recipes.backbone_worlds:corrnet_finemotion8",
    "csn_motion_objects": "wholereel.recipes.backbone_worlds:csn_motion_objects",
}


def load_recipe(name: str, *, seed: int | None = None) -> Recipe:
    """Find and call a recipe.

    Args:
        name: a key of `RECIPES` or `module:function` of the user's own (the current directory is importable).
        seed: handed to recipes that have such an argument; `None` = the recipe's own.
    Raises: ConfigError: no such recipe, module or function, or the function returns something else than a `Recipe`.
    """
    target = RECIPES.get(name, name)
    if ":" not in target:
        raise ConfigError(
            f"no recipe named {name!r}.{closest(name, RECIPES)} There are: {', '.join(RECIPES)}; your own is named as "
            f"module:function."
        )
    module_name, _, function_name = target.partition(":")
    if not all(word.isidentifier() for word in (*module_name.split("."), function_name)):
        raise ConfigError(f"recipe {name!r} is not of the form module:function.")
    try:
        function: Callable[..., Recipe] = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"recipe {name!r} cannot be loaded: {error}") from error
    if not callable(function):
        raise ConfigError(f"recipe {name!r} names {function!r}, expected a function that returns a Recipe")
    takes_seed = "seed" in inspect.signature(function).parameters
    if seed is not None and not takes_seed:
        raise ConfigError(f"recipe {name!r} has no argument 'seed'; set the seeds of its stages with --set")
    recipe = function(seed=seed) if seed is not None else function()
    if not isinstance(recipe, Recipe):
        raise ConfigError(f"recipe {name!r} returned {type(recipe).__name__}, expected wholereel.config.Recipe")
    return recipe
