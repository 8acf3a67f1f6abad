"""Frame-mAP: golden values of both public evaluators, literal re-computation, streams, shards, traps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.parity.families import check_file
from wholereel.metrics.frame_map import PROTOCOLS, BoxRows, FrameMap, interpolated_average_precision

GOLDEN = Path(__file__).parents[1] / "golden" / "datasets_and_metrics"


@pytest.mark.parametrize("case", ["ava_small", "ava_empty_keyframes"])
def test_official_numbers(case):
    line = check_file(GOLDEN / case / "expected.json")
    assert line.status == "pass", line.text


def rows(*values, frames=None):
    """(frame, box, class, score) tuples."""
    names = list(dict.fromkeys(value[0] for value in values)) if frames is None else frames
    return BoxRows(
        np.array([names.index(value[0]) for value in values], dtype=np.int64),
        np.array([value[1] for value in values], dtype=np.float64).reshape(-1, 4),
        np.array([value[2] for value in values], dtype=np.int64),
        np.array([value[3] for value in values], dtype=np.float64),
        tuple(names),
    )


A, SHIFTED, FAR = (0.0, 0.0, 0.4, 0.4), (0.0, 0.0, 0.4, 0.5), (0.5, 0.5, 0.9, 0.9)


def overlap(a, b):
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    shared = height * width
    return shared / ((a[3] - a[1]) * (a[2] - a[0]) + (b[3] - b[1]) * (b[2] - b[0]) - shared)


def literal(truth, detections, classes, protocol, empty=()):
    """The rules in words, one detection at a time; rows as tuples."""
    truth = [row for row in truth if row[2] in classes]
    known = {row[0] for row in truth} | set(empty)
    frames = list(dict.fromkeys(row[0] for row in detections))
    found = {number: [] for number in classes}
    for frame in frames:
        own = [row for row in detections if row[0] == frame and row[2] in classes]
        if protocol == "activitynet_official":
            own = sorted(own, key=lambda row: -row[3])[:50] if frame in known else []
        free = [True] * len(truth)
        for _, box, number, score in own:
            if box[2] <= box[0] or box[3] <= box[1]:
                continue
            rivals = [i for i, row in enumerate(truth) if row[0] == frame and row[2] == number]
            best = max(rivals, key=lambda i: overlap(box, truth[i][1]), default=None)
            hit = best is not None and overlap(box, truth[best][1]) >= 0.5 and free[best]
            if hit:
                free[best] = False
            found[number].append((score, hit))
    values = {}
    for number in classes:
        wanted = sum(row[2] == number for row in truth)
        ranked = [hit for _, hit in sorted(found[number], key=lambda item: -item[0])]
        precision = [sum(ranked[: i + 1]) / (i + 1) for i in range(len(ranked))]
        values[number] = sum(max(precision[i:]) for i in range(len(ranked)) if ranked[i]) / wanted if wanted else None
    return values


def compared(frame_map, truth, detections, empty=()):
    for protocol in PROTOCOLS:
        ours = frame_map.compute(protocol, input_order=True).ap
        theirs = literal(truth, detections, frame_map.classes, protocol, empty)
        for number, value in theirs.items():
            assert (np.isnan(ours[number])) if value is None else ours[number] == pytest.approx(value, abs=1e-12)


BOX = st.tuples(*(st.integers(0, 4) for _ in range(4))).map(lambda c: tuple(x / 4 for x in c))
TRUE_BOX = st.sampled_from([A, SHIFTED, FAR, (0.0, 0.0, 1.0, 1.0), (0.25, 0.0, 0.75, 0.5)])


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), TRUE_BOX, st.integers(1, 4), st.just(1.0)), max_size=8),
    st.lists(st.tuples(st.sampled_from("abcd"), BOX, st.integers(1, 4), st.sampled_from([0.1, 0.5, 0.9])), max_size=70),
    st.sets(st.sampled_from("bcd")),
)
def test_literal_rules(truth, detections, empty):
    frame_map = FrameMap((1, 2, 3), frozenset(), (rows(*truth),), (rows(*detections),), frozenset(empty))
    compared(frame_map, truth, detections, empty)


def test_more_than_fifty_rows_of_a_key_frame():
    rng = np.random.RandomState(0)
    truth = [(frame, A, number, 1.0) for frame in "ab" for number in (1, 2, 3)]
    boxes = [A, SHIFTED, FAR]
    detections = [(f, boxes[rng.randint(3)], int(rng.randint(1, 4)), float(rng.rand())) for f in "abc" * 60]
    frame_map = FrameMap((1, 2, 3), frozenset(), (rows(*truth),), (rows(*detections),))
    compared(frame_map, truth, detections)
    counts = frame_map.compute("activitynet_official")
    assert (counts.rows_detected, counts.rows_ignored) == (100, 80)
    assert (counts.frames_truth, counts.frames_detected, counts.frames_both) == (2, 2, 2)
    counts = frame_map.compute()
    assert (counts.rows_detected, counts.frames_detected) == (180, 3)


def test_order_within_a_key_frame_differs_by_protocol():
    truth = rows(("f", A, 1, 1.0))
    detections = rows(("f", A, 1, 0.2), ("f", A, 1, 0.9))  # in file order, the first one takes the box
    frame_map = FrameMap((1,), frozenset(), (truth,), (detections,))
    assert frame_map.compute("slowfast").mean() == 0.5
    assert frame_map.compute("activitynet_official").mean() == 1.0


def test_no_second_choice_and_half_is_enough():
    near, half = (0.0, 0.0, 0.4, 0.36), (0.0, 0.0, 0.5, 0.25)
    truth = rows(("f", A, 1, 1.0), ("f", SHIFTED, 1, 1.0))
    twice = rows(("f", near, 1, 0.9), ("f", near, 1, 0.8))
    assert FrameMap((1,), frozenset(), (truth,), (twice,)).compute().mean() == 0.5
    exactly = FrameMap((1,), frozenset(), (rows(("f", (0.0, 0.0, 0.5, 0.5), 1, 1.0)),), (rows(("f", half, 1, 0.9)),))
    assert exactly.compute().mean() == 1.0


def test_ties_follow_the_input_or_the_name():
    truth = rows(("b", A, 1, 1.0), ("a", A, 1, 1.0))
    detections = rows(("b", A, 1, 0.5), ("a", FAR, 1, 0.5))
    frame_map = FrameMap((1,), frozenset(), (truth,), (detections,))
    assert frame_map.compute(input_order=True).mean() == 0.5
    assert frame_map.compute().mean() == 0.25


def test_excluded_key_frames_leave_both_sides():
    truth = rows(("a", A, 1, 1.0), ("b", A, 1, 1.0))
    detections = rows(("a", A, 1, 0.5), ("b", FAR, 1, 0.9))
    counts = FrameMap((1,), frozenset({"b"}), (truth,), (detections,)).compute()
    assert (counts.mean(), counts.rows_truth, counts.rows_detected, counts.frames_truth) == (1.0, 1, 1, 1)


def test_batches_and_shards_in_any_order_with_doubled_key_frames():
    rng = np.random.RandomState(1)
    names = [f"v{i:02d}" for i in range(21)]
    truth = {n: [(n, A, int(rng.randint(1, 4)), 1.0) for _ in range(rng.randint(3))] for n in names}
    found = {
        n: [(n, [A, SHIFTED, FAR][rng.randint(3)], int(rng.randint(1, 4)), rng.randint(5) / 5) for _ in range(6)]
        for n in names
    }
    classes = (1, 2, 3)

    def of(part):
        return FrameMap(classes).update(
            truth=rows(*(row for n in part for row in truth[n]), frames=list(part)),
            detections=rows(*(row for n in part for row in found[n]), frames=list(part)),
        )

    whole = of(names)
    parts = [of([*names[i::4], names[0], names[1]][: 6 + i]) for i in range(4)]  # uneven, padded
    parts.append(of(names[::-1]))
    merged = parts[2].merge(parts[0]).merge(parts[3]).merge(parts[1]).merge(parts[4])
    for protocol in PROTOCOLS:
        assert merged.compute(protocol) == whole.compute(protocol)


def test_groups_and_nothing():
    counts = FrameMap((1, 2), frozenset(), (rows(("a", A, 1, 1.0)),), (rows(("a", A, 1, 0.5)),)).compute()
    assert counts.mean(frozenset({1})) == 1.0
    assert np.isnan(counts.mean(frozenset({2})))
    assert (counts.classes_with_truth, dict(counts.truth_boxes)) == (1, {1: 1, 2: 0})
    empty = FrameMap((1,)).compute()
    assert np.isnan(empty.mean())
    assert interpolated_average_precision(np.empty(0, dtype=bool), 3) == 0.0


def test_errors():
    with pytest.raises(ValueError, match="protocol='coco' is none of slowfast, activitynet_official"):
        FrameMap((1,)).compute("coco")
    with pytest.raises(ValueError, match="other classes"):
        FrameMap((1,)).merge(FrameMap((2,)))
    with pytest.raises(ValueError, match=r"2 rows need boxes \(2, 4\)"):
        BoxRows(np.zeros(2, dtype=int), np.zeros((1, 4)), np.zeros(2), np.zeros(2), ("a",))
