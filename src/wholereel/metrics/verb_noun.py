"""Recognition of actions that are pairs of a verb and a noun, as on EPIC-KITCHENS-100.

Source: epic-kitchens/C1-Action-Recognition (`utils/metrics.py`, `utils/scoring.py`). Extra axes: V verbs, O nouns,
X actions of a head that ranks pairs directly. An action's id is `verb * 1000 + noun`.
Equal scores rank by class index, the higher first, as an ascending sort that is read backwards does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from wholereel.metrics.samples import Samples

__all__ = ["ACTION_BASE", "NEVER", "VerbNoun", "VerbNounSplits", "action_ranks", "ranks_higher_index_first"]

ACTION_BASE = 1000
KEPT = 100  # best verbs and nouns of a segment that pairs are made of
NEVER = 2**31  # the place of a class that is not ranked at all
CHUNK = 256  # segments whose pairs are held at a time


def ranks_higher_index_first(scores_BK: np.ndarray, target_B: np.ndarray) -> np.ndarray:
    """Place of the true class in the order of scores, 0 = first; `NEVER` where the row has a NaN."""
    rows = np.arange(len(scores_BK))
    true_B1 = scores_BK[rows, target_B][:, None]
    ahead_BK = (scores_BK > true_B1) | ((scores_BK == true_B1) & (np.arange(scores_BK.shape[1]) > target_B[:, None]))
    return np.where(np.isnan(scores_BK).any(1), NEVER, ahead_BK.sum(1))


def action_ranks(
    verb_BV: np.ndarray, noun_BO: np.ndarray, verb_B: np.ndarray, noun_B: np.ndarray, *, kept: int = KEPT
) -> np.ndarray:
    """Place of the true (verb, noun) pair among all pairs of the segment's best verbs and nouns, 0 = first.

    A pair scores the product of the two softmax outputs, taken over the kept verbs and the kept nouns. The public code
    takes the softmax over the whole data set; the order inside a segment is the same.

    Args:
        verb_BV, noun_BO: any logits. verb_B, noun_B: true classes.
        kept: best verbs and best nouns that are paired.
    Returns: rank_B int64; `NEVER` where the true verb or noun is not among the kept ones, or a score is NaN.
    """
    rank_B = np.full(len(verb_BV), NEVER, dtype=np.int64)
    for begin in range(0, len(verb_BV), CHUNK):
        part = slice(begin, begin + CHUNK)
        verb_share, verb_place = _kept(verb_BV[part], verb_B[part], kept)
        noun_share, noun_place = _kept(noun_BO[part], noun_B[part], kept)
        pairs = (verb_share[:, :, None] * noun_share[:, None, :]).reshape(len(verb_share), -1)
        found = (verb_place >= 0) & (noun_place >= 0)
        place = np.where(found, verb_place * noun_share.shape[1] + noun_place, 0)
        true = pairs[np.arange(len(pairs)), place][:, None]
        ahead = (pairs > true) | ((pairs == true) & (np.arange(pairs.shape[1]) > place[:, None]))
        rank_B[part] = np.where(found & ~np.isnan(pairs).any(1), ahead.sum(1), NEVER)
    return rank_B


def _kept(scores_BK: np.ndarray, target_B: np.ndarray, kept: int) -> tuple[np.ndarray, np.ndarray]:
    """Softmax over the best classes, best first, and where among them the true class is (-1 = nowhere)."""
    best_BS = np.argsort(scores_BK, axis=1, kind="stable")[:, ::-1][:, :kept]
    scores_BS = np.take_along_axis(scores_BK, best_BS, axis=1).astype(np.float64)
    power_BS = np.exp(scores_BS - scores_BS.max(1, keepdims=True))
    hit_BS = best_BS == target_B[:, None]
    return power_BS / power_BS.sum(1, keepdims=True), np.where(hit_BS.any(1), hit_BS.argmax(1), -1)


@dataclass(frozen=True)
class VerbNounSplits:
    """What makes a segment unseen or tail.

    Args:
        unseen: participants who do not occur in training.
        tail_verbs, tail_nouns: rare classes. An action is tail if its verb **or** its noun is.
    """

    unseen: frozenset[str] = frozenset()
    tail_verbs: frozenset[int] = frozenset()
    tail_nouns: frozenset[int] = frozenset()

    def masks(
        self, participant_B: Sequence[str] | np.ndarray, verb_B: np.ndarray, noun_B: np.ndarray
    ) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Which segments belong to a split, by split (`all`, `unseen`, `tail`) and by task."""
        unseen_B = np.isin(np.asarray(participant_B, dtype=str), sorted(self.unseen)) if self.unseen else None
        unseen_B = np.zeros(len(verb_B), dtype=bool) if unseen_B is None else unseen_B
        verb, noun = (_in(classes, ids) for classes, ids in ((verb_B, self.tail_verbs), (noun_B, self.tail_nouns)))
        every = np.ones(len(verb_B), dtype=bool)
        return {
            "all": dict.fromkeys(("verb", "noun", "action"), every),
            "unseen": dict.fromkeys(("verb", "noun", "action"), unseen_B),
            "tail": {"verb": verb, "noun": noun, "action": verb | noun},
        }


def _in(values: np.ndarray, ids: Collection[int]) -> np.ndarray:
    return np.isin(values, np.array(sorted(ids), dtype=np.int64))


@dataclass(frozen=True)
class VerbNoun:
    """Accuracies of verbs, nouns and actions, gathered batch by batch; only ranks are kept.

    Args:
        splits: unseen participants and tail classes.
        samples: rows so far.
    """

    splits: VerbNounSplits = field(default_factory=VerbNounSplits)
    samples: Samples = field(default_factory=Samples)

    def update(
        self,
        ids: Sequence[str],
        verb_BV: np.ndarray,
        noun_BO: np.ndarray,
        verb_B: np.ndarray,
        noun_B: np.ndarray,
        participant_B: Sequence[str],
        *,
        action_BX: np.ndarray | None = None,
        action_B: np.ndarray | None = None,
    ) -> VerbNoun:
        """With one more batch.

        Args:
            ids: of the segments; one that is known already does not count again.
            verb_BV, noun_BO: logits. verb_B, noun_B: true classes. participant_B: such as "P18".
            action_BX, action_B: scores of an action head and the true action's column (-1 = not in its vocabulary).
        Raises: ValueError: a class outside the scores, or other columns than before.
        """
        for name, scores, target in (("verb", verb_BV, verb_B), ("noun", noun_BO, noun_B)):
            if len(target) and not 0 <= int(np.min(target)) <= int(np.max(target)) < scores.shape[1]:
                raise ValueError(f"{name} classes lie in [{np.min(target)}, {np.max(target)}]; there are "
                                 f"{scores.shape[1]} columns of scores")  # fmt: skip
        columns = {
            "verb": np.asarray(verb_B), "noun": np.asarray(noun_B), "participant": np.asarray(participant_B, dtype=str),
            "verb_rank": ranks_higher_index_first(verb_BV, verb_B),
            "noun_rank": ranks_higher_index_first(noun_BO, noun_B),
            "action_rank": action_ranks(verb_BV, noun_BO, verb_B, noun_B),
        }  # fmt: skip
        if action_BX is not None and action_B is not None:
            rank_B = ranks_higher_index_first(action_BX, np.maximum(action_B, 0))
            columns["head_rank"] = np.where(np.asarray(action_B) < 0, NEVER, rank_B)
        return VerbNoun(self.splits, self.samples.update(ids, **columns))

    def merge(self, other: VerbNoun) -> VerbNoun:
        """Both sets of segments together, those in both once."""
        if self.splits != other.splits:
            raise ValueError("cannot merge accuracies of other splits")
        return VerbNoun(self.splits, self.samples.merge(other.samples))

    def compute(self) -> dict[str, float]:
        """In [0, 1], by the names of the public evaluator: `all_verb_accuracy_at_1`, `tail_action_accuracy_at_1`, ...

        `all` has top-1 and top-5, the others top-1; `action_head` stands for `action` where a head ranks pairs itself.
        NaN where a split has no segment.
        """
        _, table = self.samples.table()
        values: dict[str, float] = {}
        for split, masks in self.splits.masks(table["participant"], table["verb"], table["noun"]).items():
            for task in ("verb", "noun", "action", "action_head"):
                column = "head_rank" if task == "action_head" else f"{task}_rank"
                if column not in table:
                    continue
                rank_B = table[column][masks["action" if task == "action_head" else task]]
                for k in (1, 5) if split == "all" else (1,):
                    hits = int((rank_B < k).sum())
                    values[f"{split}_{task}_accuracy_at_{k}"] = hits / len(rank_B) if len(rank_B) else float("nan")
        return values

    def counts(self) -> dict[str, int]:
        """Segments of each split and task, and the classes that occur."""
        _, table = self.samples.table()
        counts = {"segments": len(table["verb"])}
        for split, masks in self.splits.masks(table["participant"], table["verb"], table["noun"]).items():
            if split != "all":
                counts |= {f"{split}_{task}_segments": int(mask.sum()) for task, mask in masks.items()}
        counts |= {f"{task}_classes": len(np.unique(table[task])) for task in ("verb", "noun")}
        return counts | {"action_classes": len(np.unique(table["verb"] * ACTION_BASE + table["noun"]))}
