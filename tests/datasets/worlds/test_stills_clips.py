"""stills_clips: styles where they belong, glyphs told apart in every style, the same middle for both directions."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from wholereel.datasets.worlds import get_world
from wholereel.datasets.worlds.styled_glyphs import SILHOUETTES, STYLES, styled_mask

CLIPS, STILLS = get_world("stills_clips"), get_world("stills_clips_stills")


@pytest.mark.parametrize(
    ("split", "styles"),
    [
        ("train", {"solid", "outline"}),
        ("val", {"solid", "outline"}),
        ("test_seen", {"solid", "outline"}),
        ("test_unseen", {"checker", "stripes", "dark", "grid"}),
    ],
)
def test_styles_of_the_clips(split, styles):
    scenes = [CLIPS.sample(0, split, index) for index in range(80)]
    assert {STYLES[scene.style] for scene in scenes} == styles
    assert all(CLIPS.classes[s.label].startswith(SILHOUETTES[s.kind]) for s in scenes)
    assert all((s.velocity > 0) == CLIPS.classes[s.label].endswith("right") for s in scenes)
    assert all(1.5 <= abs(s.velocity) <= 2.5 for s in scenes)


def test_sizes():
    assert CLIPS.sizes("std") == {"train": 800, "val": 160, "test_seen": 304, "test_unseen": 304}
    assert STILLS.sizes("std") == {"train": 2000, "val": 160, "test": 504}
    assert len(CLIPS.classes) == len(STILLS.classes) == 8
    assert {STYLES[STILLS.sample(0, "train", index).style] for index in range(100)} == set(STYLES)


@pytest.mark.parametrize("side", [12, 13, 14])
def test_no_two_drawings_are_alike(side):
    """Glyph and style can be read from the pixels: masks of any two differ in ten pixels and more."""
    masks = {
        (kind, style): styled_mask(kind, style, side)
        for kind in range(len(SILHOUETTES))
        for style, name in enumerate(STYLES)
        if name != "dark"
    }
    least = min((masks[a] != masks[b]).sum() for a, b in combinations(masks, 2) if a[0] != b[0])
    assert least >= 10
    assert all((styled_mask(kind, 0, side) == styled_mask(kind, 0, side)[:, ::-1]).all() for kind in range(8))


def test_the_glyph_stays_inside_and_moves_as_it_says():
    for index in range(40):
        scene = CLIPS.sample(1, "train", index)
        frames_THWC = CLIPS.record(scene).frames_THWC
        shown = [np.nonzero((frame_HWC == scene.color).all(axis=2))[1] for frame_HWC in frames_THWC]
        middle = [(columns.min() + columns.max()) / 2 for columns in shown]
        assert np.mean(np.diff(middle)) == pytest.approx(scene.velocity, abs=0.35)
        assert len({len(columns) for columns in shown}) == 1


def test_conflict_is_the_negative():
    conflict = get_world("stills_clips_stills", conflict=True)
    scene = STILLS.sample(0, "test", 3)
    assert conflict.sample(0, "test", 3) == scene
    assert (conflict.record(scene).frames_THWC == 255 - STILLS.record(scene).frames_THWC).all()
