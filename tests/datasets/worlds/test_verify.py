"""The verifier passes good folders and finds planted faults; the codec carries nothing between segments."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from wholereel.datasets.worlds import WORLDS, get_world, verify_world
from wholereel.datasets.worlds.event_world import EventWorld
from wholereel.datasets.worlds.make import write_recording
from wholereel.datasets.worlds.verify import dependent_groups
from wholereel.errors import DataError


def test_faults_are_found(events8_folder, tmp_path):
    assert verify_world(events8_folder) == []
    folder = tmp_path / "world"
    shutil.copytree(events8_folder, folder)
    lines = (folder / "manifest.jsonl").read_text().splitlines(keepends=True)
    ids = [line.split('"id": "')[1][:16] for line in lines]
    old, new = ('"label": "disc"', '"label": "ring"')
    edited = next(number for number, line in enumerate(lines) if old in line)
    lines[edited] = lines[edited].replace(old, new)
    (folder / "manifest.jsonl").write_text("".join(lines))
    missing, exchanged, broken, other = ids[-4:]
    (folder / "videos" / f"{missing}.mp4").unlink()
    shutil.copy(folder / "videos" / f"{other}.mp4", folder / "videos" / f"{exchanged}.mp4")
    (folder / "videos" / f"{broken}.mp4").write_bytes(b"no video")
    (folder / "videos" / "more.mp4").write_bytes(b"")
    problems = verify_world(folder)
    expected = [
        "2 samples of class 'ring' in 'train', expected 1",
        "0 samples of class 'disc' in 'train', expected 1",
        f"line {edited + 1} ({ids[edited]}): 'label' is not what the seed gives",
        f"videos/{missing}.mp4: missing",
        f"videos/{exchanged}.mp4: shows something else than its scene",
        f"videos/{broken}.mp4: cannot be read",
        "videos/more.mp4: not listed in the manifest",
    ]
    for text in expected:
        assert sum(text in problem for problem in problems) == 1, (text, problems)
    assert len(problems) == len(expected)


def test_a_single_wrong_glyph_is_found(match8_folder, tmp_path):
    """One second of one glyph in a video of 24 seconds."""
    world = get_world("match8")
    scene = world.sample(0, "train", 0)
    event = scene.events[1]
    wrong = replace(scene, events=(scene.events[0], replace(event, kind=(event.kind + 3) % 8)))
    folder = tmp_path / "world"
    shutil.copytree(match8_folder, folder)
    write_recording(folder / "videos" / f"{scene.id}.mp4", world, world.record(wrong))
    (problem,) = verify_world(folder)
    assert problem.startswith(f"videos/{scene.id}.mp4: shows something else than its scene (somewhere by ")


def test_an_unfinished_folder_is_reported(events8_folder, tmp_path):
    folder = tmp_path / "world"
    shutil.copytree(events8_folder, folder)
    (folder / "manifest.jsonl").unlink()
    assert verify_world(folder) == ["manifest.jsonl: missing (making this world was interrupted; run it again)"]
    with pytest.raises(DataError, match=r"world\.json: no such file.*Is this the folder of a world"):
        verify_world(tmp_path)


@pytest.mark.parametrize("name", [n for n, w in WORLDS.items() if issubclass(w, EventWorld) and w.segments > 1])
def test_segments_are_coded_independently(name):
    world = get_world(name)
    scene = world.sample(0, "train", 1)
    for changed in (0, 4):
        assert dependent_groups(world, scene, changed=changed) == []


def test_the_independence_check_can_fail(monkeypatch):
    """With the encoder's usual settings a changed segment shows elsewhere, so an empty list above means something."""
    from wholereel.datasets.worlds import make
    from wholereel.media.video_writer import write_video

    def usual(path, frames, *, frame_rate, gop, audio):
        write_video(path, frames, frame_rate=frame_rate, gop=gop, options={"preset": "medium", "crf": "20"})

    monkeypatch.setattr(make, "write_video", usual)
    world = get_world("match8")
    assert len(dependent_groups(world, world.sample(0, "train", 1), changed=4)) > 3
