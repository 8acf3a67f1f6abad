"""Lists of paths and classes, and lists of pictures, there and back."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.datasets.formats.folders import folder
from wholereel.cli.main import main
from wholereel.datasets.formats.frame_lists import read_frame_list, sample_of_listed, write_frame_list
from wholereel.datasets.formats.pyslowfast import write_lists
from wholereel.datasets.manifest import read_manifest
from wholereel.errors import DataError


def test_lists_come_back(tmp_path):
    folder(tmp_path, {}, "train/run/-a.mp4", "train/jump/_b.mp4", "val/run/c.mp4")
    manifest = read_manifest(tmp_path)
    files = write_lists(manifest, tmp_path)
    assert [file.name for file in files] == ["train.csv", "val.csv"]
    assert (tmp_path / "train.csv").read_text() == "train/jump/_b.mp4 0\ntrain/run/-a.mp4 1\n"
    again = read_manifest(tmp_path)
    assert again.samples == manifest.samples  # ids, paths, splits and classes


def test_paths_with_spaces_need_another_separator(tmp_path):
    folder(tmp_path, {}, "air drumming/a, b.mp4", "run/c.mp4")
    manifest = read_manifest(tmp_path)
    with pytest.raises(ValueError, match=r"the path 'air drumming/a, b\.mp4' holds the separator ' '"):
        write_lists(manifest, tmp_path)
    assert not list(tmp_path.glob("*.csv"))
    (file,) = write_lists(manifest, tmp_path, separator="\t")
    assert file.read_text() == "air drumming/a, b.mp4\t0\nrun/c.mp4\t1\n"
    assert [sample.path for sample in read_manifest(file).samples] == [sample.path for sample in manifest.samples]
    part = replace(manifest, samples=(replace(manifest.samples[1], start=1.0),))
    with pytest.raises(ValueError, match="whole videos with one class each"):
        write_lists(part, tmp_path)


FRAMES = """original_vido_id video_id frame_id path labels
46GP8 0 0 46GP8/46GP8-000001.jpg ""
46GP8 0 1 46GP8/46GP8-000002.jpg "92"
46GP8 0 2 46GP8/46GP8-000003.jpg "92,147"
46GP8 0 3 46GP8/46GP8-000004.jpg "147"
N11GT 1 0 N11GT/N11GT-000001.jpg "0"
N11GT 1 1 N11GT/N11GT-000002.jpg "0"
"""


def test_frame_lists_come_back(tmp_path):
    file = tmp_path / "train.csv"
    file.write_text(FRAMES)
    videos = read_frame_list(file)
    assert [(video.id, len(video.paths)) for video in videos] == [("46GP8", 4), ("N11GT", 2)]
    assert videos[0].labels == ((), (92,), (92, 147), (147,))
    samples = [sample_of_listed(video, tmp_path, 24.0, split="train") for video in videos]
    assert samples[0].path == tmp_path / "46GP8"
    assert samples[0].labels == {"label": (92, 147)}
    for video in videos:
        for path in video.paths:
            (tmp_path / path).parent.mkdir(exist_ok=True)
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / path)
    write_frame_list(samples, tmp_path / "again.csv", tmp_path)
    assert (tmp_path / "again.csv").read_text() == FRAMES


def test_frame_lists_are_a_data_set(tmp_path, capsys):
    (tmp_path / "train.csv").write_text(FRAMES)
    for name in [line.split()[3] for line in FRAMES.splitlines()[1:]]:
        (tmp_path / "rgb" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "rgb" / name)
    words = ["data", "prepare", "frame_lists", "--root", str(tmp_path), "--option", "pictures=rgb", "frame_rate=24"]
    assert main([*words, "--out", str(tmp_path / "rgb")]) == 0
    manifest = read_manifest(tmp_path / "rgb")
    assert [(sample.id, sample.labels["label"]) for sample in manifest.samples] == [
        ("46GP8", (92, 147)),
        ("N11GT", (0,)),
    ]
    assert main(["data", "check", str(tmp_path / "rgb")]) == 0
    assert main(["data", "lists", str(tmp_path / "rgb"), "--pictures", "--out", str(tmp_path / "lists")]) == 0
    assert (tmp_path / "lists" / "train.csv").read_text() == FRAMES
    assert main(["data", "lists", str(tmp_path / "rgb"), "--out", str(tmp_path / "lists")]) == 2
    assert "whole videos with one class each" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b\n", r"begins with 'a b', expected 'original_vido_id video_id frame_id path labels'"),
        (FRAMES + '46GP8 0 4 ""\n', r"line 8 is '46GP8 0 4 \"\"'"),
        (FRAMES + '46GP8 0 4 a.jpg "c092"\n', "line 8 is"),
    ],
)
def test_broken_frame_lists(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_frame_list(tmp_path / "list.csv")
