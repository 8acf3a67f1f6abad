"""What classifiers make of single decoded frames, and of a file's size and colours, where worlds hide the label.

K classes, N samples, F features. The slow version, with a small two-dimensional network beside the linear classifier:
`python -m tests.datasets.worlds.frame_probes COUNT SEED`.
"""

from __future__ import annotations

import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch
from torch import nn

from wholereel.datasets.worlds import get_world
from wholereel.datasets.worlds.base import Recording
from wholereel.datasets.worlds.make import write_recording
from wholereel.datasets.worlds.skeleton import ENDS, FOREARM, JOINTS, joints_of
from wholereel.datasets.worlds.sticks import TOLERANCE
from wholereel.datasets.worlds.verify import decode

CELL = 4
# World: the label that a frame does not tell, and how often a guess is right.
HIDDEN = {
    "finemotion8": (lambda scene: scene.label, 1 / 8),
    "bounce_rhythm": (lambda scene: scene.label, 1 / 4),
    "stick_actions": (lambda scene: scene.label, 1 / 4),
    "motion_objects": (lambda scene: scene.mover.verb, 1 / 4),
    "distinit_transfer": (lambda scene: scene.mover.verb, 1 / 4),
}
BINS = 24  # directions of a forearm that classifiers choose from
PATCH = 36  # pixels around an elbow, a little more than a forearm each way


def decoded_frames(world, *, count: int, label, seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One random frame of each of the first training scenes, through the encoder (all intra: each stands alone).

    Returns: pictures_NHWC uint8, labels_N, outside_NF (size of the file, mean red, green and blue).
    """
    generator = np.random.default_rng(5)
    pictures, labels, outside = [], [], []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "one.mp4"
        for index in range(count):
            scene = world.sample(seed, "train", index)
            frames_THWC = world.record(scene).frames_THWC
            frame = int(generator.integers(len(frames_THWC)))
            write_recording(path, world, Recording(frames_THWC[frame : frame + 1]))
            pictures.append(decode(path)[0])
            outside.append([path.stat().st_size, *pictures[-1].mean(axis=(0, 1))])
            labels.append(label(scene))
    return np.stack(pictures), np.array(labels), np.array(outside)


def cell_means(pictures_NHWC: np.ndarray) -> np.ndarray:
    """Mean colours of cells of 4 x 4 pixels. Returns: features_NF."""
    n, h, w, c = pictures_NHWC.shape
    cells = pictures_NHWC.astype(np.float64).reshape(n, h // CELL, CELL, w // CELL, CELL, c)
    return cells.mean(axis=(2, 4)).reshape(n, -1)


def linear_accuracy(features_NF: np.ndarray, labels_N: np.ndarray) -> float:
    """Share of right answers on the second half of a linear classifier that was trained on the first."""
    return float((linear_answers(features_NF, labels_N) == labels_N[len(labels_N) // 2 :]).mean())


def linear_answers(features_NF: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """What a ridge regression from the first half to one column a class says of the second."""
    features_NF = (features_NF - features_NF.mean(axis=0)) / (features_NF.std(axis=0) + 1e-9)
    half = len(labels_N) // 2
    targets_NK = np.eye(int(labels_N.max()) + 1)[labels_N[:half]] - 1 / (labels_N.max() + 1)
    # The dual form: fewer samples than features.
    gram_NN = features_NF[:half] @ features_NF[:half].T
    weights_NK = np.linalg.solve(gram_NN + features_NF.shape[1] * np.eye(half), targets_NK)
    scores_NK = features_NF[half:] @ features_NF[:half].T @ weights_NK
    return scores_NK.argmax(axis=1)


def network_accuracy(pictures_NHWC: np.ndarray, labels_N: np.ndarray) -> float:
    """The same of a small convolutional network."""
    return float((network_answers(pictures_NHWC, labels_N) == labels_N[len(labels_N) // 2 :]).mean())


def network_answers(pictures_NHWC: np.ndarray, labels_N: np.ndarray, *, epochs: int = 12) -> np.ndarray:
    """What a small convolutional network that was trained on the first half says of the second."""
    torch.manual_seed(0)
    pixels_NCHW = torch.from_numpy(pictures_NHWC).permute(0, 3, 1, 2).float() / 128 - 1
    labels = torch.from_numpy(labels_N)
    half = len(labels) // 2
    widths = (3, 16, 32, 64, 64)
    layers = [
        part
        for before, after in pairwise(widths)
        for part in (nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU())
    ]
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * widths[-1], int(labels.max()) + 1)]
    network = nn.Sequential(*layers, *head)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.05)
    for _ in range(epochs):
        for batch in torch.randperm(half).split(32):
            loss = nn.functional.cross_entropy(network(pixels_NCHW[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        found = torch.cat([network(part).argmax(1) for part in pixels_NCHW[half:].split(100)])
    return found.numpy()


def forearms(world, *, count: int, covered: bool, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Pictures around true elbows in decoded frames of `sticks`, whose wrist is covered (or not), and the direction.

    Returns: pictures_NHWC uint8, directions_N in radians.
    """
    generator = np.random.default_rng(5)
    pictures, directions = [], []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "one.mp4"
        index = 0
        while len(pictures) < count:
            scene = world.sample(seed, "train", index)
            index += 1
            figure = scene.figures[-1]  # the nearest: nobody stands in front of it
            frame, side = int(generator.integers(len(figure.root))), ("right", "left")[index % 2]
            if figure.covered[frame][ENDS.index(f"{side}_wrist")] != covered:
                continue
            write_recording(path, world, Recording(world.record(scene).frames_THWC[frame : frame + 1]))
            elbow_2, wrist_2 = (joints_of(figure)[frame, JOINTS.index(f"{side}_{part}")] for part in ("elbow", "wrist"))
            x, y = (round(at) for at in elbow_2.tolist())
            padded_HWC = np.pad(decode(path)[0], ((PATCH // 2,) * 2, (PATCH // 2,) * 2, (0, 0)))
            pictures.append(padded_HWC[y : y + PATCH, x : x + PATCH])
            directions.append(float(np.arctan2(*(wrist_2 - elbow_2)[::-1])))
    return np.stack(pictures), np.array(directions)


def wrist_hits(bins_N: np.ndarray, directions_N: np.ndarray, *, radius: float) -> float:
    """Share of wrists that a guess in the middle of these bins, at a distance from the elbow, hits within PCKh."""
    turn_N = (bins_N + 0.5) * 2 * np.pi / BINS - np.pi - directions_N
    return float((radius**2 + FOREARM**2 - 2 * radius * FOREARM * np.cos(turn_N) <= TOLERANCE**2).mean())


def interval(ceiling: float, samples: int, *, tests: int = 1) -> tuple[float, float]:
    """Where an accuracy lies 95 % of the time in all of `tests` tests, if its expectation is the ceiling."""
    width = NormalDist().inv_cdf(1 - 0.025 / tests) * (ceiling * (1 - ceiling) / samples) ** 0.5
    return ceiling - width, ceiling + width


def main(count: int, seed: int) -> None:
    for name, (label, ceiling) in HIDDEN.items():
        pictures_NHWC, labels_N, outside_NF = decoded_frames(get_world(name), count=count, label=label, seed=seed)
        low, high = interval(ceiling, count - count // 2)
        accuracies = {
            "linear": linear_accuracy(cell_means(pictures_NHWC), labels_N),
            "file's outside": linear_accuracy(outside_NF, labels_N),
            "network": network_accuracy(pictures_NHWC, labels_N),
        }
        print(f"{name} [{low:.3f}, {high:.3f}]", {k: round(v, 3) for k, v in accuracies.items()}, flush=True)
    pictures_NHWC, labels_N, _ = decoded_frames(
        get_world("motion_objects"), count=count, label=lambda scene: scene.mover.kind, seed=seed
    )
    print("control, noun of motion_objects:", round(network_accuracy(pictures_NHWC, labels_N), 3))
    wrists(count, seed)


def wrists(count: int, seed: int) -> None:
    """Covered wrists of `sticks` from one frame: a guess at the best place hits asin(0.5 / 1.2) / pi of them."""
    ceiling, radius = np.arcsin(TOLERANCE / FOREARM) / np.pi, (FOREARM**2 - TOLERANCE**2) ** 0.5
    low, high = interval(ceiling, count - count // 2)
    for covered in (True, False):
        pictures_NHWC, directions_N = forearms(get_world("sticks"), count=count, covered=covered, seed=seed)
        bins_N = ((directions_N + np.pi) / (2 * np.pi) * BINS).astype(np.int64) % BINS
        tested_N = directions_N[count // 2 :]
        answers = {
            "linear": linear_answers(cell_means(pictures_NHWC), bins_N),
            "network": network_answers(pictures_NHWC, bins_N),
        }
        hits = {
            k: round(wrist_hits(found, tested_N, radius=radius if covered else FOREARM), 3)
            for k, found in answers.items()
        }
        text = f"covered wrists [{low:.3f}, {high:.3f}]" if covered else "control, wrists that can be seen"
        print(f"sticks, {text}", hits, flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
