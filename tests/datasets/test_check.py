import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.datasets.broken_files import REASONS, add_broken, data_set, truncated_video, video
from wholereel.datasets.check import check_data, write_problems
from wholereel.datasets.manifest import label_columns, read_manifest


def test_healthy_files_are_not_flagged(tmp_path):
    data_set(tmp_path, 4)
    problems = check_data(read_manifest(tmp_path), workers=2)
    assert problems == []
    write_problems(problems, tmp_path / "bad_files.tsv")
    assert (tmp_path / "bad_files.tsv").read_text() == "path\treason\tbytes\n"


@pytest.mark.parametrize("workers", [0, 3])
def test_every_kind_of_broken_file_is_listed(tmp_path, workers):
    data_set(tmp_path, 3)
    names = add_broken(tmp_path)
    truncated_video(tmp_path / "videos" / "cut_end.avi")
    with (tmp_path / "annotations.csv").open("a") as file:
        file.write("videos/cut_end.avi,run,train\n")
    problems = check_data(read_manifest(tmp_path), workers=workers)
    write_problems(problems, tmp_path / "bad_files.tsv")
    assert [problem.path.relative_to(tmp_path).as_posix() for problem in problems] == [*names, "videos/cut_end.avi"]
    for problem, reason in zip(problems, [*REASONS.values(), "truncated: the last frames"], strict=True):
        assert problem.reason.startswith(reason)
        assert problem.bytes == (problem.path.stat().st_size if problem.path.exists() else 0)
    lines = (tmp_path / "bad_files.tsv").read_text().splitlines()
    assert lines[0] == "path\treason\tbytes"
    assert [line.split("\t") for line in lines[1:]] == [[str(p.path), p.reason, str(p.bytes)] for p in problems]


def test_files_in_two_splits_and_contradicting_labels(tmp_path):
    data_set(tmp_path, 2)
    with (tmp_path / "annotations.csv").open("a") as file:
        file.write("videos/train_00.mp4,jump,val\n./videos/train_01.mp4,walk,val\n")
    manifest = read_manifest(tmp_path)
    other = replace(manifest.samples[1], id="again", labels={"label": 2})
    problems = check_data(replace(manifest, samples=(*manifest.samples, other)))
    assert [(problem.path.name, problem.reason) for problem in problems] == [
        ("train_00.mp4", "in several splits: train, val"),
        ("train_01.mp4", "in several splits: train, val"),
        ("train_01.mp4", "different labels in samples 'videos/train_01.mp4' and './videos/train_01.mp4'"),
        ("train_01.mp4", "different labels in samples 'videos/train_01.mp4' and 'again'"),
    ]


def test_key_frames_and_futures_of_one_part_may_differ(tmp_path):
    data_set(tmp_path, 1)
    manifest = read_manifest(tmp_path)
    sample = replace(manifest.samples[0], end=1.0)
    keys = [replace(sample, id=f"key {key}", key_seconds=key, labels={"label": int(key)}) for key in (0.0, 1.0)]
    actions = [
        replace(sample, id=f"stop {stop}", meta={"action_start": 2.0, "action_stop": stop}) for stop in (3.0, 4.0)
    ]
    actions[1] = replace(actions[1], labels={"label": 1})
    assert check_data(replace(manifest, samples=(*keys, *actions))) == []
    again = replace(keys[0], id="again", labels={"label": 2})
    (problem,) = check_data(replace(manifest, samples=(*keys, again)))
    assert problem.reason == "different labels in samples 'key 0.0' and 'again'"
    late = replace(keys[0], id="late", key_seconds=2.0)
    (problem,) = check_data(replace(manifest, samples=(late,)))
    assert problem.reason == "lasts 2.00 s, but sample 'late' has its key frame at 2.0 s"


def test_listed_files_that_do_not_exist_are_problems(tmp_path):
    video(tmp_path / "abcdefghijk_000000_000002.mp4", 1)
    rows = "label,youtube_id,time_start,time_end,split\nrun,abcdefghijk,0,2,train\nrun,missingmiss,1,11,train\n"
    (tmp_path / "train.csv").write_text(rows)
    problems = check_data(read_manifest(tmp_path))
    assert [(problem.path.name, problem.reason, problem.bytes) for problem in problems] == [
        ("missingmiss_000001_000011.mp4", "listed, but not found", 0)
    ]


def test_missing_labels_and_parts_behind_the_end(tmp_path):
    data_set(tmp_path, 1)
    manifest = read_manifest(tmp_path)
    late = replace(manifest.samples[0], id="late", start=2.0, end=None, labels={})
    problems = check_data(replace(manifest, samples=(*manifest.samples, late)))
    assert [problem.reason for problem in problems] == [
        "lasts 2.00 s, but sample 'late' begins at 2.0 s",
        "sample 'late' has no label",
    ]
    test_part = replace(late, start=None, split="test")
    assert check_data(replace(manifest, samples=(test_part,))) == []


@pytest.mark.skipif("WHOLEREEL_DATA" not in os.environ, reason="WHOLEREEL_DATA names no folder of real data sets")
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("weizmann", 90),
        ("ucf101_5", 125),
        ("jhmdb_pose10", 120),
        ("grid_s1", 140),
        ("esc10_120", 120),
        ("tiny_images10", 1050),
        ("long_misc/videos.csv", 2),
        ("ceiling_long/videos.csv", 10),
    ],
)
def test_real_sets_are_healthy(name, count):
    path = Path(os.environ["WHOLEREEL_DATA"]) / name
    manifest = read_manifest(path, labels=label_columns(path))
    assert len(manifest) == count
    assert check_data(manifest, workers=2) == []
