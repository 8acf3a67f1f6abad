"""UCF101, HMDB51, Diving48, Sports-1M. Traps: HandstandPushups, odd file names, code 0, several labels."""

import json

import pytest

from tests.datasets.formats.folders import folder, rows
from wholereel.datasets.formats.diving48 import read_diving48
from wholereel.datasets.formats.hmdb51 import read_hmdb51
from wholereel.datasets.formats.sports1m import read_sports1m
from wholereel.datasets.formats.ucf101 import read_ucf101
from wholereel.errors import ConfigError, DataError

UCF = {
    "ucfTrainTestlist/classInd.txt": "1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n",
    "ucfTrainTestlist/trainlist01.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\n"
    "HandstandPushups/v_HandStandPushups_g08_c01.avi 2\r\n",
    "ucfTrainTestlist/testlist01.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi\r\n"
    "HandstandPushups/v_HandStandPushups_g01_c02.avi\r\n",
    "ucfTrainTestlist/trainlist02.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi 1\n",
    "ucfTrainTestlist/testlist02.txt": "HandstandPushups/v_HandStandPushups_g08_c01.avi\n",
}


HAND_STAND = "HandStandPushups/v_HandStandPushups_g08_c01.avi"


def test_ucf101(tmp_path):
    root = folder(
        tmp_path,
        UCF,
        "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi",
        f"UCF-101/{HAND_STAND}",
        "UCF-101/HandstandPushups/v_HandstandPushups_g01_c02.avi",
    )
    found = read_ucf101(root)
    assert found.classes == {"label": ("ApplyEyeMakeup", "HandstandPushups")}
    assert rows(found) == [
        ("v_ApplyEyeMakeup_g08_c01", "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi", "train", {"label": 0}),
        (
            "v_HandStandPushups_g08_c01",
            f"UCF-101/{HAND_STAND}",
            "train",
            {"label": 1},
        ),
        ("v_ApplyEyeMakeup_g01_c01", "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", "test", {"label": 0}),
        ("v_HandStandPushups_g01_c02", "UCF-101/HandstandPushups/v_HandstandPushups_g01_c02.avi", "test", {"label": 1}),
    ]
    assert [sample.meta["group"] for sample in found.samples] == [8, 8, 1, 1]
    assert [sample.split for sample in read_ucf101(root, fold=2).samples] == ["train", "test"]
    with pytest.raises(ConfigError, match="has the folds 1, 2 and 3, not 4"):
        read_ucf101(root, fold=4)
    (root / "ucfTrainTestlist/trainlist01.txt").write_text("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 2\n")
    with pytest.raises(DataError, match=r"trainlist01\.txt: line 1 is 'ApplyEyeMakeup/v_.* 2', expected"):
        read_ucf101(root)


def test_hmdb51(tmp_path):
    odd = "#20_Rhythm_clap_u_nm_np1_fr_goo_0"
    odder = "Prelinger_(1950);_eat!_&_drink_clap_f_cm_np1_le_med_0"
    texts = {
        "testTrainMulti_7030_splits/clap_test_split1.txt": f"{odd}.avi 1 \n{odder}.avi 2 \nunused_clap_0.avi 0 \n",
        "testTrainMulti_7030_splits/brush_hair_test_split1.txt": "April_brush_hair_u_nm_np1_ba_goo_0.avi 1 \n",
        "testTrainMulti_7030_splits/brush_hair_test_split2.txt": "April_brush_hair_u_nm_np1_ba_goo_0.avi 2 \n",
    }
    root = folder(tmp_path, texts, f"hmdb51_org/clap/{odd}.avi", f"hmdb51_org/clap/{odder}.avi")
    found = read_hmdb51(root)
    assert found.classes == {"label": ("brush_hair", "clap")}
    name = "brush_hair/April_brush_hair_u_nm_np1_ba_goo_0"
    assert rows(found) == [
        (name, f"{name}.avi", "train", {"label": 0}),
        (f"clap/{odd}", f"hmdb51_org/clap/{odd}.avi", "train", {"label": 1}),
        (f"clap/{odder}", f"hmdb51_org/clap/{odder}.avi", "test", {"label": 1}),
    ]
    assert [sample.split for sample in read_hmdb51(root, fold=2).samples] == ["test"]
    with pytest.raises(DataError, match=r"does not hold <class>_test_split3\.txt"):
        read_hmdb51(root, fold=3)
    (root / "testTrainMulti_7030_splits/clap_test_split1.txt").write_text("a.avi 3\n")
    with pytest.raises(DataError, match=r"line 1 is 'a\.avi 3', expected 'name\.avi code' with code 0, 1 or 2"):
        read_hmdb51(root)


def dive(name: str, label: int) -> dict:
    return {"vid_name": name, "label": label, "start_frame": 0, "end_frame": 136}


def test_diving48(tmp_path):
    texts = {
        "Diving48_vocab.json": [["Back", "15som", "05Twis", "FREE"], ["Forward", "25som", "NoTwis", "PIKE"]],
        "Diving48_V2_train.json": [dive("-3_xTgPrcyc_00001", 1), dive("_NJU4OCqYGA_00012", 0)],
        "Diving48_V2_test.json": [dive("v9R9Zr0bTKI_00000", 1)],
        "Diving48_train.json": [dive("-3_xTgPrcyc_00001", 0)],
        "Diving48_test.json": [dive("v9R9Zr0bTKI_00000", 0)],
    }
    root = folder(tmp_path, {name: json.dumps(text) for name, text in texts.items()}, "rgb/-3_xTgPrcyc_00001.mp4")
    found = read_diving48(root)
    assert found.classes == {"label": ("Back/15som/05Twis/FREE", "Forward/25som/NoTwis/PIKE")}
    assert rows(found) == [
        ("-3_xTgPrcyc_00001", "rgb/-3_xTgPrcyc_00001.mp4", "train", {"label": 1}),
        ("_NJU4OCqYGA_00012", "_NJU4OCqYGA_00012.mp4", "train", {"label": 0}),
        ("v9R9Zr0bTKI_00000", "v9R9Zr0bTKI_00000.mp4", "test", {"label": 1}),
    ]
    assert found.samples[0].meta == {"start_frame": 0, "end_frame": 136}
    old = read_diving48(root, version="v1")
    assert ([sample.labels for sample in old.samples], old.facts) == ([{"label": 0}] * 2, {"labels": "v1"})
    (root / "Diving48_V2_test.json").write_text(json.dumps([dive("a", 2)]))
    with pytest.raises(DataError, match=r"entry 1 has label 2, expected 0\.\.1"):
        read_diving48(root)


def test_sports1m(tmp_path):
    texts = {
        "labels.txt": "aikido\nalpine skiing\ncurling\n",
        "original/train_partition.txt": "http://www.youtube.com/watch?v=-a1b2c3d4e_ 2,0\n"
        "https://www.youtube.com/watch?v=_bcdefghijk 1\n",
        "original/test_partition.txt": "http://www.youtube.com/watch?v=cdefghijklm 0,2\n",
        "cross-validation/train_0.txt": "http://www.youtube.com/watch?v=cdefghijklm 0\n",
        "cross-validation/test_0.txt": "http://www.youtube.com/watch?v=cdefghijklm 0\n",
    }
    root = folder(tmp_path, texts, "videos/-a1b2c3d4e_.mp4", "videos/cdefghijklm.webm")
    found = read_sports1m(root)
    assert found.classes == {"label": ("aikido", "alpine skiing", "curling")}
    assert found.multi_label
    assert rows(found) == [
        ("-a1b2c3d4e_", "videos/-a1b2c3d4e_.mp4", "train", {"label": (0, 2)}),
        ("_bcdefghijk", "_bcdefghijk.mp4", "train", {"label": (1,)}),
        ("cdefghijklm", "videos/cdefghijklm.webm", "test", {"label": (0, 2)}),
    ]
    pair = read_sports1m(root, train="cross-validation/train_0.txt", test="cross-validation/test_0.txt")
    assert [(sample.id, sample.split) for sample in pair.samples] == [("cdefghijklm", "train"), ("cdefghijklm", "test")]
    (root / "original/test_partition.txt").write_text("http://www.youtube.com/watch?v=cdefghijklm 3\n")
    with pytest.raises(DataError, match=r"line 1 has label 3, expected one of 0\.\.2"):
        read_sports1m(root)
