"""Verbs, nouns, actions: golden values of the public evaluators, literal ranking, quirks, splits, shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.parity.families import check_file
from wholereel.metrics.class_recall import Anticipation, marginal_scores, mean_class_recall
from wholereel.metrics.verb_noun import NEVER, VerbNoun, VerbNounSplits, action_ranks, ranks_higher_index_first

GOLDEN = Path(__file__).parents[1] / "golden" / "datasets_and_metrics" / "epic_b.json"
SPLITS = VerbNounSplits(frozenset({"P03"}), frozenset({3, 4}), frozenset({0}))


def data(count=101, verbs=7, nouns=9, seed=0):
    rng = np.random.RandomState(seed)
    # few different values, so that there are ties
    verb_BV, noun_BO = (np.round(rng.standard_normal((count, k)), 1) for k in (verbs, nouns))
    verb_B, noun_B = rng.randint(0, verbs, count), rng.randint(0, nouns, count)
    participants = [f"P{number:02d}" for number in rng.randint(0, 5, count)]
    return [f"{i:03d}" for i in range(count)], verb_BV, noun_BO, verb_B, noun_B, participants


def test_official_numbers():
    line = check_file(GOLDEN)
    assert line.status == "pass", line.text


def test_ranks_are_those_of_a_reversed_ascending_sort():
    _, verb_BV, _, verb_B, _, _ = data()
    order = np.argsort(verb_BV, axis=1, kind="stable")[:, ::-1]
    assert ranks_higher_index_first(verb_BV, verb_B).tolist() == [
        int(np.flatnonzero(row == true)[0]) for row, true in zip(order, verb_B, strict=True)
    ]
    assert ranks_higher_index_first(np.array([[0.0, np.nan]]), np.array([0])).tolist() == [NEVER]


@pytest.mark.parametrize("kept", [100, 4])
def test_action_ranks_by_hand(kept):
    _, verb_BV, noun_BO, verb_B, noun_B, _ = data(300)  # more than one chunk
    expected = []
    for verb, noun, v, n in zip(verb_BV, noun_BO, verb_B, noun_B, strict=True):
        best_v, best_n = (np.argsort(s, kind="stable")[::-1][:kept] for s in (verb, noun))
        share_v, share_n = (np.exp(s - s.max()) / np.exp(s - s.max()).sum() for s in (verb[best_v], noun[best_n]))
        pairs = [(int(a), int(b)) for a in best_v for b in best_n]
        order = np.argsort(np.outer(share_v, share_n).ravel(), kind="stable")[::-1]
        ranked = [pairs[i] for i in order]
        expected.append(ranked.index((v, n)) if (v, n) in ranked else NEVER)
    assert action_ranks(verb_BV, noun_BO, verb_B, noun_B, kept=kept).tolist() == expected


def test_tail_actions_have_a_tail_verb_or_a_tail_noun():
    masks = SPLITS.masks(["P03", "P01", "P01"], np.array([0, 3, 1]), np.array([0, 1, 1]))
    assert masks["unseen"]["action"].tolist() == [True, False, False]
    assert masks["tail"]["verb"].tolist() == [False, True, False]
    assert masks["tail"]["noun"].tolist() == [True, False, False]
    assert masks["tail"]["action"].tolist() == [True, True, False]


def test_a_split_without_segments_is_undefined():
    ids, *rest = data(5)
    values = VerbNoun().update(ids, *rest).compute()
    assert np.isnan(values["unseen_verb_accuracy_at_1"])
    assert np.isnan(values["tail_action_accuracy_at_1"])
    assert VerbNoun().update(ids, *rest).counts()["tail_action_segments"] == 0


def test_an_action_head_is_a_number_of_its_own():
    ids, verb_BV, noun_BO, verb_B, noun_B, participants = data(4)
    action_BX = np.eye(4)[:, [0, 1, 2, 3]]
    action_B = np.array([0, 1, 2, -1])  # the last pair is in no vocabulary
    values = VerbNoun().update(
        ids, verb_BV, noun_BO, verb_B, noun_B, participants, action_BX=action_BX, action_B=action_B
    )
    assert values.compute()["all_action_head_accuracy_at_1"] == 0.75
    assert values.compute()["all_action_accuracy_at_1"] == pytest.approx(
        (action_ranks(verb_BV, noun_BO, verb_B, noun_B) < 1).mean()
    )


def test_class_recall_is_a_mean_over_classes_that_occur():
    rank_B, target_B = np.array([0, 9, 4, 5]), np.array([2, 2, 7, 9])
    assert mean_class_recall(rank_B, target_B) == pytest.approx((0.5 + 1 + 0) / 3)
    assert mean_class_recall(rank_B, target_B, classes={2, 9, 100}) == 0.25
    assert mean_class_recall(rank_B, target_B, k=1) == pytest.approx(0.5 / 3)
    assert np.isnan(mean_class_recall(rank_B, target_B, classes={100}))


def test_marginal_scores_and_the_quirk_of_the_reference():
    shares_BX = np.array([[0.2, 0.3, 0.5]])
    verb_X = np.array([3, 0, 3])  # verbs 1 and 2 are in no action
    assert marginal_scores(shares_BX, verb_X).tolist() == [[0.3, 0.2, 0.2, 0.7]]
    assert marginal_scores(shares_BX, verb_X, reference_quirk=False).tolist() == [[0.3, 0.0, 0.0, 0.7]]


def test_many_shot_classes_and_missing_actions():
    ids, verb_BV, _, verb_B, noun_B, participants = data(50)
    many = {"verb": frozenset({0, 1})}
    recalls = Anticipation(SPLITS, many).update(
        ids,
        {"verb": verb_BV, "action": np.zeros((50, 3))},
        {"verb": verb_B, "noun": noun_B, "action": np.full(50, -1)},
        participants,
    )
    values = recalls.compute()
    chosen = np.isin(verb_B, [0, 1])
    rank_B = ranks_higher_index_first(verb_BV, verb_B)
    assert values["many_shot_verb"] == pytest.approx(mean_class_recall(rank_B[chosen], verb_B[chosen]))
    assert values["top5_action"] == 0.0
    assert "overall_noun" not in values
    assert recalls.counts()["unseen_verb_segments"] == participants.count("P03")


def test_shards_with_padding_give_the_whole():
    ids, verb_BV, noun_BO, verb_B, noun_B, participants = data()
    part_of = np.array(participants)

    def both(index):
        chosen = [ids[i] for i in index]
        verb = VerbNoun(SPLITS).update(
            chosen, verb_BV[index], noun_BO[index], verb_B[index], noun_B[index], part_of[index]
        )
        recall = Anticipation(SPLITS).update(
            chosen, {"verb": verb_BV[index]}, {"verb": verb_B[index], "noun": noun_B[index]}, part_of[index]
        )
        return verb, recall

    whole = both(np.arange(101))
    parts = [both(np.r_[rank:101:3, rank]) for rank in range(3)]  # each shard is padded with its first sample
    for ours, other in zip(whole, zip(*parts, strict=True), strict=True):
        merged = other[2].merge(other[0]).merge(other[1])
        np.testing.assert_equal(merged.compute(), ours.compute())
        assert merged.counts() == ours.counts()


def test_errors():
    ids, *rest = data(3)
    with pytest.raises(ValueError, match="verb classes lie in"):
        VerbNoun().update(ids, rest[0][:, :1], rest[1], np.array([0, 5, 0]), rest[3], rest[4])
    with pytest.raises(ValueError, match="other splits"):
        VerbNoun().merge(VerbNoun(SPLITS))
    with pytest.raises(ValueError, match="scores of 'object'"):
        Anticipation().update(ids, {"object": rest[0]}, {"verb": rest[2], "noun": rest[3]}, rest[4])
