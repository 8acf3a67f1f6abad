"""The settings of experiments, as data: stages of a recipe and their parts. Torch-free: the command line starts fast.

A `Recipe` is a frozen tree of stages; each stage has a sub-directory of the run. A string `"stage:NAME"` in a `root` or
`weights` field means "what the earlier stage NAME of this run made". `root=None` means the path given on the command
line (`--data`).
Not here: what the settings do (each room reads its own), nor named experiments (`recipes/`).
"""

from __future__ import annotations

from wholereel.config.augment import Augment, Erasing, Mixing, RandAugment, ResizedCrop
from wholereel.config.data import Audio, BankWindow, Clips, Data, Streams
from wholereel.config.stages import Convert, Evaluate, Extract, Prepare, Recipe, Stage, Train, Views, World
from wholereel.config.training import Aggregate, BankHead, BoxHead, Memory, Model, Optim, Strategy, Task

__all__ = [
    "Aggregate",
    "Audio",
    "Augment",
    "BankHead",
    "BankWindow",
    "BoxHead",
    "Clips",
    "Convert",
    "Data",
    "Erasing",
    "Evaluate",
    "Extract",
    "Memory",
    "Mixing",
    "Model",
    "Optim",
    "Prepare",
    "RandAugment",
    "Recipe",
    "ResizedCrop",
    "Stage",
    "Strategy",
    "Streams",
    "Task",
    "Train",
    "Views",
    "World",
]
