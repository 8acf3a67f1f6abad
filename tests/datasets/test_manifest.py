import csv
import json
import os
from pathlib import Path

import pytest

from wholereel.datasets.manifest import read_manifest, write_manifest
from wholereel.errors import DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def write(root: Path, name: str, text: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    return root / name


def write_jsonl(root: Path, *rows: dict) -> Path:
    return write(root, "manifest.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def summary(manifest):
    return [(sample.path.relative_to(manifest.root).as_posix(), dict(sample.labels)) for sample in manifest.samples]


# ------------------------------------------------------------------------------------------------------- class folders


def test_folder_of_classes(tmp_path):
    touch(
        tmp_path, "run/b.mp4", "run/a.AVI", "jump/deep/c.webm", "jump/notes.txt", "jump/.hidden.mp4", ".trash/x/d.mp4"
    )
    manifest = read_manifest(tmp_path)
    assert manifest.classes == {"label": ("jump", "run")}
    assert summary(manifest) == [
        ("jump/deep/c.webm", {"label": 0}),
        ("run/a.AVI", {"label": 1}),
        ("run/b.mp4", {"label": 1}),
    ]
    assert [sample.split for sample in manifest.samples] == [None] * 3
    assert not manifest.multi_label


def test_folders_of_splits_share_their_classes(tmp_path):
    touch(tmp_path, "train/run/a.mp4", "train/jump/b.mp4", "validation/run/a.mp4")
    manifest = read_manifest(tmp_path, split="val")
    assert manifest.classes == {"label": ("jump", "run")}
    assert summary(manifest) == [("validation/run/a.mp4", {"label": 1})]


@pytest.mark.parametrize(
    ("files", "splits", "others"),
    [
        (("bus/a.mp4", "plane/b.mp4", "train/c.mp4"), "train", "bus, plane"),
        (("train/run/a.mp4", "val/run/b.mp4", "extra/run/c.mp4"), "train, val", "extra"),
    ],
)
def test_splits_and_other_folders_side_by_side_are_refused(tmp_path, files, splits, others):
    touch(tmp_path, *files)
    found = rf"named like splits \({splits}\) beside other folders with videos \({others}\), expected folders of splits"
    with pytest.raises(DataError, match=found + rf" only.* If {splits} are splits, move the others"):
        read_manifest(tmp_path)


def test_folders_without_videos_may_stand_beside_splits(tmp_path):
    touch(tmp_path, "train/run/a.mp4", "licences/readme.txt")
    assert summary(read_manifest(tmp_path)) == [("train/run/a.mp4", {"label": 0})]
    touch(tmp_path / "classes", "train/train/a.mp4", "train/bus/b.mp4")  # what the error advises
    assert read_manifest(tmp_path / "classes").classes == {"label": ("bus", "train")}


def test_numbered_class_folders_are_sorted_by_number_and_stay_names(tmp_path):
    touch(tmp_path, "10/a.mp4", "9/a.mp4", "2/a.mp4")
    manifest = read_manifest(tmp_path)
    assert manifest.classes == {"label": ("2", "9", "10")}
    assert [sample.labels["label"] for sample in manifest.samples] == [2, 0, 1]


def test_folder_without_anything(tmp_path):
    with pytest.raises(DataError, match="holds neither an annotation file nor a folder with videos"):
        read_manifest(tmp_path)
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        read_manifest(tmp_path / "nowhere")


# -------------------------------------------------------------------------------------------------------------- tables

TABLE = "path,label,split,start,end,extra\na.mp4,run,train,,,1\nb c.mp4,jump,val,1.5,3,2\nb c.mp4,run,val,3,,2\n"


def test_csv_with_parts_of_files_and_extra_columns(tmp_path):
    write(tmp_path, "annotations.csv", "\ufeff" + TABLE)
    manifest = read_manifest(tmp_path)
    assert manifest.classes == {"label": ("jump", "run")}
    assert [sample.id for sample in manifest.samples] == ["a.mp4", "b c.mp4@1.5-3", "b c.mp4@3-"]
    assert [(sample.start, sample.end) for sample in manifest.samples] == [(None, None), (1.5, 3.0), (3.0, None)]
    assert [sample.split for sample in manifest.samples] == ["train", "val", "val"]
    assert manifest.samples[0].path == tmp_path / "a.mp4"


def test_classes_come_from_all_splits(tmp_path):
    file = write(tmp_path, "any.csv", "path,label,split\na,run,train\nb,walk,val\n")
    manifest = read_manifest(file, split="val")
    assert manifest.classes == {"label": ("run", "walk")}
    assert manifest.samples[0].labels == {"label": 1}


def test_tables_of_all_types_read_alike(tmp_path):
    rows = [
        {"path": "a.mp4", "label": "run", "split": "train", "start": None, "end": None},
        {"path": "b.mp4", "label": "jump", "split": "val", "start": 1.0, "end": 2.5},
    ]
    write_jsonl(tmp_path, *rows)
    with (tmp_path / "m.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (tmp_path / "m.tsv").write_text((tmp_path / "m.csv").read_text().replace(",", "\t"))
    arrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(arrow.Table.from_pylist(rows), tmp_path / "m.parquet")
    expected = read_manifest(tmp_path / "manifest.jsonl")
    assert len(expected) == 2
    for name in ("m.csv", "m.tsv", "m.parquet"):
        assert read_manifest(tmp_path / name) == expected


def test_several_label_columns_and_the_nested_form(tmp_path):
    write(tmp_path, "a.csv", "path,verb,noun\na,cut,carrot\nb,peel,carrot\n")
    flat = read_manifest(tmp_path / "a.csv", labels=("verb", "noun"))
    assert flat.classes == {"verb": ("cut", "peel"), "noun": ("carrot",)}
    assert flat.samples[1].labels == {"verb": 1, "noun": 0}
    nested = [{"path": p, "labels": {"verb": v, "noun": "carrot"}} for p, v in (("a", "cut"), ("b", "peel"))]
    assert read_manifest(write_jsonl(tmp_path, *nested), labels=("verb", "noun")) == flat
    assert read_manifest(tmp_path / "a.csv", labels=()).samples[0].labels == {}


@pytest.mark.parametrize(
    ("first", "second"), [("run;jump", "jump"), ("run|jump", "jump"), ('"[""run"", ""jump""]"', '"[""jump""]"')]
)
def test_multi_label_csv(tmp_path, first, second):
    file = write(tmp_path, "a.csv", f"path,label\na,{first}\nb,{second}\nc,\n")
    manifest = read_manifest(file)
    assert manifest.multi_label
    assert manifest.classes == {"label": ("jump", "run")}
    assert [sample.labels["label"] for sample in manifest.samples] == [(0, 1), (0,), ()]


def test_multi_label_json_lists_of_indices(tmp_path):
    write_jsonl(tmp_path, {"path": "a", "labels": [2]}, {"path": "b", "labels": [0, 2]}, {"path": "c", "labels": []})
    manifest = read_manifest(tmp_path)
    assert manifest.multi_label
    assert manifest.classes == {"label": ("0", "1", "2")}
    assert [sample.labels["label"] for sample in manifest.samples] == [(2,), (0, 2), ()]


def test_integer_labels_are_indices(tmp_path):
    manifest = read_manifest(write(tmp_path, "a.csv", "path,label\na,10\nb,2\n"))
    assert manifest.classes["label"] == tuple(map(str, range(11)))
    assert [sample.labels["label"] for sample in manifest.samples] == [10, 2]


@pytest.mark.parametrize(
    "classes", [["walk", "a;b", "run"], {"label": ["walk", "a;b", "run"]}, {"run": 2, "walk": 0, "a;b": 1}]
)
@pytest.mark.parametrize("labels", [("run", "a;b"), (2, 1)])
def test_sidecar_gives_the_order_of_classes(tmp_path, classes, labels):
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    manifest = read_manifest(write(tmp_path, "a.csv", "path,label\na,{}\nb,{}\n".format(*labels)))
    assert manifest.classes["label"] == ("walk", "a;b", "run")
    assert [sample.labels["label"] for sample in manifest.samples] == [2, 1]
    assert not manifest.multi_label


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("path,label\n", {}, "a.csv: has no samples"),
        ("file,label\na,b\n", {}, "a.csv: has no column 'path'; its columns are file, label"),
        ("path,class\na,b\n", {}, "has no column 'label'; its columns are class, path. Name the columns that hold"),
        (TABLE, {"split": "dev"}, r"has no samples of split 'dev', expected one of train \(1\), val \(2\)"),
        ("path,label\na,b\n", {"split": "train"}, "has no samples of split 'train'. It knows no splits; ask for all"),
        ("path,label\na,b\na,c\n", {}, "2 samples have the id 'a', expected different ids"),
        ("path,label\na,b\nc,\n", {}, "row 2 has no value in column 'label'"),
        ("path,label\n,b\n", {}, "row 1 has no path"),
        ("path,label\na,b,c\n", {}, "row 1 has 3 columns, expected 2 as in the header"),
        ("path,label,start\na,b,soon\n", {}, "row 1: 'soon' is not a time"),
        ("path,label,start,end\na,b,3,2\n", {}, "row 1 ends at 2.0 s, before it starts at 3.0 s"),
        ("path,label\na,123456789\n", {}, "has the class index 123456789, expected less than 100000 classes"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, text, arguments, message):
    file = write(tmp_path, "a.csv", text)
    with pytest.raises(DataError, match=message):
        read_manifest(file, **arguments)


def test_unknown_class_and_bad_sidecars(tmp_path):
    file = write(tmp_path, "a.csv", "path,label\na,swim\n")
    (tmp_path / "classes.json").write_text('["run", "walk"]')
    with pytest.raises(DataError, match="label 'swim' in column 'label' is not in"):
        read_manifest(file)
    (tmp_path / "classes.json").write_text('{"run": 0, "walk": 2}')
    with pytest.raises(DataError, match=r"classes.json: indices have gaps or repeat, expected 0..1"):
        read_manifest(file)
    (tmp_path / "classes.json").write_text('["run", "run"]')
    with pytest.raises(DataError, match="a class of 'label' is listed twice"):
        read_manifest(file)
    write(tmp_path, "b.csv", "path,label\na,7\n")
    (tmp_path / "classes.json").write_text('["run", "walk"]')
    with pytest.raises(DataError, match="label '7' in column 'label' is not in"):
        read_manifest(tmp_path / "b.csv")


def test_broken_files_name_the_line(tmp_path):
    write(tmp_path, "a.jsonl", '{"path": "a", "label": 1}\n{"path": \n')
    with pytest.raises(DataError, match="line 2 is not JSON"):
        read_manifest(tmp_path / "a.jsonl")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00\x00")
    with pytest.raises(DataError, match=r"b\.csv: cannot be read"):
        read_manifest(tmp_path / "b.csv")
    write(tmp_path, "c.xml", "<a/>")
    with pytest.raises(DataError, match=r"is a .xml, expected .csv, .tsv, .jsonl, .parquet, .txt, .list or a folder"):
        read_manifest(tmp_path / "c.xml")


# --------------------------------------------------------------------------------------------------------------- lists


@pytest.mark.parametrize("separator", [" ", ",", "\t"])
def test_lists_without_header(tmp_path, separator):
    file = write(tmp_path, "train.csv", f"a b/x.mp4{separator}3\n/abs/y,1.mp4{separator}0\n")
    manifest = read_manifest(file, split="train")
    assert manifest.classes == {"label": ("0", "1", "2", "3")}
    assert [sample.path.as_posix() for sample in manifest.samples] == [f"{tmp_path}/a b/x.mp4", "/abs/y,1.mp4"]
    assert [sample.labels["label"] for sample in manifest.samples] == [3, 0]


def test_folder_of_lists_named_after_splits(tmp_path):
    write(tmp_path, "train.csv", "a.mp4 4\nb.mp4 0\n")
    write(tmp_path, "val.csv", "c.mp4 1\n")
    manifest = read_manifest(tmp_path, split="val")
    assert summary(manifest) == [("c.mp4", {"label": 1})]
    assert len(manifest.classes["label"]) == 5


def test_list_with_a_bad_line(tmp_path):
    with pytest.raises(DataError, match=r"line 2 is 'b\.mp4 run', expected a path and a class index"):
        read_manifest(write(tmp_path, "a.txt", "a.mp4 1\nb.mp4 run\n"))


# ------------------------------------------------------------------------------------------------------------ Kinetics

KINETICS = """label,youtube_id,time_start,time_end,split,is_cc
"petting animal (not cat)",-abcdefghi_,3,13,train,0
\"\"\"dancing\"\"\",_bcdefghijk,0,10,train,0
dancing,cdefghijklm,20,30,train,1
dancing,missingmiss,1,11,train,1
petting animal (not cat),whole_video,5,15,train,1
"""


def test_kinetics_csv_finds_files_in_any_layout(tmp_path):
    write(tmp_path, "train.csv", KINETICS)
    touch(
        tmp_path,
        "train/petting_animal_(not_cat)/-abcdefghi__000003_000013.mp4",
        "videos/_bcdefghijk_000000_000010.mp4",
        "train/dancing/cdefghijklm_000020_000030.mp4",
        "replacement_for_corrupted_k400/cdefghijklm.mp4",
        "untrimmed/whole_video.mkv",
    )
    manifest = read_manifest(tmp_path, split="train")
    assert manifest.classes == {"label": ("dancing", "petting animal (not cat)")}
    assert summary(manifest) == [
        ("train/petting_animal_(not_cat)/-abcdefghi__000003_000013.mp4", {"label": 1}),
        ("videos/_bcdefghijk_000000_000010.mp4", {"label": 0}),
        ("replacement_for_corrupted_k400/cdefghijklm.mp4", {"label": 0}),
        ("untrimmed/whole_video.mkv", {"label": 1}),
    ]
    assert manifest.samples[0].id == "-abcdefghi__000003_000013"
    assert [(sample.start, sample.end) for sample in manifest.samples[2:]] == [(None, None), (5.0, 15.0)]
    assert manifest.dropped == ("missingmiss_000001_000011.mp4",)


def test_kinetics_test_files_have_no_labels_and_validate_is_val(tmp_path):
    write(tmp_path, "validate.csv", "label,youtube_id,time_start,time_end,split\nrun,abcdefghijk,0,10,validate\n")
    write(tmp_path, "test.csv", "youtube_id,time_start,time_end,split\nbbcdefghijk,0,10,test\n")
    touch(tmp_path, "abcdefghijk_000000_000010.mp4", "bbcdefghijk_000000_000010.mp4")
    assert read_manifest(tmp_path, split="test").samples[0].labels == {}
    assert read_manifest(tmp_path, split="val").samples[0].labels == {"label": 0}


def test_kinetics_without_videos(tmp_path):
    file = write(tmp_path, "train.csv", KINETICS)
    with pytest.raises(DataError, match=r"not one of its 5 videos was found, e.g. -abcdefghi__000003_000013.mp4"):
        read_manifest(file)
    with pytest.raises(DataError, match="has one label a sample, expected the 2 label columns verb, noun"):
        read_manifest(file, labels=("verb", "noun"))


# ------------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_written_manifests_read_back(tmp_path, name):
    write(tmp_path / "in", "a.csv", TABLE)
    (tmp_path / "in" / "classes.json").write_text('["walk", "jump", "run"]')
    manifest = read_manifest(tmp_path / "in" / "a.csv")
    write_manifest(manifest, tmp_path / name)
    again = read_manifest(tmp_path / name)
    assert again.samples == manifest.samples
    assert again.classes == manifest.classes
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".writing")]


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_written_multi_label_manifests_read_back(tmp_path, name):
    manifest = read_manifest(write(tmp_path, "a.csv", "path,label\na,run;jump\nb,jump\nc,\n"))
    write_manifest(manifest, tmp_path / name)
    assert read_manifest(tmp_path / name) == manifest


def test_written_lists_read_back(tmp_path):
    touch(tmp_path, "run/a.mp4", "jump/b.mp4")
    manifest = read_manifest(tmp_path)
    write_manifest(manifest, tmp_path / "list.txt")
    assert (tmp_path / "list.txt").read_text() == "jump/b.mp4 0\nrun/a.mp4 1\n"
    again = read_manifest(tmp_path / "list.txt")
    assert [sample.labels for sample in again.samples] == [sample.labels for sample in manifest.samples]


def test_what_cannot_be_written_is_refused(tmp_path):
    manifest = read_manifest(write(tmp_path, "a.csv", TABLE))
    with pytest.raises(ValueError, match=r"written as .jsonl, .csv or .txt, got 'a.yaml'"):
        write_manifest(manifest, tmp_path / "a.yaml")
    with pytest.raises(ValueError, match=r"one class each, which sample 'b c\.mp4@1\.5-3' is not"):
        write_manifest(manifest, tmp_path / "a.txt")


# ----------------------------------------------------------------------------------------------------------- real sets


@pytest.mark.skipif("WHOLEREEL_DATA" not in os.environ, reason="WHOLEREEL_DATA names no folder of real data sets")
@pytest.mark.parametrize(
    ("name", "classes", "train", "val"),
    [("weizmann", 10, 60, 30), ("ucf101_5", 5, 90, 35), ("jhmdb_pose10", 10, 82, 38), ("grid_s1", 4, 112, 28)],
)
def test_real_sets(name, classes, train, val):
    root = Path(os.environ["WHOLEREEL_DATA"]) / name
    parts = {split: read_manifest(root, split=split) for split in ("train", "val")}
    assert {split: len(manifest) for split, manifest in parts.items()} == {"train": train, "val": val}
    assert len(parts["train"].classes["label"]) == classes
    assert parts["train"].classes == parts["val"].classes
    assert all(sample.path.is_file() for manifest in parts.values() for sample in manifest.samples)
