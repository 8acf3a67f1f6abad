"""AVA: frame-mAP from the official CSV files."""

from __future__ import annotations

from pathlib import Path

from wholereel.evaluation.files.ava import read_box_rows, read_key_frames, read_label_map
from wholereel.evaluation.official.report import ClassValue, Report
from wholereel.metrics.frame_map import FrameMap, Protocol

__all__ = ["ava_report"]

TEXT = {
    "slowfast": "frame-mAP at IoU 0.5 as in facebookresearch/SlowFast: rows in file order, all rows, detections on key "
    "frames without ground truth are false positives",
    "activitynet_official": "frame-mAP at IoU 0.5 as in activitynet/ActivityNet: rows by score, the 50 best of a key "
    "frame, detections on key frames without ground truth do not count unless the frame is declared empty",
}


def ava_report(
    truth: str | Path,
    detections: str | Path,
    labels: str | Path,
    *,
    excluded: str | Path | None = None,
    empty: str | Path | None = None,
    protocol: Protocol = "slowfast",
) -> Report:
    """Evaluate a file of detections.

    Args:
        truth: `ava_val_v2.x.csv`. detections: the same with a score in the last column.
        labels: the label map; its classes are evaluated (60 in the official ones) and no others.
        excluded: `ava_val_excluded_timestamps_v2.x.csv`: key frames that are left out on both sides.
        empty: key frames declared to show nothing, for `activitynet_official`.
    Raises: DataError: a file that is not as expected.
    """
    names = read_label_map(labels)
    true, declared = read_box_rows(truth, truth=True)
    found, _ = read_box_rows(detections, truth=False)
    left_out, more = (frozenset() if path is None else read_key_frames(path) for path in (excluded, empty))
    frames = FrameMap(tuple(names.names), left_out, (true,), (found,), declared | more)
    counts = frames.compute(protocol, input_order=True)
    metrics = {"mAP": counts.mean()} | {f"mAP_{name}": counts.mean(ids) for name, ids in names.groups.items()}
    rows = [ClassValue(names.names[number], counts.truth_boxes[number], value) for number, value in counts.ap.items()]
    return Report(
        {"name": f"AVA, {protocol}", "text": TEXT[protocol], "protocol": protocol, "iou": 0.5},
        {
            "classes": len(names.names),
            "classes_with_truth": counts.classes_with_truth,
            "key_frames_truth": counts.frames_truth,
            "key_frames_detected": counts.frames_detected,
            "key_frames_both": counts.frames_both,
            "key_frames_excluded": len(left_out),
            "rows_truth": counts.rows_truth,
            "rows_detected": counts.rows_detected,
            "rows_ignored": counts.rows_ignored,
        },
        metrics,
        tuple(rows),
    )
