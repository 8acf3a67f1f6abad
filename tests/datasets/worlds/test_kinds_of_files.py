"""Worlds of sound, of single pictures and with official files: a toy world of each, made and verified."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from wholereel.datasets.worlds import Recording, Scene, World, draw_world, make_world, read_options, verify_world
from wholereel.datasets.worlds.base import generator_of
from wholereel.datasets.worlds.table import WORLDS
from wholereel.datasets.worlds.verify import decode, decode_sound
from wholereel.errors import ConfigError


@dataclass(frozen=True)
class Toy(World[Scene]):
    name: ClassVar[str] = "toy"
    summary: ClassVar[str] = "a tone, or none"
    classes: ClassVar = ("quiet", "loud")
    std_sizes: ClassVar = {"train": 40, "seen": 20}
    group_frames: ClassVar[int] = 1

    gain: float = 0.5
    channels: int = 2
    dark: bool = False

    def sample(self, seed, split, index):
        name = generator_of(seed, self.name, split, index).integers(0, 2**63)
        return Scene(f"{int(name):016x}", split, index)

    def label(self, scene):
        return self.balanced_label(0, scene.split, scene.index)

    def record(self, scene):
        generator = np.random.default_rng(int(scene.id, 16))
        frames_THWC = np.full((6, 32, 48, 3), generator.integers(60, 200), np.uint8)
        tone_S = np.sin(np.arange(12_000) / 5) * self.gain * self.label(scene)
        return Recording(frames_THWC, np.tile(tone_S.astype(np.float32), (self.channels, 1)))

    def truth(self, scene):
        return {"label": self.classes[self.label(scene)], "meta": {"corner": (0, 1)}}

    def ceilings(self):
        return {"sound": 1.0, "pictures": 0.5}

    def oracles(self):
        return {"sound": lambda scene, _: self.label(scene), "pictures": lambda _, generator: generator.integers(2)}

    def export(self, folder, scenes):
        (folder / "official").mkdir()
        (folder / "official" / "list.txt").write_text("".join(f"{scene.id}\n" for scene in scenes))


@dataclass(frozen=True)
class ToyStills(Toy):
    name: ClassVar[str] = "toy_stills"
    frame_rate: ClassVar[int] = 0

    def record(self, scene):
        generator = np.random.default_rng(int(scene.id, 16))
        return Recording(generator.integers(0, 256, size=(1, 33, 21, 3), dtype=np.uint8))


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    for toy in (Toy, ToyStills):
        monkeypatch.setitem(WORLDS, toy.name, toy)


def test_sound_is_stored_exactly_and_checked_to_the_sample(tmp_path):
    folder = make_world("toy", tmp_path / "toy", sizes={"train": 4, "seen": 2}, options={"gain": 0.25})
    assert verify_world(folder) == []
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    assert [row["split"] for row in rows] == ["train"] * 4 + ["seen"] * 2
    world = Toy(gain=0.25)
    pcm_CS, rate = decode_sound(folder / rows[0]["path"])
    assert (pcm_CS == world.record(world.sample(0, "train", 0)).pcm_CS).all()
    assert (pcm_CS.shape, rate) == ((2, 12_000), 16_000)

    loud = make_world("toy", tmp_path / "loud", sizes={"train": 4, "seen": 2}, options={"gain": 0.5})
    path = next(row["path"] for row in rows if row["label"] == "loud")
    (folder / path).write_bytes((loud / path).read_bytes())
    assert verify_world(folder) == [f"{path}: sound differs from sample 1 on"]


def test_pictures_are_stored_exactly(tmp_path):
    folder = make_world("toy_stills", tmp_path, sizes={"train": 2, "seen": 0})
    assert verify_world(folder) == []
    a, b = sorted((folder / "images").iterdir())
    assert decode(a).shape == (1, 33, 21, 3)
    a.write_bytes(b.read_bytes())
    b.write_bytes(b"no picture")
    problems = verify_world(folder)
    assert len(problems) == 2
    assert any("shows something else" in problem for problem in problems)
    assert any("cannot be read" in problem for problem in problems)


def test_official_files_are_checked(tmp_path):
    folder = make_world("toy", tmp_path, sizes={"train": 2, "seen": 0})
    (folder / "official" / "list.txt").write_text("edited")
    (folder / "official" / "more.txt").write_text("")
    assert verify_world(folder) == [
        "official/more.txt: not of this world",
        "official/list.txt: is not what the seed gives",
    ]
    (folder / "official" / "list.txt").unlink()
    assert verify_world(folder)[0] == "official/list.txt: missing"


def test_options_are_read_by_the_type_of_their_default():
    assert read_options("toy", ["gain=0.1", "channels=1", "dark=true"]) == {"gain": 0.1, "channels": 1, "dark": True}
    with pytest.raises(ConfigError, match="option 'tone=3' of world 'toy': expected NAME=VALUE; it has gain, channels"):
        read_options("toy", ["tone=3"])
    with pytest.raises(ConfigError, match="option 'channels=two': expected a value like 2"):
        read_options("toy", ["channels=two"])
    with pytest.raises(ConfigError, match="option 'dark=1': expected true or false"):
        read_options("toy", ["dark=1"])


def test_a_picture_shows_frames_and_sound(tmp_path):
    draw_world(Toy(), tmp_path / "toy.png")
    # Two classes; six frames of 48 pixels and their gaps; 32 rows of frames and of sound; all doubled, as 32 are few.
    assert decode(tmp_path / "toy.png").shape == (1, 2 * (2 * (32 + 32) + 3 * 4), 2 * (6 * 48 + 7 * 4), 3)
