"""EPIC-KITCHENS-100: `EPIC_100_{train,validation,test_timestamps}.csv`, tables of classes, tails and participants.

Times are `HH:MM:SS.ss`. Frame numbers in the tables are not used: the videos have five frame rates, so frames follow
from seconds. Labels: verb, noun, and action, the pairs of both that occur in train and validation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from wholereel.datasets.formats.annotations import Annotations
from wholereel.datasets.formats.files import VideoIndex, csv_rows, find_file, text_lines
from wholereel.datasets.sample import Sample
from wholereel.errors import ConfigError, DataError

__all__ = ["read_epic_kitchens", "seconds_of_stamp"]

PARTS = {"train": "train", "val": "validation", "test": "test_timestamps"}
COLUMNS = ("narration_id", "participant_id", "video_id", "start_timestamp", "stop_timestamp")


def read_epic_kitchens(
    root: Path,
    *,
    layout: Literal["videos", "pictures"] = "videos",
    anticipation: bool = False,
    gap: float = 1.0,
    observed: float = 5.0,
) -> Annotations:
    """Read the three tables; test segments have no labels.

    Args:
        root: folder with the tables (or a sub-folder with them) and the videos: `<video>.MP4` anywhere below, or
            pictures in `<participant>/rgb_frames/<video>`.
        layout: which of the two.
        anticipation: a sample is not the action but what comes before it: it ends `gap` seconds before the action.
        gap, observed: seconds between what is seen and the action, and seconds that are seen.
    Returns: samples with `meta`: participant, video, whether participant is unseen, verb and noun in the tail, and for
        anticipation `action_start`, `action_stop` and `left_pad`: seconds of the observation that would lie before the
        video, to be filled with its first frame. `facts`: `tail_verbs`, `tail_nouns` and `actions`, the verb and noun
        of each.
    Raises: DataError: a file is missing or a row is not as published.
    """
    if gap < 0 or observed <= 0:
        raise ConfigError(f"gap must not be negative and observed must be positive, got {gap} and {observed}")
    info_file = find_file(root, "EPIC_100_video_info.csv")
    rates = {
        cells["video_id"]: float(cells["fps"])
        for _, cells in csv_rows(info_file, ("video_id", "duration", "fps", "resolution"), header=True)
    }
    sources = [info_file]
    classes, tails = {}, {}
    for name in ("verb", "noun"):
        file, tail_file = find_file(root, f"EPIC_100_{name}_classes.csv"), find_file(root, f"EPIC_100_tail_{name}s.csv")
        classes[name], tails[name] = _class_names(file), _tail(tail_file)
        sources += [file, tail_file]
    rows: list[tuple[str, str, dict[str, str], Path]] = []
    unseen: dict[str, set[str]] = {"train": set()}
    for split, name in PARTS.items():
        file = find_file(root, f"EPIC_100_{name}.csv")
        sources.append(file)
        if split != "train":
            people_file = find_file(root, f"EPIC_100_unseen_participant_ids_{name.split('_')[0]}.csv")
            sources.append(people_file)
            unseen[split] = {line for _, line in text_lines(people_file)} - {"participant_id"}
        columns = COLUMNS if split == "test" else (*COLUMNS, "verb_class", "noun_class")
        rows += [(split, place, cells, file) for place, cells in csv_rows(file, columns, header=True)]
    labels = [_labels(cells, split, classes, file, place) for split, place, cells, file in rows]
    actions = _actions(root, labels, sources)
    videos = VideoIndex(root) if layout == "videos" else None
    samples = []
    for (split, place, cells, file), found in zip(rows, labels, strict=True):
        video, participant = cells["video_id"], cells["participant_id"]
        start, stop = (_stamp(cells[f"{end}_timestamp"], file, place) for end in ("start", "stop"))
        if stop <= start:
            raise DataError(file, f"{place} stops at {stop} s, but starts at {start} s", "an end behind the start")
        if video not in rates:
            raise DataError(file, f"{place}: video {video!r} is not in {info_file.name}", "a video of that table")
        meta: dict[str, Any] = {"video": video, "participant": participant, "unseen": participant in unseen[split]}
        if found:
            meta |= {f"tail_{name}": found[name] in tails[name] for name in ("verb", "noun")}
            found = {**found, "action": actions[found["verb"], found["noun"]]}
        if anticipation:
            meta |= {"action_start": start, "action_stop": stop}
            end, start = start - gap, start - gap - observed
            stop = max(end, 1 / rates[video])  # at least the first frame is seen
            meta["left_pad"] = round(max(0.0, min(observed - 1 / rates[video], -start)), 6)
            start = max(start, 0.0)
        if videos is None:
            path, rate = _pictures(root, participant, video), rates[video]
        else:
            path, rate = videos.find(video) or root / participant / f"{video}.MP4", None
        id = cells["narration_id"]
        samples.append(Sample(id, path, start, stop, split, found, frame_rate=rate, meta=meta))
    verbs, nouns = classes["verb"], classes["noun"]
    pairs = sorted(actions, key=actions.__getitem__)
    named = {**classes, "action": tuple(f"{verbs[verb]} {nouns[noun]}" for verb, noun in pairs)}
    facts = {"tail_verbs": sorted(tails["verb"]), "tail_nouns": sorted(tails["noun"]), "actions": [*map(list, pairs)]}
    return Annotations(tuple(samples), named, root, tuple(sources), facts=facts)


def seconds_of_stamp(text: str) -> float:
    """Seconds of a time stamp such as `00:01:02.30`, exact to the microsecond.

    Raises: ValueError: another form.
    """
    hours, minutes, seconds = text.split(":")
    return round(int(hours) * 3600 + int(minutes) * 60 + float(seconds), 6)


def _stamp(text: str, file: Path, place: str) -> float:
    try:
        return seconds_of_stamp(text)
    except ValueError as error:
        raise DataError(file, f"{place} has the time stamp {text!r}", "HH:MM:SS.ss") from error


def _class_names(file: Path) -> tuple[str, ...]:
    names: list[str] = []
    for place, cells in csv_rows(file, ("id", "key"), header=True):
        if cells["id"] != str(len(names)):
            raise DataError(file, f"{place} has the id {cells['id']}", f"{len(names)}: ids in order, without gaps")
        names.append(cells["key"])
    return tuple(names)


def _tail(file: Path) -> set[int]:
    lines = [line for _, line in text_lines(file)]
    try:
        return {int(line.split(",")[0]) for line in lines[0 if lines and lines[0][:1].isdigit() else 1 :]}
    except ValueError as error:
        raise DataError(file, f"cannot be read ({error})", "a header and a class index a line") from error


def _labels(
    cells: Mapping[str, str], split: str, classes: Mapping[str, tuple[str, ...]], file: Path, place: str
) -> dict[str, int]:
    if split == "test":
        return {}
    labels = {}
    for name, names in classes.items():
        text = cells[f"{name}_class"]
        if not text.isdigit() or int(text) >= len(names):
            raise DataError(file, f"{place} has the {name} class {text!r}", f"0..{len(names) - 1}")
        labels[name] = int(text)
    return labels


def _actions(root: Path, labels: Iterable[Mapping[str, int]], sources: list[Path]) -> dict[tuple[int, int], int]:
    """Index of each (verb, noun): its row in `actions.csv` (`id,verb,noun,...`) where one has it, else its rank."""
    pairs = sorted({(found["verb"], found["noun"]) for found in labels if found})
    try:
        file = find_file(root, "actions.csv")
    except DataError:
        return {pair: index for index, pair in enumerate(pairs)}
    sources.append(file)
    rows = csv_rows(file, ("id", "verb", "noun"), header=True)
    listed = {(int(cells["verb"]), int(cells["noun"])): int(cells["id"]) for _, cells in rows}
    missing = [pair for pair in pairs if pair not in listed]
    if missing or sorted(listed.values()) != list(range(len(listed))):
        raise DataError(file, f"has no action for verb and noun {missing[0]}" if missing else "ids have gaps or repeat")
    return listed


def _pictures(root: Path, participant: str, video: str) -> Path:
    inside = Path(participant, "rgb_frames", video)
    return next((top / inside for top in (root, root / "EPIC-KITCHENS") if (top / inside).is_dir()), root / inside)
