"""One run of a tiny recipe, from a generated world to measured models, shared by the tests of runner and report."""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from wholereel.config import (
    Augment,
    Clips,
    Convert,
    Data,
    Evaluate,
    Extract,
    Memory,
    Model,
    Optim,
    Recipe,
    Train,
    Views,
    World,
)
from wholereel.recipes.runner import run_recipe

CLIPS = Clips(plan="uniform", count=4, frames=1, stride=1, frame_rate=1.0)
DATA = Data(root="stage:match8", clips=CLIPS, augment=Augment(short_side=(36, 36), crop=32), cache=True, workers=0)
VIEWS = Views(clips=CLIPS, short_side=36, crop=32)
MEMORY = Memory(dim=4)


def tiny() -> Recipe:
    """All kinds of stages; the names that the demo's report looks for."""
    late_average = Train(
        model=Model("tiny2d", options={"width": 8}), data=DATA, optim=Optim("adamw", lr=1e-3), epochs=1, batch=2
    )
    with_memory = Train(
        model=Model("tiny2d", "stage:late_average", options={"width": 8}, memory=MEMORY),
        data=DATA,
        val=Data(**{**vars(DATA), "split": "val"}),
        views=VIEWS,
        optim=Optim("adamw", lr=1e-3),
        epochs=2,
        batch=2,
    )
    test = Data(**{**vars(DATA), "split": "test"})
    stages = {
        "match8": World("match8", "smoke", seed=1, sizes={"train": 6, "val": 2, "test": 4}),
        "late_average": late_average,
        "collaborative_memory": with_memory,
        "with_fresh_memory": Convert("stage:late_average", to="video", memory=MEMORY),
        "without_memory": Convert("stage:with_fresh_memory", to="clip"),
        "features": Extract("stage:late_average", test, views=VIEWS, what=("features", "scores"), shards=2),
        "test_late_average": Evaluate("stage:late_average", test, views=VIEWS),
        "test_collaborative_memory": Evaluate("stage:collaborative_memory", test, views=VIEWS),
        "test_with_fresh_memory": Evaluate("stage:with_fresh_memory", test, views=VIEWS),
    }
    return Recipe("tiny", stages, "everything, small", main="collaborative_memory")


@dataclass(frozen=True)
class Run:
    """A finished run: its recipe, folder, what `run_recipe` returned and what it said."""

    recipe: Recipe
    out: Path
    results: dict[str, Any]
    words: str

    def copy(self, folder: Path) -> Path:
        """The folder once more, to be changed."""
        return shutil.copytree(self.out, folder)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    out, words = tmp_path_factory.mktemp("runs") / "tiny", io.StringIO()
    results = run_recipe(tiny(), out, devices="cpu", workers=1, stream=words)
    return Run(tiny(), out, results, words.getvalue())
