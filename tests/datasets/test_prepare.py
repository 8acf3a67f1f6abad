import hashlib
import json

import pytest

from tests.datasets.broken_files import sound_only, video
from tests.datasets.formats.folders import folder
from wholereel.cli.main import main
from wholereel.datasets.catalogue import DATASETS, read_dataset
from wholereel.datasets.manifest import label_columns, read_manifest
from wholereel.datasets.prepare import Counts, prepare, write_prepared
from wholereel.errors import ConfigError, DataError

LISTS = {
    "classInd.txt": "1 Archery\n2 Surfing\n",
    "trainlist01.txt": "Archery/v_Archery_g08_c01.avi 1\nSurfing/v_Surfing_g08_c01.avi 2\n",
    "testlist01.txt": "Archery/v_Archery_g01_c01.avi\nSurfing/v_Surfing_g01_c01.avi\n",
}


def test_missing_files_are_left_out_and_counted(tmp_path):
    root = folder(tmp_path, LISTS, "Archery/v_Archery_g08_c01.avi", "Surfing/v_Surfing_g01_c01.avi")
    annotations, options = read_dataset("ucf101", root)
    prepared = prepare(annotations)
    assert prepared.counts == {"train": Counts(2, 1), "test": Counts(2, 1)}
    assert [counts.dropped for counts in prepared.counts.values()] == [1, 1]
    assert [sample.id for sample in prepared.manifest.samples] == ["v_Archery_g08_c01", "v_Surfing_g01_c01"]
    assert prepared.manifest.dropped == ("Surfing/v_Surfing_g08_c01.avi", "Archery/v_Archery_g01_c01.avi")
    path = write_prepared(prepared, "ucf101", options, root)
    again = read_manifest(path)
    assert again.samples == prepared.manifest.samples
    assert again.classes == {"label": ("Archery", "Surfing")}
    record = json.loads((root / "prepared.json").read_text())
    assert record["options"] == {"fold": 1}
    assert record["counts"]["train"] == {"expected": 2, "found": 1, "dropped": 1}
    assert record["sources"]["classInd.txt"] == hashlib.sha256(LISTS["classInd.txt"].encode()).hexdigest()
    assert list(record["sources"]) == ["classInd.txt", "trainlist01.txt", "testlist01.txt"]


def test_manifests_may_lie_elsewhere(tmp_path):
    root = folder(tmp_path / "set", LISTS, "Archery/v_Archery_g08_c01.avi")
    annotations, options = read_dataset("ucf101", root)
    path = write_prepared(prepare(annotations), "ucf101", options, tmp_path / "out" / "deep")
    assert read_manifest(path).samples[0].path == root / "Archery" / "v_Archery_g08_c01.avi"


def test_nothing_found_and_ids_that_repeat(tmp_path):
    annotations, _ = read_dataset("ucf101", folder(tmp_path, LISTS))
    with pytest.raises(DataError, match=r"not one of the 4 files that it lists was found, e\.g\. .*v_Archery_g08_c01"):
        prepare(annotations)
    (tmp_path / "trainlist01.txt").write_text(LISTS["trainlist01.txt"] * 2)
    with pytest.raises(DataError, match="2 samples of split 'train' have the id 'v_Archery_g08_c01'"):
        prepare(read_dataset("ucf101", tmp_path)[0])


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_says_what_is_missing(tmp_path, name):
    with pytest.raises(DataError, match=str(tmp_path)):
        read_dataset(name, tmp_path)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        read_dataset(name, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ucf11", [], r"no data set 'ucf11'\. Did you mean 'ucf101'\? There are: kinetics400"),
        ("ucf101", ["split=1"], r"data set 'ucf101' has no option 'split=1'\. Options \(and defaults\): fold=1\."),
        ("ucf101", ["fold"], "has no option 'fold'"),
        ("ucf101", ["fold=one"], "option fold=one is no whole number"),
        ("ava_v2.2", ["threshold=high"], "option threshold=high is no number"),
        ("ava_v2.2", ["version=v2.1"], "has no option 'version=v2.1'"),
        ("charades", ["layout=frames"], "option layout=frames is unknown; legal are videos, pictures"),
        ("esc50", ["esc10=yes"], "option esc10=yes: legal are true and false"),
    ],
)
def test_options_are_checked(tmp_path, name, options, message):
    with pytest.raises(ConfigError, match=message):
        read_dataset(name, tmp_path, options)


def test_command(tmp_path, capsys):
    root = folder(tmp_path, LISTS)
    video(root / "UCF-101/Archery/v_Archery_g08_c01.avi", 1)
    video(root / "UCF-101/Surfing/v_Surfing_g01_c01.avi", 2)
    assert main(["data", "prepare", "ucf101", "--root", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["split", "expected", "found", "dropped", "published"],
        ["train", "2", "1", "1", "9537"],
        ["test", "2", "1", "1", "3783"],
    ]
    assert lines[3:] == [
        "label: 2 classes",
        f"2 files are listed but not there, see {root / 'missing_files.txt'}",
        f"written: {root / 'manifest.jsonl'}",
    ]
    missing = root / "missing_files.txt"
    assert missing.read_text() == "Surfing/v_Surfing_g08_c01.avi\nArchery/v_Archery_g01_c01.avi\n"
    assert main(["data", "check", str(root)]) == 0
    assert "no problems" in capsys.readouterr().out
    assert main(["data", "lists", str(root), "--out", str(root / "lists")]) == 0
    assert (root / "lists" / "test.csv").read_text() == f"{root}/UCF-101/Surfing/v_Surfing_g01_c01.avi 1\n"
    for name in missing.read_text().split():
        video(root / name, 3)
    assert main(["data", "prepare", "ucf101", "--root", str(root)]) == 0
    assert not missing.exists()
    capsys.readouterr()
    assert main(["data", "prepare", "ucf101", "--root", str(root), "--option", "fold=7"]) == 2
    assert "UCF101 has the folds 1, 2 and 3, not 7" in capsys.readouterr().err


def test_list_names_every_data_set(capsys):
    assert main(["data", "list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in DATASETS)
    assert "fold=1 esc10=false" in printed


def test_sounds_are_prepared_and_checked(tmp_path, capsys):
    rows = ("1-1-A-0.m4a,1,0,dog,True,1,A", "2-1-A-1.m4a,2,1,rooster,False,1,A", "3-1-A-1.m4a,3,1,rooster,False,1,A")
    root = folder(tmp_path, {"meta/esc50.csv": "filename,fold,target,category,esc10,src_file,take\n" + "\n".join(rows)})
    (root / "audio").mkdir()
    sound_only(root / "audio" / "1-1-A-0.m4a")
    sound_only(root / "audio" / "2-1-A-1.m4a")
    assert main(["data", "prepare", "esc50", "--root", str(root)]) == 0
    assert main(["data", "check", str(root)]) == 0
    assert "no problems" in capsys.readouterr().out
    (root / "audio" / "2-1-A-1.m4a").write_bytes(b"")
    assert main(["data", "check", str(root), "--out", str(tmp_path / "bad.tsv")]) == 1
    assert "2-1-A-1.m4a: is empty (0 bytes)" in capsys.readouterr().out


def test_label_columns_are_what_the_source_says(tmp_path):
    (tmp_path / "videos.csv").write_text("path,split\na.mp4,train\n")
    (tmp_path / "labels.csv").write_text("path,label\na.mp4,run\n")
    (tmp_path / "list.txt").write_text("a.mp4 1\n")
    (tmp_path / "verbs.csv").write_text("path,verb\na.mp4,run\n")
    assert [label_columns(tmp_path / name) for name in ("videos.csv", "labels.csv", "list.txt", "verbs.csv")] == [
        (),
        ("label",),
        ("label",),
        (),
    ]
    (tmp_path / "classes.json").write_text('{"verb": ["run"], "noun": []}')
    assert label_columns(tmp_path / "verbs.csv") == ("verb", "noun")
    assert label_columns(folder(tmp_path / "folders", {}, "run/a.mp4")) == ("label",)
