"""EPIC-KITCHENS-100: recognition and anticipation from files of scores. B segments, X actions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from wholereel.errors import DataError
from wholereel.evaluation.files.epic import Segments, read_actions, read_segments, read_splits
from wholereel.evaluation.files.scores import Scores, read_scores
from wholereel.evaluation.official.report import Report, evaluated
from wholereel.metrics.class_recall import Anticipation, marginal_scores
from wholereel.metrics.verb_noun import VerbNoun

__all__ = ["anticipation_report", "recognition_report"]

RECOGNITION = (
    "top-k accuracy as in epic-kitchens/C1-Action-Recognition: actions rank by the product of softmax outputs of the "
    "100 best verbs and nouns; unseen = participants who are not in training, tail action = tail verb or tail noun"
)
ANTICIPATION = (
    "class-mean top-5 recall as in fpv-iplab/rulstm: mean over the classes that occur in the split; unseen and tail as "
    "in recognition"
)


def recognition_report(
    truth: str | Path,
    predictions: str | Path,
    *,
    tail_verbs: str | Path | None = None,
    tail_nouns: str | Path | None = None,
    unseen: str | Path | None = None,
    actions: str | Path | None = None,
) -> Report:
    """Evaluate verb and noun scores; scores of an action head, where there are any, give numbers of their own.

    Args:
        truth: `EPIC_100_validation.csv`. predictions: see `files/scores.py`, with `verb`, `noun` and perhaps `action`.
        tail_verbs, tail_nouns, unseen: the official lists; a split without its list has no segment.
        actions: (verb, noun) of each column of `action`, where the file of scores does not say.
    Raises: DataError: a file that is not as expected, or no segment with scores.
    """
    segments, scores = read_segments(truth), read_scores(predictions)
    mask_B, rows = _matched(segments, scores)
    chosen = _chosen(segments, mask_B)
    head = {}
    if "action" in scores.arrays:
        head = {"action_BX": scores.array("action")[rows], "action_B": _columns(_pairs(scores, actions), chosen)}
    for task, target_B in (("verb", chosen.verb_B), ("noun", chosen.noun_B)):
        _check_classes(scores, task, target_B)
    measured = VerbNoun(read_splits(tail_verbs, tail_nouns, unseen)).update(
        chosen.ids, scores.array("verb")[rows], scores.array("noun")[rows], chosen.verb_B, chosen.noun_B,
        chosen.participants, **head,
    )  # fmt: skip
    counts = evaluated(len(chosen.ids), len(segments.ids), len(scores.ids) - len(rows)) | measured.counts()
    return Report({"name": "EPIC-KITCHENS-100 recognition", "text": RECOGNITION}, counts, measured.compute())


def anticipation_report(
    truth: str | Path,
    predictions: str | Path,
    *,
    tail_verbs: str | Path | None = None,
    tail_nouns: str | Path | None = None,
    unseen: str | Path | None = None,
    actions: str | Path | None = None,
    reference_quirk: bool = True,
) -> Report:
    """Evaluate scores of verbs, nouns and actions before they happen.

    With scores of actions alone, those of verbs and nouns are sums over the actions that contain them (`action` must
    then be logits; its softmax is summed).

    Args: as `recognition_report`; and
        reference_quirk: see `marginal_scores`.
    """
    segments, scores = read_segments(truth), read_scores(predictions)
    mask_B, rows = _matched(segments, scores)
    chosen = _chosen(segments, mask_B)
    found = {task: scores.array(task)[rows] for task in ("verb", "noun", "action") if task in scores.arrays}
    if not found:
        raise DataError(scores.file, f"arrays {', '.join(scores.arrays)}", "verb, noun, action, or some of them")
    targets: dict[str, np.ndarray] = {"verb": chosen.verb_B, "noun": chosen.noun_B}
    text = ANTICIPATION
    if "action" in found:
        pairs = _pairs(scores, actions)
        targets["action"] = _columns(pairs, chosen)
        if len(pairs) != found["action"].shape[1]:
            raise DataError(scores.file, f"{found['action'].shape[1]} actions", f"the {len(pairs)} of the list")
        if "verb" not in found and "noun" not in found:
            shares_BX = _softmax(found["action"])
            for place, task in enumerate(("verb", "noun")):
                class_X = np.array([pair[place] for pair in pairs])
                found[task] = marginal_scores(shares_BX, class_X, reference_quirk=reference_quirk)
            text += "; verbs and nouns score the sum of the probabilities of the actions that contain them"
            if reference_quirk:
                text += ", or the probability of action 0 if none does, as in the public code"
    measured = Anticipation(read_splits(tail_verbs, tail_nouns, unseen)).update(
        chosen.ids, found, targets, chosen.participants
    )
    counts = evaluated(len(chosen.ids), len(segments.ids), len(scores.ids) - len(rows)) | measured.counts()
    return Report({"name": "EPIC-KITCHENS-100 anticipation", "text": text}, counts, measured.compute())


def _matched(segments: Segments, scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    mask_B, rows = scores.rows_of(segments.ids)
    if not len(rows):
        raise DataError(scores.file, f"none of the {len(segments.ids)} segments, e.g. {segments.ids[0]!r}", "their ids")
    return mask_B, rows


def _chosen(segments: Segments, mask_B: np.ndarray) -> Segments:
    places = np.flatnonzero(mask_B).tolist()
    ids, participants = (tuple(part[place] for place in places) for part in (segments.ids, segments.participants))
    return Segments(ids, participants, segments.verb_B[mask_B], segments.noun_B[mask_B])


def _check_classes(scores: Scores, task: str, target_B: np.ndarray) -> None:
    columns = scores.array(task).shape[1]
    if int(target_B.max()) >= columns:
        raise DataError(scores.file, f"{columns} columns of {task} scores", f"at least {int(target_B.max()) + 1}")


def _pairs(scores: Scores, actions: str | Path | None) -> tuple[tuple[int, int], ...]:
    if scores.pairs is not None:
        return scores.pairs
    if actions is None:
        found, remedy = "scores of actions without their verbs and nouns", "Or give the list of actions (id,verb,noun)."
        raise DataError(scores.file, found, "an array 'action_pairs' (X, 2)", remedy)
    return read_actions(actions)


def _columns(pairs: tuple[tuple[int, int], ...], segments: Segments) -> np.ndarray:
    place: Mapping[tuple[int, int], int] = {pair: column for column, pair in enumerate(pairs)}
    true = zip(segments.verb_B.tolist(), segments.noun_B.tolist(), strict=True)
    return np.array([place.get(pair, -1) for pair in true], dtype=np.int64)


def _softmax(scores_BX: np.ndarray) -> np.ndarray:
    power_BX = np.exp(scores_BX.astype(np.float64) - scores_BX.max(1, keepdims=True))
    return power_BX / power_BX.sum(1, keepdims=True)
