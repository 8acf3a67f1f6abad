"""Class-mean top-k recall, and verb and noun scores out of an action head, as in action anticipation.

Source: fpv-iplab/rulstm (`RULSTM/utils.py`), the evaluation of EPIC-KITCHENS-55 ("many-shot" classes) and -100. Extra
axes: K classes, X actions. Equal scores rank by class index, the higher first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from wholereel.metrics.samples import Samples
from wholereel.metrics.verb_noun import NEVER, VerbNounSplits, ranks_higher_index_first

__all__ = ["Anticipation", "marginal_scores", "mean_class_recall"]

TASKS = ("verb", "noun", "action")


def mean_class_recall(
    rank_B: np.ndarray, target_B: np.ndarray, k: int = 5, *, classes: Collection[int] | None = None
) -> float:
    """Mean over classes of the share of a class's samples whose true class is among the k best.

    Args:
        rank_B: place of the true class, 0 = first. target_B: true classes.
        classes: only these (EPIC-55's many-shot list); those without a sample are left out in any case.
    Returns: in [0, 1]; NaN if no class remains.
    """
    names, index_B = np.unique(target_B, return_inverse=True)
    hits = np.bincount(index_B, weights=rank_B < k, minlength=len(names))
    recall_K = hits / np.bincount(index_B, minlength=len(names))
    if classes is not None:
        recall_K = recall_K[np.isin(names, np.array(sorted(classes), dtype=np.int64))]
    return float(recall_K.mean()) if len(recall_K) else float("nan")


def marginal_scores(probabilities_BX: np.ndarray, class_X: np.ndarray, *, reference_quirk: bool = True) -> np.ndarray:
    """Score of each verb (or noun): the sum of the probabilities of the actions that contain it.

    Args:
        probabilities_BX: of the actions. class_X: the verb (or noun) of each action.
        reference_quirk: a class that no action contains scores what action 0 scores, as in the public code and in all
            numbers made with it; otherwise it scores 0.
    Returns: scores_BK, K = largest class of any action + 1.
    """
    scores_KB = np.zeros((int(class_X.max()) + 1, len(probabilities_BX)), dtype=np.float64)
    np.add.at(scores_KB, class_X, probabilities_BX.T.astype(np.float64))
    if reference_quirk:
        scores_KB[~np.isin(np.arange(len(scores_KB)), class_X)] = probabilities_BX[:, 0]
    return scores_KB.T


@dataclass(frozen=True)
class Anticipation:
    """Class-mean top-5 recall and top-1 and top-5 accuracy of verbs, nouns and actions, gathered batch by batch.

    Args:
        splits: unseen participants and tail classes; tail classes of actions are segments with a tail verb or noun.
        many_shot: classes by task for the EPIC-55 variant; empty = not reported.
        samples: rows so far.
    """

    splits: VerbNounSplits = field(default_factory=VerbNounSplits)
    many_shot: Mapping[str, frozenset[int]] = field(default_factory=dict)
    samples: Samples = field(default_factory=Samples)

    def update(
        self,
        ids: Sequence[str],
        scores: Mapping[str, np.ndarray],
        targets: Mapping[str, np.ndarray],
        participant_B: Sequence[str],
    ) -> Anticipation:
        """With one more batch.

        Args:
            ids: of the segments; one that is known already does not count again.
            scores: (B, K) for some or all of `verb`, `noun`, `action`.
            targets: true classes; `verb` and `noun` always, `action` (column of its scores, -1 = none) where scored.
        """
        columns = {"verb": np.asarray(targets["verb"]), "noun": np.asarray(targets["noun"])}
        columns["participant"] = np.asarray(participant_B, dtype=str)
        for task, scores_BK in scores.items():
            if task not in TASKS:
                raise ValueError(f"scores of {task!r}; known are {', '.join(TASKS)}")
            target_B = np.asarray(targets[task])
            rank_B = ranks_higher_index_first(scores_BK, np.clip(target_B, 0, scores_BK.shape[1] - 1))
            inside_B = (target_B >= 0) & (target_B < scores_BK.shape[1])
            columns |= {task: target_B, f"{task}_rank": np.where(inside_B, rank_B, NEVER)}
        return Anticipation(self.splits, self.many_shot, self.samples.update(ids, **columns))

    def merge(self, other: Anticipation) -> Anticipation:
        """Both sets of segments together, those in both once."""
        if (self.splits, self.many_shot) != (other.splits, other.many_shot):
            raise ValueError("cannot merge recalls of other splits or other many-shot classes")
        return Anticipation(self.splits, self.many_shot, self.samples.merge(other.samples))

    def compute(self) -> dict[str, float]:
        """In [0, 1]: `overall_verb`, `unseen_noun`, `tail_action`, `many_shot_verb` (recall), `top1_verb`, `top5_verb`.

        Only tasks that were scored; NaN where a split has no segment.
        """
        _, table = self.samples.table()
        values: dict[str, float] = {}
        scored = [task for task in TASKS if f"{task}_rank" in table]
        for split, masks in self.splits.masks(table["participant"], table["verb"], table["noun"]).items():
            for task in scored:
                chosen_B = masks[task]
                name = f"{'overall' if split == 'all' else split}_{task}"
                values[name] = mean_class_recall(table[f"{task}_rank"][chosen_B], table[task][chosen_B])
        for task in scored:
            rank_B = table[f"{task}_rank"]
            if task in self.many_shot:
                values[f"many_shot_{task}"] = mean_class_recall(rank_B, table[task], classes=self.many_shot[task])
            values |= {f"top{k}_{task}": float((rank_B < k).mean()) for k in (1, 5)}
        return values

    def counts(self) -> dict[str, int]:
        """Segments of each split, and classes that a mean goes over."""
        _, table = self.samples.table()
        counts = {"segments": len(table["verb"])}
        scored = [task for task in TASKS if f"{task}_rank" in table]
        for split, masks in self.splits.masks(table["participant"], table["verb"], table["noun"]).items():
            for task in scored:
                name = f"{'overall' if split == 'all' else split}_{task}"
                counts[f"{name}_segments"] = int(masks[task].sum())
                counts[f"{name}_classes"] = len(np.unique(table[task][masks[task]]))
        return counts
