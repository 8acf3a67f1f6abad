"""Folders: the same whatever the number of processes and interruptions, and readable as a manifest."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from wholereel.datasets.manifest import read_manifest
from wholereel.datasets.worlds import get_world, make_world
from wholereel.errors import ConfigError, DataError

SIZES = {"train": 9, "val": 9, "test": 0}


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_two_processes_write_the_same_folder(events8_folder, tmp_path):
    other = make_world("events8", tmp_path / "two", sizes=SIZES, seed=3, workers=2)
    assert contents(other) == contents(events8_folder)


def test_a_killed_maker_is_finished_by_the_next(events8_folder, tmp_path):
    program = (
        "import os, sys\n"
        "from wholereel.datasets.worlds import make_world\n"
        "die = lambda done, total: os.kill(os.getpid(), 9) if done == 5 else None\n"
        f"make_world('events8', sys.argv[1], sizes={SIZES}, seed=3, progress=die)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "videos").iterdir())) == 5
    assert not (tmp_path / "manifest.jsonl").exists()
    (tmp_path / ".partial" / "left_over.mp4").write_bytes(b"cut off")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "videos").iterdir()}
    make_world("events8", tmp_path, sizes=SIZES, seed=3)
    assert contents(tmp_path) == contents(events8_folder)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items()), "finished files were encoded again"


def test_a_complete_folder_is_left_alone_and_a_missing_file_replaced(tmp_path):
    sizes = {"train": 9, "val": 0, "test": 0}
    folder = make_world("events8", tmp_path, sizes=sizes)
    whole, calls = contents(folder), []
    make_world("events8", tmp_path, sizes=sizes, progress=lambda done, total: calls.append((done, total)))
    assert calls == []
    next((folder / "videos").iterdir()).unlink()
    make_world("events8", tmp_path, sizes=sizes, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (9, 9)
    assert contents(folder) == whole


def test_other_settings_need_another_folder(events8_folder):
    with pytest.raises(
        DataError, match=r"holds a world made as .*'seed': 3.*expected nothing, or .*'seed': 4.*another folder"
    ):
        make_world("events8", events8_folder, sizes=SIZES, seed=4)


def test_sizes_that_cannot_be_balanced_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"train=20 samples cannot be balanced over the 9 classes .* e\.g\. 18 or 27"):
        make_world("events8", tmp_path, sizes={"train": 20})
    with pytest.raises(ConfigError, match="unknown split 'dev'; choose among train, val, test"):
        make_world("events8", tmp_path, sizes={"dev": 9})
    with pytest.raises(ConfigError, match="seed must be >= 0 and workers >= 1, got seed 0 and workers 0"):
        make_world("events8", tmp_path, workers=0)
    with pytest.raises(ConfigError, match=r"train=-9, expected a number of samples, 0 or more"):
        make_world("events8", tmp_path, sizes={"train": -9})
    with pytest.raises(ConfigError, match="world 'events8' has no option 'motion'; it has: size"):
        make_world("events8", tmp_path, options={"motion": "fast"})


def test_the_folder_reads_as_a_manifest(match8_folder):
    world = get_world("match8")
    manifest = read_manifest(match8_folder, split="train")
    assert len(manifest) == 40
    assert not manifest.multi_label
    assert manifest.classes == {"label": world.classes}
    assert [sample.labels["label"] for sample in manifest.samples] == [
        world.sample(0, "train", index).label for index in range(40)
    ]
    assert all(sample.path.is_file() for sample in manifest.samples)


def test_the_manifest_holds_the_ground_truth(match8_folder):
    row = json.loads((match8_folder / "manifest.jsonl").read_text().splitlines()[0])
    scene = get_world("match8").sample(0, "train", 0)
    assert row["id"] == scene.id
    assert row["path"] == f"videos/{scene.id}.mp4"
    assert [event["kind"] for event in row["meta"]["events"]] == [event.kind for event in scene.events]
    assert row["meta"]["events"][0]["seconds"] == [scene.events[0].start / 8, scene.events[0].start / 8 + 1]
    described = json.loads((match8_folder / "world.json").read_text())
    assert described["ceilings"]["sum"] == pytest.approx(9 / 14)
    assert described["sizes"] == {"train": 40, "val": 2, "test": 2}
