"""hashtags: how often clips meet the event, how often true and wrong tags are given, what the manifest says."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from wholereel.datasets.worlds import get_world
from wholereel.datasets.worlds.hashtags import TAGS, draw_tags, overlap_probability, tagged_probability
from wholereel.errors import ConfigError

WORLD = get_world("hashtags")
SCENES = [WORLD.sample(0, "train", index) for index in range(3000)]


def test_a_random_clip_seldom_meets_the_event():
    assert overlap_probability(60) == pytest.approx(6 / 58)
    assert round(overlap_probability(60), 3) == 0.103
    assert overlap_probability(10) == 0.75
    starts = np.array([s.mover.start / 8 for s in SCENES if s.frames == 480])
    assert starts.min() >= 2
    assert starts.max() <= 54
    clips = np.random.default_rng(0).uniform(0, 58, size=(len(starts), 50))
    meets = (clips + 2 > starts[:, None]) & (clips < starts[:, None] + 4)
    assert meets.mean() == pytest.approx(6 / 58, abs=4 * (0.1 * 0.9 / meets.size) ** 0.5)


def test_tags():
    assert tagged_probability() == pytest.approx(0.74042, abs=1e-5)
    assert all(scene.tags for scene in SCENES)
    generator = np.random.default_rng(0)
    tags = [draw_tags(1, 2, generator) for _ in range(20_000)]
    true = np.mean([[1 in t, 4 + 2 in t] for t in tags], axis=0)
    np.testing.assert_allclose(true, 0.7, atol=4 * (0.21 / 20_000) ** 0.5)
    assert np.mean([not t for t in tags]) == pytest.approx(0.09 * np.exp(-0.5), abs=0.006)
    wrong = Counter(tag for t in tags for tag in t if tag not in (1, 6))
    # A tag of rank r is among a Poisson number of draws with probability 1 - exp(-0.5 p_r).
    weights = np.array([1 / (1 + tag) for tag in range(12) if tag not in (1, 6)])
    expected = 1 - np.exp(-0.5 * weights / weights.sum())
    found = np.array([wrong[tag] for tag in range(12) if tag not in (1, 6)]) / 20_000
    assert (np.abs(found - expected) < 4.5 * (expected * (1 - expected) / 20_000) ** 0.5).all()


def test_the_manifest_has_three_label_spaces():
    assert {name: len(classes) for name, classes in WORLD.label_spaces().items()} == {
        "verb": 4,
        "noun": 8,
        "verb_noun": 32,
    }
    for scene in SCENES[:300]:
        truth = WORLD.truth(scene)
        verbs, nouns = truth.get("verb", []), truth.get("noun", [])
        assert [TAGS.index(tag) for tag in verbs + nouns] == list(scene.tags)
        assert truth.get("verb_noun", []) == [f"{verb}_{noun}" for verb in verbs for noun in nouns]
        assert all(truth[space] for space in truth if space != "meta")


@pytest.mark.parametrize(("length", "shortest", "longest"), [("short", 32, 64), ("long", 480, 480)])
def test_lengths(length, shortest, longest):
    world = get_world("hashtags", length=length)
    frames = [world.sample(0, "train", index).frames for index in range(300)]
    assert (min(frames), max(frames)) == (shortest, longest)


def test_half_of_the_videos_are_long_and_the_event_is_inside():
    long = [scene.frames == 480 for scene in SCENES]
    assert np.mean(long) == pytest.approx(0.5, abs=4 * (0.25 / 3000) ** 0.5)
    assert all(0 <= s.mover.start <= s.frames - 32 for s in SCENES)
    scene = next(scene for scene in SCENES if scene.frames < 60)
    frames_THWC = WORLD.record(scene).frames_THWC
    assert len(frames_THWC) == scene.frames
    shown_T = (frames_THWC == scene.mover.color).all(axis=3).any(axis=(1, 2))
    assert np.flatnonzero(shown_T).tolist() == list(range(scene.mover.start, scene.mover.start + 32))
    with pytest.raises(ConfigError, match="length of hashtags must be one of short, long, mixed, got 'both'"):
        get_world("hashtags", length="both")
