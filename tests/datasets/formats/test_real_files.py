"""Real files (`WHOLEREEL_DATA`), laid out as their data sets are published, through the same readers."""

import csv
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.datasets.formats.folders import folder
from wholereel.config import Augment, Clips, Data
from wholereel.datasets.catalogue import read_dataset
from wholereel.datasets.check import check_data
from wholereel.datasets.clip_dataset import ClipDataset
from wholereel.datasets.manifest import read_manifest
from wholereel.datasets.prepare import Counts, prepare, write_prepared

pytestmark = pytest.mark.skipif(
    "WHOLEREEL_DATA" not in os.environ, reason="WHOLEREEL_DATA names no folder of real data"
)
DATA = Path(os.environ.get("WHOLEREEL_DATA", "."))


def table(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="") as lines:
        return list(csv.DictReader(lines))


def link(target: Path, name: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to((DATA / name).resolve())


def prepared(name: str, root: Path, *options: str):
    annotations, used = read_dataset(name, root, options)
    result = prepare(annotations)
    path = write_prepared(result, name, used, root)
    assert read_manifest(path, labels=tuple(result.manifest.classes)).samples == result.manifest.samples
    return result


def test_ucf101(tmp_path):
    rows = table("ucf101_5/annotations.csv")
    classes = sorted({row["label"] for row in rows})
    lists: dict[str, str] = {"train": "", "val": ""}
    for row in rows:
        name = f"{row['label']}/{Path(row['path']).name}"
        link(tmp_path / "UCF-101" / name, f"ucf101_5/{row['path']}")
        number = classes.index(row["label"]) + 1
        lists[row["split"]] += f"{name} {number}\n" if row["split"] == "train" else f"{name}\n"
    numbered = "".join(f"{number} {name}\n" for number, name in enumerate(classes, start=1))
    folder(tmp_path, {"classInd.txt": numbered, "trainlist01.txt": lists["train"], "testlist01.txt": lists["val"]})
    found = prepared("ucf101", tmp_path)
    assert found.counts == {"train": Counts(90, 90), "test": Counts(35, 35)}
    assert Counter(sample.meta["group"] <= 7 for sample in found.manifest.samples) == {True: 35, False: 90}
    assert check_data(found.manifest, workers=2) == []


def test_boxes_in_the_columns_of_ava(tmp_path):
    rows = [row for row in table("jhmdb_pose10/annotations.csv") if row["label"] in ("catch", "golf")]
    parts = {Path(row["path"]).stem: row["split"] for row in rows}
    texts = {"train": "", "val": ""}
    for line in (DATA / "jhmdb_pose10/boxes_ava.csv").read_text().splitlines()[1:]:
        video = line.split(",")[0]
        if video in parts:
            texts[parts[video]] += line + "\n"
    for row in rows:
        link(tmp_path / row["path"], f"jhmdb_pose10/{row['path']}")
    names = ("catch", "golf", "jump", "pick", "pullup", "push", "run", "sit", "stand", "walk")
    label_map = "".join(f'item {{\n  name: "{name}"\n  id: {id}\n}}\n' for id, name in enumerate(names, start=1))
    folder(
        tmp_path,
        {f"ava_{split}_v2.2.csv": text for split, text in texts.items()}
        | {f"ava_{split}_excluded_timestamps_v2.2.csv": "" for split in texts}
        | {"ava_action_list_v2.2_for_activitynet_2019.pbtxt": label_map},
    )
    found = prepared("ava_v2.2", tmp_path, "layout=short")
    assert len(found.manifest) == sum(int(row["frames"]) for row in rows)  # every frame is a key frame
    truth = json.loads((DATA / "jhmdb_pose10/pose.json").read_text())
    for sample in found.manifest.samples:
        (box,) = sample.boxes
        clip = truth[f"videos/{sample.path.name}"]
        frame = round(sample.key_seconds * clip["fps"])
        scale = (clip["width"], clip["height"]) * 2
        corners = [value * size for value, size in zip(box.xyxy, scale, strict=True)]
        assert corners == pytest.approx(clip["boxes"][frame], abs=0.02)  # four decimals
        assert box.labels == (names.index(clip["label"]),)
    assert check_data(found.manifest, workers=2) == []
    data = Data(clips=Clips("uniform", 1, 8, 2), augment=Augment((64, 64), 64), workers=0)
    clip = ClipDataset(found.manifest, data, train=False, seed=0)[0, len(found.manifest) - 1]
    assert clip.fault is None
    assert clip.boxes.xyxy_R4.shape == (1, 4)


def test_esc50(tmp_path):
    rows = table("esc10_120/annotations.csv")
    classes = sorted({row["label"] for row in rows})
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for row in rows:
        target = classes.index(row["label"])
        name = Path(row["path"]).stem.removeprefix(f"{row['label']}_") + f"-{target}.ogg"
        link(tmp_path / "audio" / name, f"esc10_120/{row['path']}")
        lines.append(f"{name},{row['fold']},{target},{row['label']},True,{row['freesound_id']},A")
    folder(tmp_path, {"meta/esc50.csv": "\n".join(lines) + "\n"})
    found = prepared("esc50", tmp_path, "fold=5")
    assert found.counts == {"train": Counts(80, 80), "test": Counts(40, 40)}
    assert [sample.split for sample in found.manifest.samples] == [
        {"train": "train", "val": "test"}[row["split"]] for row in rows
    ]
    assert check_data(found.manifest, workers=2) == []


def test_folders_of_pictures(tmp_path):
    for row in table("tiny_images10/annotations.csv"):
        link(tmp_path / row["split"] / row["wnid"] / Path(row["path"]).name, f"tiny_images10/{row['path']}")
    found = prepared("imagenet", tmp_path)
    assert found.counts == {"train": Counts(800, 800), "val": Counts(250, 250)}
    assert len(found.manifest.classes["label"]) == 10
    assert check_data(found.manifest, workers=2) == []  # two are grey


def test_segments_of_long_videos():
    manifest = read_manifest(DATA / "ceiling_long/segments.csv")
    assert len(manifest) == 167
    assert len({sample.path for sample in manifest.samples}) == 10
    assert (manifest.samples[0].start, manifest.samples[0].end) == (4.43, 7.63)
    assert check_data(manifest, workers=2) == []
