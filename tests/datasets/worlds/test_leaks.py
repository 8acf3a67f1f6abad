"""What a file looks like from outside (size, duration, mean colour) does not tell the label."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tests.datasets.worlds.frame_probes import linear_accuracy
from tests.datasets.worlds.metadata_probes import HIDDEN, VISIBLE, chi_square, outside, with_products
from wholereel.datasets.worlds import WORLDS, get_world, make_world
from wholereel.media.video_reader import VideoReader, probe_video


def key_frames(path):
    return VideoReader(path).read(indices=range(0, 192, 24)).pixels_TCHW.numpy()


def outside_features(folder):
    """File size, mean red, green, blue of each training video, and its label; all durations must be equal."""
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["split"] == "train"]
    paths = [folder / row["path"] for row in rows]
    assert {(probe_video(path).duration, probe_video(path).width) for path in paths} == {(24.0, 64)}
    features = [[path.stat().st_size, *key_frames(path).mean(axis=(0, 2, 3))] for path in paths]
    classes = json.loads((folder / "classes.json").read_text())
    return np.array(features), np.array([classes.index(row["label"]) for row in rows])


def held_out_predictions(features, labels):
    """Linear discriminant of all other videos, for each video in turn (least squares, a little ridge)."""
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    features = np.concatenate([features, features**2, np.ones((len(features), 1))], axis=1)
    predictions = []
    for index in range(len(labels)):
        others = np.arange(len(labels)) != index
        gram = features[others].T @ features[others] + np.eye(features.shape[1])
        weights = np.linalg.solve(gram, features[others].T @ (2 * labels[others] - 1))
        predictions.append(int(features[index] @ weights > 0))
    return np.array(predictions)


def p_value(predictions, labels):
    """Chi-square (one degree of freedom) of the number of right answers against a coin."""
    right = (predictions == labels).sum()
    return math.erfc(abs(right - len(labels) / 2) / math.sqrt(len(labels) / 4) / math.sqrt(2))


@pytest.mark.parametrize("name", ["match8", "order2"])
def test_metadata_tell_nothing(name, match8_folder, tmp_path):
    sizes = {"train": 40, "val": 0, "test": 0}
    folder = match8_folder if name == "match8" else make_world(name, tmp_path, sizes=sizes)
    features, labels = outside_features(folder)
    assert p_value(held_out_predictions(features, labels), labels) > 0.01


def test_the_classifier_finds_a_planted_leak_and_permuted_labels_are_at_chance(match8_folder):
    features, labels = outside_features(match8_folder)
    permuted = np.random.default_rng(0).permutation(labels)
    assert p_value(held_out_predictions(features, permuted), permuted) > 0.01
    features[:, 0] += 3 * features[:, 0].std() * labels
    assert p_value(held_out_predictions(features, labels), labels) < 0.001


def test_order2_videos_of_both_labels_have_the_same_segments():
    """Exchange the kinds and nothing else: each segment is pixel for pixel one that the other label also has."""
    from dataclasses import replace

    world = get_world("order2")
    scene = world.sample(0, "train", 0)
    first, second = scene.events
    swapped = replace(scene, events=(replace(first, kind=second.kind), replace(second, kind=first.kind)))
    assert world.video_label(swapped.events) == 1 - scene.label
    frames, other = world.record(scene).frames_THWC, world.record(swapped).frames_THWC
    differs = (frames != other).any(axis=(1, 2, 3)).reshape(world.segments, -1).any(axis=1)
    assert np.flatnonzero(differs).tolist() == [first.segment, second.segment]


def test_the_probes_know_every_world():
    assert {name.partition(" ")[0] for name in HIDDEN} | VISIBLE.keys() == WORLDS.keys()
    assert not {name.partition(" ")[0] for name in HIDDEN} & VISIBLE.keys()
    assert chi_square(0.5, 100, 0.5) == (0.0, 1.0)
    value, p = chi_square(0.6, 100, 0.5)
    assert (value, p) == (pytest.approx(4.0), pytest.approx(0.0455, abs=1e-4))


def test_the_probe_of_every_world_finds_a_planted_leak():
    features_NF, labels_N = outside("stills_clips", count=80, seed=0)
    _, p = chi_square(linear_accuracy(with_products(features_NF), labels_N), 40, 0.5)
    assert p > 0.01
    planted_NF = features_NF + np.eye(len(features_NF[0]))[0] * labels_N[:, None] * 4 * features_NF[:, 0].std()
    _, p = chi_square(linear_accuracy(with_products(planted_NF), labels_N), 40, 0.5)
    assert p < 0.001
