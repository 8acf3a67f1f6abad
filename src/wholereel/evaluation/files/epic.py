"""EPIC-KITCHENS-100's annotations, as far as its evaluation needs them.

Formats (epic-kitchens/epic-kitchens-100-annotations): `EPIC_100_validation.csv`, `EPIC_100_tail_verbs.csv`,
`EPIC_100_tail_nouns.csv`, `EPIC_100_unseen_participant_ids_validation.csv`; the list of actions is fpv-iplab/rulstm's
`actions.csv` (`id,verb,noun,action`). B segments.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wholereel.errors import DataError
from wholereel.evaluation.files.tables import integers, read_columns
from wholereel.metrics.verb_noun import VerbNounSplits

__all__ = ["Segments", "read_actions", "read_ids", "read_segments", "read_splits"]


@dataclass(frozen=True)
class Segments:
    """Annotated segments: narration ids, participants, classes (int64)."""

    ids: tuple[str, ...]
    participants: tuple[str, ...]
    verb_B: np.ndarray
    noun_B: np.ndarray


def read_segments(path: str | Path) -> Segments:
    """Read a table of segments with classes.

    Raises: DataError: a missing column, a class that is no number, or an id twice.
    """
    ids, participants, verbs, nouns = read_columns(path, ("narration_id", "participant_id", "verb_class", "noun_class"))
    if len(set(ids)) != len(ids):
        raise DataError(path, f"{len(ids) - len(set(ids))} narration ids occur more than once", "each once")
    verb_B, noun_B = integers(path, "verb_class", verbs), integers(path, "noun_class", nouns)
    return Segments(tuple(ids), tuple(participants), np.array(verb_B), np.array(noun_B))


def read_ids(path: str | Path, column: str) -> frozenset[str]:
    """A list of one column with a header: `verb` or `noun` of the tail classes, `participant_id` of the unseen."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows or column not in rows[0]:
        raise DataError(path, f"the header {','.join(rows[0]) if rows else ''!r}", f"a column {column!r}")
    place = rows[0].index(column)
    return frozenset(row[place] for row in rows[1:])


def read_splits(
    tail_verbs: str | Path | None, tail_nouns: str | Path | None, unseen: str | Path | None
) -> VerbNounSplits:
    """The lists of tail classes and unseen participants; without a list its split is empty."""
    verbs, nouns = (
        frozenset() if path is None else frozenset(integers(path, name, sorted(read_ids(path, name))))
        for path, name in ((tail_verbs, "verb"), (tail_nouns, "noun"))
    )
    return VerbNounSplits(frozenset() if unseen is None else read_ids(unseen, "participant_id"), verbs, nouns)


def read_actions(path: str | Path) -> tuple[tuple[int, int], ...]:
    """The (verb, noun) of each action, in the order of the actions' ids.

    Raises: DataError: ids that are not 0, 1, 2, ..., or a pair twice.
    """
    ids, verbs, nouns = (
        integers(path, name, texts)
        for name, texts in zip(("id", "verb", "noun"), read_columns(path, ("id", "verb", "noun")), strict=True)
    )
    if sorted(ids) != list(range(len(ids))):
        raise DataError(path, f"{len(ids)} ids between {min(ids)} and {max(ids)}", "0, 1, 2, ... without gaps")
    pairs = [pair for _, pair in sorted(zip(ids, zip(verbs, nouns, strict=True), strict=True))]
    if len(set(pairs)) != len(pairs):
        raise DataError(path, f"{len(pairs) - len(set(pairs))} pairs occur more than once", "each once")
    return tuple(pairs)
