"""Poses in videos: golden values of poseval, matching, polygons, tracking by hand, quirks on and off, shards."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.parity.families import check_file
from wholereel.metrics.assignment import cheapest_matching
from wholereel.metrics.clear_mot import MotCounts, Tracker
from wholereel.metrics.polygons import inside_polygons
from wholereel.metrics.pose_tracks import JOINTS, Persons, PoseFrame, PoseTracks, without_ignored

GOLDEN = Path(__file__).parents[1] / "golden" / "datasets_and_metrics"


@pytest.mark.parametrize("name", ["posetrack_a/expected", "poseval17_ignore", "poseval18"])
def test_official_numbers(name):
    line = check_file(GOLDEN / f"{name}.json")
    assert line.status == "pass", line.text


COSTS = st.tuples(st.integers(1, 4), st.integers(1, 4)).flatmap(
    lambda shape: st.lists(
        st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.4, float("nan")]), min_size=shape[1], max_size=shape[1]),
        min_size=shape[0],
        max_size=shape[0],
    )
)


def every_matching(cost):
    objects, hypotheses = cost.shape
    for count in range(min(objects, hypotheses) + 1):
        for rows in itertools.combinations(range(objects), count):
            for columns in itertools.permutations(range(hypotheses), count):
                pairs = list(zip(rows, columns, strict=True))
                if all(np.isfinite(cost[pair]) for pair in pairs):
                    yield pairs


@settings(max_examples=150, deadline=None)
@given(COSTS)
def test_matching_is_the_largest_and_of_these_the_cheapest(cost):
    cost = np.array(cost)
    pairs = cheapest_matching(cost)
    assert len({o for o, _ in pairs}) == len({h for _, h in pairs}) == len(pairs)
    best = min((-len(found), sum(cost[pair] for pair in found)) for found in every_matching(cost))
    assert -len(pairs) == best[0]
    assert sum(cost[pair] for pair in pairs) == pytest.approx(best[1])


def test_no_objects_or_no_hypotheses():
    assert cheapest_matching(np.empty((0, 3))) == []
    assert cheapest_matching(np.full((2, 2), np.nan)) == []


def test_tracking_by_hand():
    tracker = Tracker()
    tracker.update([1, 2], [7, 8], np.array([[0.1, 0.4], [np.nan, 0.2]]))
    tracker.update([1, 2], [7, 8], np.array([[0.4, 0.1], [0.1, 0.3]]))  # the pairs stay, though others are nearer
    tracker.update([1, 2], [8], np.array([[0.1], [np.nan]]))  # 1 goes over to 8; 2 is missed
    tracker.update([1], [9, 8], np.array([[np.nan, np.nan]]))
    assert tracker.counts == MotCounts(7, 5, 2, 2, 1, pytest.approx(1.1), pytest.approx(1.1 + 1.7 + 0.1))
    values = tracker.counts.value()
    assert values["mota"] == pytest.approx(1 - 5 / 7)
    assert values["motp"] == pytest.approx(1 - 1.1 / 5)
    assert (values["precision"], values["recall"]) == (pytest.approx(5 / 7), pytest.approx(5 / 7))
    assert np.isnan(MotCounts().value()["mota"])
    assert MotCounts().value()["motp"] == 0.0


def test_strictly_inside_polygons():
    square = np.array([[0, 0], [4, 0], [4, 4], [0, 4]])
    bow = np.array([[10, 0], [14, 4], [14, 0], [10, 4]])  # crosses itself
    points = np.array([[1, 1], [0, 1], [4, 4], [5, 1], [11, 2], [12, 1], [13, 2], [np.nan, 1], [2, 0]])
    expected = [True, False, False, False, True, False, True, False, False]
    assert inside_polygons(points, [square, bow]).tolist() == expected
    assert inside_polygons(points, [square[::-1], bow[::-1]]).tolist() == expected


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=6),
    st.tuples(st.integers(0, 5), st.integers(0, 5)),
)
def test_polygons_by_winding_of_a_generic_ray(corners, offset):
    """Points off the lattice, ray in a direction that meets no corner: parity of proper crossings."""
    point = np.array([offset[0] + 0.37, offset[1] + 0.43])
    end = point + np.array([100.0, 31.4159])
    crossings = 0
    for a, b in itertools.pairwise([*corners, corners[0]]):
        a, b = np.array(a, dtype=float), np.array(b, dtype=float)
        sides = [np.sign((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))
                 for p, q, r in ((point, end, a), (point, end, b), (a, b, point), (a, b, end))]  # fmt: skip
        crossings += sides[0] != sides[1] and sides[2] != sides[3]
    assert inside_polygons(point, [np.array(corners)]) == (crossings % 2 == 1)


def persons(*centres, track=None, score=0.5, missing=()):
    joint = np.array([[[x + i, y] for i in range(len(JOINTS))] for x, y in centres], dtype=float)
    joint = joint.reshape(len(centres), len(JOINTS), 2)
    joint[:, list(missing)] = np.nan
    head = np.array([[x, y, x + 6.0, y + 8.0] for x, y in centres]).reshape(len(centres), 4)  # head size 6
    identities = np.arange(len(centres)) if track is None else np.array(track)
    return Persons(joint, np.full(joint.shape[:2], score), head, identities)


def test_half_a_head_is_near_and_the_rest_is_false():
    frame = PoseFrame(persons((0, 0)), persons((0, 3), (0, 3.01), (50, 50), score=0.9))
    values = PoseTracks().update("a", [frame]).compute()
    assert values["recall/total"] == 1.0
    assert values["precision/nose"] == pytest.approx(1 / 3)
    assert values["AP/nose"] == 1.0


def test_each_true_person_keeps_its_best_prediction_and_no_other():
    truth = persons((0, 0), (3, 0))
    # the first is nearest to person 0; the second, too, and is worse: it gets nobody, though person 1 is free
    predicted = persons((0, 0), (0.5, 2.8))
    values = PoseTracks().update("a", [PoseFrame(truth, predicted)]).compute()
    assert values["recall/nose"] == 0.5
    assert values["precision/nose"] == 0.5


def test_a_joint_that_the_truth_lacks_counts_against():
    frame = PoseFrame(persons((0, 0), missing=[13]), persons((0, 0)))
    values = PoseTracks().update("a", [frame]).compute()
    assert values["precision/nose"] == 0.0
    assert np.isnan(values["AP/nose"])
    assert np.isnan(values["AP/Head"])
    assert values["AP/total"] == 1.0  # of joints that are labelled
    silent = PoseTracks().update("a", [PoseFrame(persons((0, 0), missing=[13]), persons((0, 0), missing=[13]))])
    assert silent.compute()["AP/nose"] == 0.0  # as in the public code, where nothing is predicted


def test_ignored_regions_empty_a_person_and_leave_its_frame():
    region = np.array([[-5, -5], [40, -5], [40, 5], [-5, 5]])
    frame = PoseFrame(persons((0, 0)), persons((0, 0), (60, 60)), (region,))
    stripped = without_ignored(frame)
    assert (len(stripped.truth), len(stripped.predicted)) == (0, 1)
    values = PoseTracks().update("a", [frame, PoseFrame(persons((0, 0)), persons((0, 0)))]).compute()
    assert values["precision/nose"] == 0.5
    assert values["recall/nose"] == 1.0


def test_tracking_of_the_reference_and_in_full():
    right, empty = PoseFrame(persons((0, 0)), persons((0, 0))), PoseFrame(persons((0, 0), (50, 0)), persons())
    tracks = PoseTracks().update("a", [right, empty, right])
    strict, full = tracks.compute(), tracks.compute(strict_reference=False)
    # reference: frames 0 and 1, the second as one missed and one false person
    assert strict["MOTA/total"] == pytest.approx(1 - 2 / 2)
    assert full["MOTA/total"] == pytest.approx(1 - 2 / 4)
    assert full["track_recall/nose"] == 0.5
    assert full["MOTP/total"] == 1.0


def test_identities():
    frame = PoseFrame(persons((0, 0)), persons((0, 0)))
    none = PoseFrame(frame.truth, replace(frame.predicted, track_P=None))
    values = PoseTracks().update("a", [frame, none]).compute()
    assert "AP/total" in values
    assert "MOTA/total" not in values
    with pytest.raises(ValueError, match=r"unique inside a frame, got \[4, 4\]"):
        PoseTracks().update("a", [PoseFrame(frame.truth, persons((0, 0), (9, 9), track=[4, 4]))] * 2)


def test_shards_of_sequences():
    rng = np.random.RandomState(0)

    def sequence():
        return [
            PoseFrame(persons(*rng.randint(0, 40, (2, 2))), persons(*rng.randint(0, 40, (3, 2)), score=rng.rand()))
            for _ in range(4)
        ]

    sequences = {f"s{i}": sequence() for i in range(5)}

    def of(names):
        tracks = PoseTracks()
        for name in names:
            tracks = tracks.update(name, sequences[name])
        return tracks

    whole, merged = of(sequences), of(["s3", "s0"]).merge(of(["s4", "s1", "s3"])).merge(of(["s2", "s0"]))
    np.testing.assert_equal(merged.compute(), whole.compute())
    assert merged.counts() == whole.counts()
