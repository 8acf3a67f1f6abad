"""The commands that print or measure, on real (small) files."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from tests.datasets.broken_files import truncated_video
from wholereel.cli.main import main
from wholereel.cli.predict import _folder_names
from wholereel.cli.text import table
from wholereel.config import Data, Evaluate, Recipe, Views
from wholereel.datasets import worlds
from wholereel.inference import predictor
from wholereel.models.package import Package, build_model, load_package, save_package
from wholereel.models.registry import list_models
from wholereel.recipes import RECIPES, load_recipe
from wholereel.recipes.plain import to_plain


def test_list_prints_every_recipe_with_its_summary(capsys):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    for name in RECIPES:
        assert load_recipe(name).summary in printed


def test_models_prints_what_matches(capsys):
    assert main(["models", "tiny*"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == list_models("tiny*")
    assert head.split() == ["model", "parameters", "clip", "stages"]


def test_ceilings_are_printed_as_proved(capsys):
    assert main(["worlds", "ceilings", "match8"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["world", "level", "ceiling"]
    shown = {level: value for _, level, value in map(str.split, rows)}
    assert (shown["clip"], shown["sum"], shown["video"]) == ("0.5000", "0.6429", "1.0000")


def test_worlds_are_listed(capsys):
    assert main(["worlds", "list"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]} >= {
        "events8",
        "match8",
        "pair6",
        "order2",
    }


def test_a_world_is_made_as_asked(tmp_path, capsys, monkeypatch):
    made = {}

    def make_world(name, out, **options):
        made.update(options, name=name, out=out)
        return out

    monkeypatch.setattr(worlds, "make_world", make_world)
    assert main(["worlds", "make", "pair6", str(tmp_path), "--sizes", "train=6", "val=12", "--seed", "3"]) == 0
    options = {"profile": "std", "seed": 3, "sizes": {"train": 6, "val": 12}, "options": {}, "pool": None}
    assert made == {**options, "name": "pair6", "out": tmp_path}
    assert capsys.readouterr().out.strip() == str(tmp_path)


def test_all_worlds_are_made_in_folders_of_their_own(tmp_path, capsys, monkeypatch):
    made = []
    monkeypatch.setattr(worlds, "make_world", lambda name, out, **options: made.append((name, out)) or out)
    assert main(["worlds", "make", "all", str(tmp_path), "--profile", "smoke"]) == 0
    assert made == [(name, tmp_path / name) for name in worlds.WORLDS]
    assert main(["worlds", "make", "all", str(tmp_path), "--sizes", "train=6"]) == 2
    assert "belong to one world; make it by its name" in capsys.readouterr().err


def test_options_of_worlds_and_their_picture(tmp_path, capsys):
    assert main(["worlds", "picture", "events8", str(tmp_path / "page.png"), "--options", "size=32"]) == 0
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
    assert main(["worlds", "ceilings", "events8", "--options", "side=32"]) == 2
    assert "option 'side=32' of world 'events8': expected NAME=VALUE; it has size" in capsys.readouterr().err
    assert main(["worlds", "ceilings", "--options", "size=32"]) == 2
    assert "--options belongs to one world; name it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("problems", "code", "last"), [([], 0, "as it should be"), (["a.mp4 differs"], 1, "1 problems")]
)
def test_verification_says_what_differs(problems, code, last, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(worlds, "verify_world", lambda _: problems)
    monkeypatch.setattr(worlds, "describe_world", lambda _: ["oracle clip: as proved"])
    assert main(["worlds", "verify", str(tmp_path)]) == code
    assert capsys.readouterr().out.splitlines() == ["oracle clip: as proved", *problems, f"{tmp_path}: {last}"]


def test_data_check_lists_problems(videos, tmp_path, capsys):
    assert main(["data", "check", str(videos), "--out", str(tmp_path / "bad.tsv")]) == 0
    assert "8 samples: " in capsys.readouterr().out
    assert not (tmp_path / "bad.tsv").exists()

    broken = tmp_path / "broken"
    shutil.copytree(videos, broken)
    (broken / "train" / "dark" / "0.mp4").write_bytes(b"")
    (broken / "train" / "dark" / "1.mp4").write_text("not a video")
    assert main(["data", "check", str(broken), "--out", str(tmp_path / "bad.tsv")]) == 1
    assert "2 problems, also in" in capsys.readouterr().out
    assert len((tmp_path / "bad.tsv").read_text().splitlines()) == 3


def test_data_formats(capsys):
    assert main(["data", "formats"]) == 0
    assert "PySlowFast" in capsys.readouterr().out


def test_predict_prints_classes_and_writes_a_timeline(package, videos, tmp_path, capsys):
    video = videos / "test" / "dark" / "0.mp4"
    words = ["predict", str(package), str(video), "--out", str(tmp_path), "--top", "1", "--device", "cpu"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{video}: 3.0 s, 3 clips")
    assert lines[1].split()[0] in ("dark", "light")
    assert (tmp_path / "0" / "timeline.html").is_file()
    assert lines[2].strip() == str(tmp_path / "0" / "timeline.html")


def test_predict_says_that_a_file_is_cut_off(package, tmp_path, capsys):
    truncated_video(tmp_path / "cut.avi")
    assert main(["predict", str(package), str(tmp_path / "cut.avi"), "--out", str(tmp_path), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("  The file is cut off: ")


def test_predict_goes_on_after_a_broken_file(package, videos, tmp_path, capsys):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"")
    good = videos / "test" / "light" / "1.mp4"
    words = ["predict", str(package), str(broken), str(good), "--out", str(tmp_path), "--json", "--device", "cpu"]
    assert main(words) == 2
    printed = capsys.readouterr()
    assert f"error: {broken}: " in printed.err
    assert json.loads(printed.out)["path"] == str(good)


def test_timelines_of_equal_names_do_not_overwrite_each_other(tmp_path):
    assert _folder_names([tmp_path / "a.mp4", tmp_path / "b" / "a.mp4", tmp_path / "a-2.mp4"]) == ["a", "a-2", "a-2-2"]


def test_evaluate_names_its_protocol_and_takes_changes(package, videos, tmp_path, capsys):
    words = ["evaluate", str(package), "--data", str(videos), "--out", str(tmp_path), "--device", "cpu"]
    assert main([*words, "--set", "views.clips.count=2", "--set", "data.workers=0"]) == 0
    assert "split test" in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["evaluated"], results["samples"]) == (4, 4)
    assert results["protocol"]["views"]["clips"]["count"] == 2
    assert results["protocol"]["split"] == "test"

    assert main([*words, "--split", "all", "--set", "data.workers=0"]) == 0
    assert json.loads((tmp_path / "results.json").read_text())["evaluated"] == 8


def test_evaluate_does_as_the_recipe_does_and_says_so(package, videos, tmp_path, capsys):
    """Where the recipe tests a model in several ways or not at all, clips are those of training."""
    stage = tmp_path / "run" / "level"
    shutil.copytree(package, stage / "best")
    own = load_package(package)
    asked = Views(clips=replace(own.clips, count=2), short_side=36, crop=32, combine="softmax_mean")
    test = Evaluate("stage:level", Data(), views=asked)
    words = ["evaluate", str(stage), "--data", str(videos), "--out", str(tmp_path), "--device", "cpu"]
    words += ["--set", "data.workers=0"]

    def measured(stages, *more):
        content = {"recipe": to_plain(Recipe("mine", stages))}
        (tmp_path / "run" / "recipe.json").write_text(json.dumps(content))
        assert main([*words, *more]) == 0
        found = json.loads((tmp_path / "results.json").read_text())["protocol"]["views"]
        return (found["clips"]["count"], found["combine"]), capsys.readouterr().out.splitlines()[1]

    mine, training = (2, "softmax_mean"), (3, "task")
    assert measured({"test": test, "again": test}) == (mine, "protocol: that of the recipe's test, again")
    assert measured({"test": test}, "--protocol", "training") == (training, "protocol: training")
    assert measured({"test": test}, "--set", "views.clips.count=1")[0] == (1, "softmax_mean")
    other = replace(test, views=replace(asked, combine="task"))
    reason = "recipe mine tests level in several ways (test, other)"
    assert measured({"test": test, "other": other}) == (training, f"protocol: that of training: {reason}")
    elsewhere = replace(test, model="stage:another")
    reason = "recipe mine does not test level"
    assert measured({"test": elsewhere}) == (training, f"protocol: that of training: {reason}")
    (tmp_path / "run" / "recipe.json").write_text('{"recipe": {"name": "mine", "stages": {"a": {"kind": "nothing"}}}}')
    assert main(words) == 0
    assert "recipe.json cannot be read by this version (stages.a" in capsys.readouterr().out


@pytest.fixture(scope="module")
def with_norms(package, tmp_path_factory):
    """The same with BatchNorm, whose statistics are not what it begins with."""
    given = load_package(package)
    spec = replace(given.spec, options={"width": 8, "norm": "batch"})
    model = build_model(spec, len(given.classes))
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    sizes = {"short_side": given.short_side, "crop": given.crop, "clips": given.clips}
    return save_package(
        tmp_path_factory.mktemp("norms") / "best",
        model,
        spec=spec,
        num_classes=len(given.classes),
        classes=given.classes,
        task=given.task,
        input={"mean": given.mean, "std": given.std, **sizes},
    )


def test_folding_changes_rounding_alone_and_precision_is_what_this_machine_likes(
    with_norms, package, videos, tmp_path, capsys, monkeypatch
):
    video, folded = str(videos / "test" / "dark" / "0.mp4"), []
    monkeypatch.setattr(Package, "folded", lambda self, real=Package.folded: folded.append(1) or real(self))
    scores = {}
    for name, words in {"plain": [], "folded": ["--fold"], "bf16": ["--fold", "--precision", "auto"]}.items():
        for device in ("fp32", "bf16"):
            monkeypatch.setattr(predictor, "best_precision", lambda place, device=device: device)
            arguments = ["predict", str(with_norms), video, "--out", str(tmp_path), "--json", "--device", "cpu"]
            assert main([*arguments, *words]) == 0
            scores[name, device] = json.loads(capsys.readouterr().out)["scores"]
    assert len(folded) == 4
    plain = [scores["plain", device] for device in ("fp32", "bf16")]
    assert plain[0] == plain[1]
    assert scores["folded", "bf16"] == scores["bf16", "fp32"] == pytest.approx(plain[0], abs=1e-5)
    assert scores["bf16", "bf16"] != scores["bf16", "fp32"]
    assert scores["bf16", "bf16"] == pytest.approx(plain[0], abs=0.05)

    words = ["evaluate", str(with_norms), "--data", str(videos), "--out", str(tmp_path), "--set", "data.workers=0"]
    assert main([*words, "--device", "cpu", "--fold", "--precision", "auto"]) == 0
    assert json.loads((tmp_path / "results.json").read_text())["protocol"]["precision"] == "bf16"
    said = []
    for number, more in enumerate(([], ["--fold", "--precision", "auto"])):
        out = tmp_path / f"{number}.jsonl"
        assert main(["stream", str(with_norms), video, "--out", str(out), "--plain", "--device", "cpu", *more]) == 0
        said.append([json.loads(line)["top"][0][1] for line in out.read_text().splitlines()])
    assert said[0] != said[1] == pytest.approx(said[0], abs=0.05)
    assert len(folded) == 6
    capsys.readouterr()
    assert main(["predict", str(package), video, "--fold", "--out", str(tmp_path)]) == 2
    assert "Tiny has no BatchNorm that could be folded" in capsys.readouterr().err


def test_evaluate_explains_a_wrong_protocol(package, videos, capsys):
    assert main(["evaluate", str(package), "--data", str(videos), "--set", "views.clip.count=2"]) == 2
    assert "no setting 'clip' in views. Did you mean 'clips'?" in capsys.readouterr().err


def test_doctor_finds_this_machine_fit(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "torchvision ops" in printed
    assert "the right frame read back" in printed


def test_doctor_ends_its_list_whatever_breaks(capsys, monkeypatch):
    from wholereel.cli import doctor

    def broken():
        raise RuntimeError("no such operator")
        yield

    monkeypatch.setattr(doctor, "CHECKS", {"operators": broken, "disk": doctor.CHECKS["disk"]})
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "FAIL  operators         RuntimeError: no such operator" in printed
    assert "1 problems" in printed


@pytest.mark.parametrize("device", ["gpu", "cuda:7"])
def test_an_unknown_device_is_refused(device, package, capsys):
    assert main(["predict", str(package), "a.mp4", "--device", device]) == 2
    assert f"error: --device {device}: expected one of auto, cpu, cuda." in capsys.readouterr().err


def test_columns_are_aligned():
    assert table([("a", "bb", "c"), ("aaa", "b", "")], head=("x", "y", "z")) == "x    y   z\na    bb  c\naaa  b"
