"""Official files of `kitchen` in the form of EPIC-KITCHENS-100: segments, classes, tails, participants, rates.

As there, rows of the test split have no labels (the manifest has them), and the tail are the rarest classes that
together make up at most a fifth of the training segments.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wholereel.datasets.atomic_files import write_text_file
from wholereel.datasets.worlds.kitchen_plan import ACTION_NAMES, ACTIONS, DURATION, NOUNS, VERBS, Segment

if TYPE_CHECKING:
    from wholereel.datasets.worlds.kitchen import KitchenScene

__all__ = ["write_epic_files"]

PARTS = {"train": "train", "val": "validation", "test": "test_timestamps"}
UNSEEN = ("P09", "P10")
RATE = 8.0
TAIL = 0.2
PLACE = (
    "narration_id",
    "participant_id",
    "video_id",
    "narration_timestamp",
    "start_timestamp",
    "stop_timestamp",
    "start_frame",
    "stop_frame",
)
LABELS = ("narration", "verb", "verb_class", "noun", "noun_class", "all_nouns", "all_noun_classes")


def write_epic_files(folder: Path, scenes: Iterable[KitchenScene], size: int) -> None:
    """All tables, whether or not a split has videos; `size` of the square picture."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[list[Any]]] = {split: [] for split in PARTS}
    info = []
    shown: Counter[int] = Counter()
    for scene in scenes:
        rows[scene.split] += [_row(scene, number, segment) for number, segment in enumerate(scene.segments)]
        info.append((scene.id, f"{DURATION:.1f}", RATE, f"{size}x{size}"))
        if scene.split == "train":
            shown.update(segment.action for segment in scene.segments)
    for split, name in PARTS.items():
        head = PLACE if split == "test" else (*PLACE, *LABELS)
        _write(folder / f"EPIC_100_{name}.csv", head, rows[split])
    for part, (kind, names) in enumerate((("verb", VERBS), ("noun", NOUNS))):
        counts = Counter(dict.fromkeys(range(len(names)), 0))
        for action, count in shown.items():
            counts[ACTIONS[action][part]] += count
        classes = [(place, name, str([name]), "all") for place, name in enumerate(names)]
        _write(folder / f"EPIC_100_{kind}_classes.csv", ("id", "key", "instances", "category"), classes)
        _write(folder / f"EPIC_100_tail_{kind}s.csv", (kind,), [(place,) for place in _tail(counts)])
    for name in ("validation", "test"):
        people = [(person,) for person in UNSEEN]
        _write(folder / f"EPIC_100_unseen_participant_ids_{name}.csv", ("participant_id",), people)
    _write(folder / "EPIC_100_video_info.csv", ("video_id", "duration", "fps", "resolution"), info)
    actions = [(number, *ACTIONS[number], name) for number, name in enumerate(ACTION_NAMES)]
    _write(folder / "actions.csv", ("id", "verb", "noun", "action"), actions)


def _row(scene: KitchenScene, number: int, segment: Segment) -> list[Any]:
    verb, noun = ACTIONS[segment.action]
    place: list[Any] = [
        f"{scene.id}_{number}",
        f"P{scene.participant:02d}",
        scene.id,
        _stamp(segment.start),
        _stamp(segment.start),
        _stamp(segment.end),
        int(segment.start * RATE),
        int(segment.end * RATE),
    ]
    if scene.split == "test":
        return place
    return [*place, ACTION_NAMES[segment.action], VERBS[verb], verb, NOUNS[noun], noun, str([NOUNS[noun]]), str([noun])]


def _tail(counts: Counter[int]) -> list[int]:
    """The rarest classes, together at most a fifth of all."""
    tail: list[int] = []
    left = TAIL * counts.total()
    for place, count in sorted(counts.items(), key=lambda item: (item[1], item[0])):
        left -= count
        if left < 0:
            break
        tail.append(place)
    return sorted(tail)


def _stamp(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.00"


def _write(file: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    write_text_file(file, text.getvalue())
