"""From a table of timed actions to a timeline, as a user does it: colours that come and go in one's own videos."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from wholereel.cli.main import main
from wholereel.config import Augment, Clips, Model, Recipe, Train, Views
from wholereel.media.video_writer import write_video
from wholereel.recipes import own_streams as recipes
from wholereel.recipes.runner import run_recipe

RATE, SIDE = 8, 40
COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}


def film(path, actions, seconds, seed):
    """Grey noise, and while an action lasts its colour."""
    generator = np.random.default_rng(seed)
    frames_THWC = generator.integers(90, 160, (seconds * RATE, SIDE, SIDE, 3), dtype=np.uint8)
    for name, start, end in actions:
        frames_THWC[int(start * RATE) : int(end * RATE)] = COLOURS[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, frames_THWC, frame_rate=RATE, gop=RATE)


@pytest.fixture
def own(tmp_path):
    """Four films of half a minute and their table; nothing happens in the fourth."""
    films = {
        "a": ("train", [("red", 2, 8), ("blue", 12, 20)]),
        "b": ("train", [("blue", 0, 6), ("red", 16, 24)]),
        "c": ("val", [("red", 4, 10), ("blue", 14, 20)]),
        "d": ("train", []),
    }
    lines = ["path,label,start,end,split"]
    for number, (name, (split, actions)) in enumerate(films.items()):
        film(tmp_path / "mine" / "films" / f"{name}.mp4", actions, 24, number)
        lines += [f"films/{name}.mp4,{label},{start},{end},{split}" for label, start, end in actions]
        lines += [] if actions else [f"films/{name}.mp4,,,,{split}"]
    (tmp_path / "mine" / "actions.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "mine"


def small() -> Recipe:
    """`own_streams` for films of 40 pixels."""
    recipe = recipes.own_streams()
    streams = recipe.stages["streams"]
    assert isinstance(streams, Train)
    clips = Clips(frames=4, stride=4)
    data = replace(streams.data, clips=clips, augment=Augment(short_side=(36, 36), crop=32), workers=0)
    train = replace(
        streams,
        model=Model("memvit_tiny", options={"reach": 4}),
        data=data,
        val=replace(data, split="val"),
        views=Views(clips=clips, short_side=36, crop=32),
        task=replace(streams.task, dropout=0.0),
        optim=replace(streams.optim, lr=3e-3, lr_batch=None, warmup=0.2),
        epochs=3,
        batch=3,
    )
    test = replace(recipe.stages["test"], data=train.val, views=train.views)
    return replace(recipe, stages={"streams": train, "test": test})


def test_from_a_table_to_a_timeline(own, tmp_path, capsys):
    assert main(["data", "prepare", "timed_actions", "--root", str(own)]) == 0
    run = tmp_path / "run"
    done = run_recipe(small(), run, data=own, devices="cpu")
    # Two colours and grey, each fills the picture: learned at once, and nothing is said where nothing happens.
    assert done["test"]["evaluated"] == 12
    assert done["test"]["metrics"]["clip_map"] > 0.95
    capsys.readouterr()
    assert main(["predict", str(run), str(own / "films" / "c.mp4"), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    shown = [
        {name for name, score in zip(found["classes"], clip["scores"], strict=True) if score > 0.5}
        for clip in found["clips"]
    ]
    assert shown == [set()] * 2 + [{"red"}] * 3 + [set()] * 2 + [{"blue"}] * 3 + [set()] * 2
