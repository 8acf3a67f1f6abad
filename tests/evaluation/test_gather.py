"""Every metric gives the same numbers from one, two and three processes: 101 samples, uneven shards, padding."""

from __future__ import annotations

import os
import pickle
import socket

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.utils.data import DistributedSampler

from wholereel.evaluation.gather import gather, merge_over_ranks
from wholereel.evaluation.loading import shard
from wholereel.metrics.class_recall import Anticipation
from wholereel.metrics.confusion import confusion_counts
from wholereel.metrics.frame_map import PROTOCOLS, BoxRows, FrameMap
from wholereel.metrics.keypoint_ap import DetectedPoses, KeypointAP, TruePoses
from wholereel.metrics.pck import pck_counts
from wholereel.metrics.pose_tracks import JOINTS, Persons, PoseFrame, PoseTracks
from wholereel.metrics.topk import topk_counts
from wholereel.metrics.verb_noun import VerbNoun, VerbNounSplits
from wholereel.metrics.video_scores import MultiLabelVideos, SingleLabelVideos

SAMPLES = 101
SPLITS = VerbNounSplits(frozenset({"P01"}), frozenset({2}), frozenset({3, 4}))


def sample(index):
    """Everything about one sample, from its index alone; scores of few values, so that there are ties."""
    rng = np.random.RandomState(index)
    return {
        "id": f"s{index:03d}",
        "scores": np.round(rng.rand(12), 1),
        "nouns": np.round(rng.rand(15), 1),
        "verb": int(rng.randint(12)),
        "noun": int(rng.randint(15)),
        "labels": rng.rand(12) < 0.2,
        "participant": f"P{rng.randint(3):02d}",
        "boxes": np.sort(rng.randint(0, 5, (4, 2, 2)), axis=1).reshape(4, 4) / 4,
        "classes": rng.randint(1, 4, 4),
        "joints": rng.rand(2, 2, len(JOINTS), 2) * 20,
        "box_scores": np.round(rng.rand(4), 1),
    }


def boxes(found, part, score):
    """The first two boxes are true, the last two detected."""
    rows = np.repeat(np.arange(len(found)), 2)
    score_R = np.concatenate([one["box_scores"][part] for one in found]) if score else np.ones(len(rows))
    box_R4, class_R = (np.concatenate([one[name][part] for one in found]) for name in ("boxes", "classes"))
    return BoxRows(rows, box_R4, class_R, score_R, tuple(one["id"] for one in found))


def persons(joints):
    joint_PJ2 = joints[None]
    return Persons(joint_PJ2, np.ones(joint_PJ2.shape[:2]), np.array([[0.0, 0, 6, 8]]), np.array([0]))


def by_id(indices, batch=7):
    """Metrics that keep ids; the batches may hold samples that another process has, too."""
    metrics = {
        "videos": SingleLabelVideos(),
        "labels": MultiLabelVideos(),
        "verb_noun": VerbNoun(SPLITS),
        "anticipation": Anticipation(SPLITS, {"verb": frozenset({1, 2, 3})}),
        "boxes": FrameMap((1, 2, 3)),
        "tracks": PoseTracks(),
        "keypoints": KeypointAP((0.1,) * len(JOINTS)),
    }
    for begin in range(0, len(indices), batch):
        found = [sample(index) for index in indices[begin : begin + batch]]
        ids, people = ([one[name] for one in found] for name in ("id", "participant"))
        table = {name: np.stack([one[name] for one in found]) for name in ("scores", "nouns", "verb", "noun", "labels")}
        scores, verb, noun = table["scores"], table["verb"], table["noun"]
        metrics["videos"] = metrics["videos"].update(ids, torch.from_numpy(scores), torch.from_numpy(verb))
        metrics["labels"] = metrics["labels"].update(ids, torch.from_numpy(scores), torch.from_numpy(table["labels"]))
        metrics["verb_noun"] = metrics["verb_noun"].update(ids, scores, table["nouns"], verb, noun, people)
        metrics["anticipation"] = metrics["anticipation"].update(
            ids, {"verb": scores, "noun": table["nouns"]}, {"verb": verb, "noun": noun}, people
        )
        metrics["boxes"] = metrics["boxes"].update(
            truth=boxes(found, slice(0, 2), False), detections=boxes(found, slice(2, 4), True)
        )
        for one in found:
            frames = [PoseFrame(persons(one["joints"][frame, 0]), persons(one["joints"][frame, 1])) for frame in (0, 1)]
            metrics["tracks"] = metrics["tracks"].update(one["id"], frames)
            true = np.concatenate([one["joints"][:, 0], np.ones((2, len(JOINTS), 1))], axis=-1)
            truth = TruePoses(true, np.full(2, 2000.0), np.array([[0.0, 0, 20, 20]] * 2), np.zeros(2, dtype=bool))
            found_poses = DetectedPoses(one["joints"][:, 1], one["box_scores"][:2])
            metrics["keypoints"] = metrics["keypoints"].update(int(one["id"][1:]), truth, found_poses)
    return metrics


def plain_counts(indices):
    """Counts without ids; every sample belongs to one process."""
    found = [sample(index) for index in indices]
    scores_BK = torch.from_numpy(np.stack([one["scores"] for one in found]))
    target_B = torch.tensor([one["verb"] for one in found])
    joints = torch.from_numpy(np.stack([one["joints"] for one in found]))
    return {
        "topk": topk_counts(scores_BK, target_B),
        "confusion": confusion_counts(scores_BK, target_B),
        "pck": pck_counts(
            joints[:, 0, 1], joints[:, 0, 0], torch.ones(joints.shape[0], len(JOINTS)), torch.full((len(found),), 10.0)
        ),
    }


def values(by_id_metrics, counts):
    numbers = {name: metric.compute() for name, metric in by_id_metrics.items() if name != "boxes"}
    numbers |= {f"boxes {protocol}": by_id_metrics["boxes"].compute(protocol) for protocol in PROTOCOLS}
    numbers |= {name: count.value() for name, count in counts.items()}
    return numbers | {f"{name} counts": by_id_metrics[name].counts() for name in ("videos", "verb_noun", "tracks")}


def worker(rank, world_size, port, folder):
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    try:
        padded = list(DistributedSampler(range(SAMPLES), shuffle=False))  # repeats samples to even out the ranks
        assert len(padded) * world_size >= SAMPLES
        metrics = {name: merge_over_ranks(metric) for name, metric in by_id(padded, batch=5 + rank).items()}
        counts = {
            name: merge_over_ranks(count) for name, count in plain_counts(shard(SAMPLES, rank, world_size)).items()
        }
        with open(f"{folder}/{world_size}-{rank}.pkl", "wb") as file:
            pickle.dump(values(metrics, counts), file)
    finally:
        dist.destroy_process_group()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_numbers_do_not_depend_on_the_number_of_processes(world_size, tmp_path):
    everything = list(range(SAMPLES))
    alone = values(by_id(everything), plain_counts(everything))
    # fork: fresh interpreters would import torch for longer than the test takes
    mp.start_processes(worker, (world_size, free_port(), str(tmp_path)), nprocs=world_size, start_method="fork")
    for rank in range(world_size):
        with open(tmp_path / f"{world_size}-{rank}.pkl", "rb") as file:
            np.testing.assert_equal(pickle.load(file), alone)  # noqa: S301
    assert alone["videos counts"]["videos"] == SAMPLES
    assert 0.0 < alone["boxes slowfast"].mean() < 1.0
    assert 0.0 < alone["tracks"]["AP/total"] < 1.0


def test_without_a_process_group():
    assert gather(3) == [3]
    counts = plain_counts([0, 1])["topk"]
    assert merge_over_ranks(counts) is counts
