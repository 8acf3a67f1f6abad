"""Measures gathered by id: equal to the plain counts, padded samples once, official Charades variants, clip@1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.parity.families import check_file
from wholereel.metrics.average_precision import average_precision_K, weighted_mean
from wholereel.metrics.confusion import confusion_counts
from wholereel.metrics.samples import Samples
from wholereel.metrics.topk import topk_counts
from wholereel.metrics.video_scores import MultiLabelVideos, SingleLabelVideos, clip_accuracy_B

GOLDEN = Path(__file__).parents[1] / "golden" / "datasets_and_metrics"


@pytest.mark.parametrize("name", ["charades_b", "views_a"])
def test_official_numbers(name):
    line = check_file(GOLDEN / f"{name}.json")
    assert line.status == "pass", line.text


def scores(count=101, classes=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, classes, generator=generator), torch.randint(classes, (count,), generator=generator)


def test_one_label_equals_the_plain_counts_over_padded_shards():
    scores_BK, target_B = scores()
    ids = [f"v{i:03d}" for i in range(101)]
    parts = []
    for rank in range(3):
        index = [*range(rank, 101, 3), rank][: 34 + rank]
        parts.append(SingleLabelVideos().update([ids[i] for i in index], scores_BK[index], target_B[index]))
    merged = parts[2].merge(parts[1]).merge(parts[0])
    values = merged.compute()
    assert values.pop("mean_class_accuracy") == confusion_counts(scores_BK, target_B).value()["mean_class_accuracy"]
    assert values == topk_counts(scores_BK, target_B).value()
    assert merged.counts() == {"videos": 101, "classes": 6, "classes_with_videos": 6}


def test_clip_at_1_weighs_videos_not_clips():
    logits_BNK = torch.tensor([[[2.0, 1.0], [0.0, 1.0], [5.0, 0.0]], [[0.0, 1.0], [9.0, 0.0], [9.0, 0.0]]])
    valid_BN = torch.tensor([[True, True, True], [True, False, False]])
    share_B = clip_accuracy_B(logits_BNK, valid_BN, torch.tensor([0, 1]))
    assert share_B.tolist() == pytest.approx([2 / 3, 1.0])
    several = clip_accuracy_B(logits_BNK, valid_BN, torch.tensor([[1, 1], [1, 0]]))
    assert several.tolist() == [1.0, 0.0]
    labels = MultiLabelVideos((1,)).update(["a", "b"], logits_BNK.mean(1), torch.eye(2), clip_share_B=several)
    assert labels.compute()["clip_at_1"] == 0.5
    videos = SingleLabelVideos((1,)).update(["a", "b"], logits_BNK.mean(1), torch.tensor([0, 1]), clip_share_B=share_B)
    assert videos.compute()["clip_at_1"] == pytest.approx((2 / 3 + 1) / 2)


def test_several_labels_plain_and_official():
    scores_BK = torch.tensor([[0.9, 0.1], [0.8, 0.9], [0.7, 0.2], [0.6, 0.3]], dtype=torch.float64)
    target_BK = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]])
    videos = MultiLabelVideos().update(list("abcd"), scores_BK, target_BK)
    values = videos.compute()
    plain = average_precision_K(scores_BK, target_BK)
    assert values["map"] == float(plain.mean())
    assert values["weighted_map"] == weighted_mean(plain, target_BK)
    # without video a: class 0 ranks b c d (hits 1, 3), class 1 ranks b d c (hits 2, 3)
    assert values["map_official"] == pytest.approx(((1 + 2 / 3) / 2 + (1 / 2 + 2 / 3) / 2) / 2)
    assert values["hit1"] == 0.25
    assert videos.counts() == {
        "videos": 4, "videos_without_label": 1, "labels": 4, "classes": 2, "classes_with_positives": 2
    }  # fmt: skip


def test_one_row_a_sample_whatever_the_order():
    rng = np.random.RandomState(0)
    values, ids = rng.rand(20, 3), [f"s{i}" for i in range(20)]
    whole = Samples().update(ids, value=values)
    shuffled = Samples()
    for index in np.array_split(np.r_[rng.permutation(20), 3, 3, 7], 5):
        shuffled = shuffled.update([ids[i] for i in index], value=torch.from_numpy(values[index]))
    for ours, theirs in zip(whole.table(), shuffled.table(), strict=True):
        np.testing.assert_equal(ours, theirs)
    assert Samples().update([], value=np.empty((0, 3))) == Samples()
    assert Samples().update(["a"], value=torch.ones(1, dtype=torch.bfloat16)).table()[1]["value"].dtype == np.float32


def test_errors():
    with pytest.raises(ValueError, match="column 'value' has 1 rows for 2 ids"):
        Samples().update(["a", "b"], value=[1])
    with pytest.raises(ValueError, match=r"cannot merge columns \['a'\] with \['b'\]"):
        Samples().update(["x"], a=[1]).update(["y"], b=[1])
    with pytest.raises(ValueError, match="nothing was gathered"):
        Samples().table()
