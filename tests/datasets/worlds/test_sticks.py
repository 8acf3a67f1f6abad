"""sticks and stick_actions: exact joints, what is covered cannot be seen, motion as promised, PoseTrack's files."""

from __future__ import annotations

from dataclasses import replace
from math import asin, pi

import numpy as np
import pytest

from tests.datasets.worlds.test_scenes import chi_square_p
from wholereel.datasets.formats.posetrack import JOINTS, read_posetrack
from wholereel.datasets.manifest import read_manifest
from wholereel.datasets.worlds import describe_world, get_world, make_world
from wholereel.datasets.worlds.skeleton import ANGLES, ENDS, head_box, joints_of
from wholereel.datasets.worlds.stick_actions import action_of
from wholereel.datasets.worlds.sticks import LABELLED, displacements, simulated_wrist, wrist_from_frames
from wholereel.errors import ConfigError

SLOW, FAST = get_world("sticks"), get_world("sticks", motion="fast")
SCENES = [SLOW.sample(0, "train", index) for index in range(40)]
WRIST, ELBOW = JOINTS.index("right_wrist"), JOINTS.index("right_elbow")


def test_ceilings():
    ceilings = SLOW.ceilings()
    assert ceilings["wrist_frame_on_circle"] == pytest.approx(0.7 + 0.3 * 2 * asin(0.5 / 2.4) / pi)
    assert round(ceilings["wrist_frame_on_circle"], 3) == 0.740
    assert ceilings["wrist_frame"] == pytest.approx(0.7 + 0.3 * asin(0.5 / 1.2) / pi)
    assert ceilings["wrist_7_frames"] > 0.998
    assert FAST.ceilings()["wrist_frame"] == ceilings["wrist_frame"]
    assert simulated_wrist(6.0) == simulated_wrist.__wrapped__(6.0)


def test_no_guess_covers_more_of_the_circle():
    """Brute force over the distance of the guess from the elbow."""
    turn = np.linspace(-pi, pi, 20_001)[:-1]
    wrist = 1.2 * np.stack([np.cos(turn), np.sin(turn)])
    hit = [(np.hypot(wrist[0] - radius, wrist[1]) <= 0.5).mean() for radius in np.linspace(0, 2, 401)]
    assert max(hit) == pytest.approx(asin(0.5 / 1.2) / pi, abs=2e-4)
    assert hit[240] == pytest.approx(2 * asin(0.5 / 2.4) / pi, abs=2e-4)


def test_joints_are_inside_and_lengths_are_head_sizes():
    for world in (SLOW, FAST):
        for index in range(30):
            for figure in world.sample(1, "test", index).figures:
                place_TJ2 = joints_of(figure)
                assert place_TJ2.min() >= 0
                assert place_TJ2.max() <= 111
                forearm_T = np.linalg.norm(place_TJ2[:, WRIST] - place_TJ2[:, ELBOW], axis=1)
                np.testing.assert_allclose(forearm_T, 1.2 * figure.head)
                left, top, right, bottom = head_box(place_TJ2[0], figure.head)
                assert 0.6 * np.hypot(right - left, bottom - top) == pytest.approx(figure.head)


def test_a_covered_limb_leaves_no_trace():
    """Turned anywhere while it is covered, not one pixel changes; uncovered, it shows."""
    scene = SCENES[0]
    figure = scene.figures[0]
    angle_TA = np.asarray(figure.angles)
    angle_TA[:, ANGLES.index("right_forearm")] += 2.0
    angle_TA[:, ANGLES.index("left_shin")] -= 1.0
    turned = replace(figure, angles=tuple(map(tuple, angle_TA.tolist())))
    ends = tuple(name in ("right_wrist", "left_ankle") for name in ENDS)
    for covered, same in ((ends, True), ((False,) * 4, False)):
        frames = [
            SLOW.record(replace(scene, figures=(replace(one, covered=(covered,) * 32), *scene.figures[1:]))).frames_THWC
            for one in (figure, turned)
        ]
        assert (frames[0] == frames[1]).all() == same


def test_a_covered_forearm_points_anywhere():
    """Uniform, and independent of the upper arm, the lean and whether it is covered."""
    table = np.zeros((4, 12))
    for index in range(800):
        figure = SLOW.sample(3, "train", index).figures[0]
        lean, upper, lower = (figure.angles[9][ANGLES.index(a)] for a in ("lean", "right_upper_arm", "right_forearm"))
        row = int((lean + upper) % (2 * pi) > pi) + 2 * figure.covered[9][0]
        table[row, int((lean + upper + lower) % (2 * pi) / (pi / 6))] += 1
    assert chi_square_p(table) > 0.01
    assert chi_square_p([table.sum(axis=0), [800 / 12] * 12]) > 0.01


def test_steps_of_slow_and_fast():
    slow = np.diff([scene.figures[0].angles for scene in SCENES], axis=1)
    assert np.abs(slow).max() <= np.deg2rad(6) + 1e-12
    fast_scenes = [FAST.sample(0, "train", index) for index in range(40)]
    tolerances = displacements(fast_scenes) / 0.5
    assert tolerances.mean() >= 1.5
    assert displacements(SCENES).mean() / 0.5 < 0.5
    measured = FAST.measurements(fast_scenes)
    assert measured["joint motion a frame in PCKh tolerances, mean (fast: at least 1.5)"] == tolerances.mean()
    covered = np.mean([figure.covered for scene in SCENES for figure in scene.figures])
    assert covered == pytest.approx(0.3, abs=0.02)
    with pytest.raises(ConfigError, match="motion of sticks must be one of slow, fast, got 'medium'"):
        get_world("sticks", motion="medium")


def test_directions_are_interpolated():
    assert wrist_from_frames([None, 1.0, None, None, 4.0], 2) == pytest.approx(2.0)
    assert wrist_from_frames([3.0, None, -3.0], 1) == pytest.approx(pi)
    assert wrist_from_frames([None, None, 0.5], 0) == 0.5
    assert wrist_from_frames([0.1, 0.2, None], 1) == 0.2
    assert wrist_from_frames([None, None], 0) is None


def test_exports_are_read_as_posetrack_of_either_year(tmp_path):
    folder = make_world("sticks", tmp_path, sizes={"train": 1, "val": 1, "test": 0})
    truth = {sample.id: sample for sample in read_manifest(folder, labels=()).samples}
    for year in ("posetrack17", "posetrack18"):
        annotations = read_posetrack(folder / "official" / year, frame_rate=8.0)
        assert {sample.split for sample in annotations.samples} == {"train", "val"}
        for sample in annotations.samples:
            labelled = list(LABELLED) if sample.split == "train" else list(range(32))
            assert sample.meta["labelled"] == labelled
            expected = [pose for pose in truth[sample.id].poses if pose.frame in labelled]
            assert [(pose.frame, pose.track) for pose in sample.poses] == [(p.frame, p.track) for p in expected]
            for pose, exact in zip(sample.poses, expected, strict=True):
                places = np.array(pose.joints)
                np.testing.assert_allclose(places[:, :2], np.array(exact.joints)[:, :2], atol=0.0056)
                # 2018 knows only whether a joint was annotated.
                assert year == "posetrack18" or (places[:, 2] == np.array(exact.joints)[:, 2]).all()
                np.testing.assert_allclose(pose.head, exact.head, atol=0.0066)
    lines = describe_world(folder)
    assert any(line.startswith("joint motion a frame in PCKh tolerances, mean") for line in lines)


def test_every_frame_is_near_a_labelled_one():
    assert LABELLED == (3, 10, 17, 24, 31)
    assert max(min(abs(frame - label) for label in LABELLED) for frame in range(32)) == 3


def test_an_action_backwards_is_its_opposite():
    world = get_world("stick_actions")
    for index in range(16):
        scene = world.sample(0, "train", index)
        assert action_of(scene.figure) == scene.label
        assert action_of(replace(scene.figure, angles=scene.figure.angles[::-1])) == scene.label ^ 1
        steps_TA = np.rad2deg(np.diff(scene.figure.angles, axis=0))
        arm = ANGLES.index(("left_upper_arm", "right_upper_arm")[scene.label // 2])
        np.testing.assert_allclose(steps_TA[:, arm], 4 * (-1) ** scene.label)
        assert np.abs(np.delete(steps_TA, arm, axis=1)).max() <= 1 + 1e-9


@pytest.mark.parametrize("frame", [0, 31])
def test_one_frame_of_an_action_points_anywhere(frame):
    world = get_world("stick_actions")
    tables = np.zeros((len(ANGLES), 4, 8))
    for index in range(1000):
        scene = world.sample(1, "train", index)
        angle_A = np.asarray(scene.figure.angles[frame])
        tables[np.arange(len(ANGLES)), scene.label, (angle_A % (2 * pi) / (pi / 4)).astype(int) % 8] += 1
    assert min(chi_square_p(table) for table in tables) > 0.01 / (2 * len(ANGLES))
