"""What a linear classifier makes of single decoded frames, and of a file's size and colours.

K classes, N samples, F features.
"""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist

import numpy as np

from wholereel.datasets.worlds.base import Recording
from wholereel.datasets.worlds.make import write_recording
from wholereel.datasets.worlds.verify import decode

CELL = 4


def decoded_frames(world, path: Path, *, count: int, label) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One random frame of each of the first training scenes, through the encoder (all intra: each stands alone).

    Returns: pictures_NHWC (block means), labels_N, outside_NF (size of the file, mean red, green and blue).
    """
    generator = np.random.default_rng(5)
    pictures, labels, outside = [], [], []
    for index in range(count):
        scene = world.sample(3, "train", index)
        frames_THWC = world.record(scene).frames_THWC
        frame = int(generator.integers(len(frames_THWC)))
        write_recording(path, world, Recording(frames_THWC[frame : frame + 1]))
        picture_HWC = decode(path)[0].astype(np.float64)
        cells = world.size // CELL
        pictures.append(picture_HWC.reshape(cells, CELL, cells, CELL, 3).mean(axis=(1, 3)))
        outside.append([path.stat().st_size, *picture_HWC.mean(axis=(0, 1))])
        labels.append(label(scene))
    return np.stack(pictures), np.array(labels), np.array(outside)


def linear_accuracy(features_NF: np.ndarray, labels_N: np.ndarray, *, ridge: float = 10.0) -> float:
    """Share of right answers on the second half of a ridge regression from the first half to one column a class."""
    features_NF = (features_NF - features_NF.mean(axis=0)) / (features_NF.std(axis=0) + 1e-9)
    half = len(labels_N) // 2
    targets_NK = np.eye(int(labels_N.max()) + 1)[labels_N] - 1 / (labels_N.max() + 1)
    # The dual form: fewer samples than features.
    gram = features_NF[:half] @ features_NF[:half].T
    weights = np.linalg.solve(gram + ridge * features_NF.shape[1] * np.eye(half) / 10, targets_NK[:half])
    scores_NK = features_NF[half:] @ features_NF[:half].T @ weights
    return float((scores_NK.argmax(axis=1) == labels_N[half:]).mean())


def inside_interval(accuracy: float, ceiling: float, samples: int, *, tests: int = 1) -> bool:
    """Whether an accuracy is in the interval around a ceiling that holds 95 % of the time for all of `tests` tests."""
    width = NormalDist().inv_cdf(1 - 0.025 / tests)
    return abs(accuracy - ceiling) <= width * (ceiling * (1 - ceiling) / samples) ** 0.5
