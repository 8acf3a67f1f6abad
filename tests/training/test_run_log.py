"""Log files that can be cut back, the terminal line, settings that may change."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest

from wholereel import config
from wholereel.batches import Fault
from wholereel.errors import ConfigError
from wholereel.training.run_log import Display, LineFile, RunLog, format_seconds
from wholereel.training.settings import check_resumable, flatten, settings_of


def test_a_line_file_is_cut_back_to_what_the_checkpoint_knew(tmp_path):
    path = tmp_path / "lines"
    file = LineFile(path)
    file.append("one")
    size = file.size
    file.append("two, and a half-written th")
    assert LineFile(path, size).size == size
    assert path.read_text() == "one\n"
    assert LineFile(path).size == size
    assert LineFile(tmp_path / "absent", 5).size == 0


def test_records_are_json_and_nan_is_null(tmp_path):
    log = RunLog(tmp_path, rank=0)
    log.write("train", update=3, loss=float("nan"), parts={"video": 0.5}, text="x")
    record = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert record == {"kind": "train", "update": 3, "loss": None, "parts": {"video": 0.5}, "text": "x"}


def test_other_ranks_write_faults_of_their_own_and_no_metrics(tmp_path):
    log = RunLog(tmp_path, rank=1)
    log.write("train", update=1, loss=1.0)
    log.fault(1, 2, [Fault("a", "a.mp4", "two\nlines\tand a tab")])
    assert [file.name for file in tmp_path.iterdir()] == ["faults.1.tsv"]
    assert (tmp_path / "faults.1.tsv").read_text().splitlines()[1] == "1\t2\ta\ta.mp4\ttwo lines and a tab\t"


def test_every_rank_s_faults_are_cut_back(tmp_path):
    fault = Fault("a", "a.mp4", "broken")
    logs = [RunLog(tmp_path, rank=rank) for rank in range(2)]
    for log in logs:
        log.fault(1, 1, [fault] * (1 + logs.index(log)))
    sizes = logs[0].sizes(5, [log.faults.size for log in logs])
    before = [log.faults.path.read_text() for log in logs]
    for log in logs:
        log.fault(1, 2, [fault])
    resumed = [RunLog(tmp_path, rank=rank, sizes=sizes) for rank in range(2)]
    assert [log.faults.path.read_text() for log in resumed] == before
    assert before[0] != before[1]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_line_is_rewritten_on_a_terminal_only():
    live, plain = Terminal(), io.StringIO()
    for stream in (live, plain):
        display = Display(stream, every=1000.0)
        for text in ("a", "b"):
            display.progress(text)
        display.line("stays")
    assert live.getvalue() == "\r\x1b[2Ka\r\x1b[2Kb\r\x1b[2Kstays\n"
    assert plain.getvalue() == "a\nstays\n"
    Display(None).progress("nobody looks")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (75, "1:15"), (4000, "1:06:40")])
def test_seconds_for_people(seconds, text):
    assert format_seconds(seconds) == text


BEFORE = {
    "epochs": 3,
    "batch": 8,
    "model": {"weights": "file:/here/run/clip_level/best"},
    "optim": {"lr": 0.1, "name": "sgd"},
    "data": {"workers": 2},
    "world_size": 2,
}
MOVED = {"model": {"weights": "file:/there/run/clip_level/best"}}


@pytest.mark.parametrize(
    ("change", "allow", "mid_epoch", "refused"),
    [
        ({"data": {"workers": 0}}, False, True, None),
        (MOVED, False, True, None),
        ({**MOVED, "batch": 4}, False, True, "other settings: batch: 8 before, 4 now"),
        ({**MOVED, "epochs": 4}, False, True, r"4 now\. .*allow_changes=True"),
        ({"optim": {"lr": 0.2, "name": "sgd"}}, True, True, None),
        ({"optim": {"lr": 0.2, "name": "sgd"}}, False, True, "optim.lr: 0.1 before, 0.2 now"),
        ({"optim": {"lr": 0.1, "name": "adamw"}}, True, False, "optim.name: 'sgd' before, 'adamw' now"),
        ({"batch": 4}, True, False, "batch: 8 before, 4 now"),
        ({"world_size": 1}, True, False, None),
        ({"world_size": 1}, True, True, "world_size: 2 before, 1 now"),
    ],
)
def test_what_may_differ_on_resuming(change, allow, mid_epoch, refused):
    now = {**BEFORE, **change}
    if refused is None:
        differences = check_resumable(BEFORE, now, allow_changes=allow, mid_epoch=mid_epoch)
        assert len(differences) == (0 if "data" in change else 1)
    else:
        with pytest.raises(ConfigError, match=refused):
            check_resumable(BEFORE, now, allow_changes=allow, mid_epoch=mid_epoch)


def test_a_setting_that_is_newer_than_the_run_was_its_default():
    train = config.Train(config.Model("tiny2d"), config.Data(streams=config.Streams()), optim=config.Optim())
    now = settings_of(train, [], world_size=1)
    before = settings_of(train, [], world_size=1)
    del before["data"]["augment"]["copies"], before["data"]["streams"]["begin"], before["optim"]["betas"]
    del before["task"]["label_smoothing"], before["clip_parallel"], before["data"]["streams"]["hop"]
    assert check_resumable(before, now, allow_changes=False, mid_epoch=True) == []
    changed = replace(train, data=replace(train.data, augment=config.Augment(copies=2)))
    with pytest.raises(ConfigError, match=r"settings: data.augment.copies: None before, 2 now\. "):
        check_resumable(before, settings_of(changed, [], world_size=1), allow_changes=False, mid_epoch=True)
    for part, on in {"rand_augment": config.RandAugment(), "mixing": config.Mixing()}.items():  # off by default
        switched = replace(train, data=replace(train.data, augment=replace(train.data.augment, **{part: on})))
        augment = {name: value for name, value in before["data"]["augment"].items() if name != part}
        older = {**before, "data": {**before["data"], "augment": augment}}
        for saved in (before, older):  # it was off, or did not exist
            with pytest.raises(ConfigError, match=rf"data\.augment\.{part}\."):
                check_resumable(saved, settings_of(switched, [], world_size=1), allow_changes=False, mid_epoch=True)
    remembering = replace(train, model=replace(train.model, memory=config.Memory()))
    with pytest.raises(ConfigError, match=r"model\.memory\."):
        check_resumable(before, settings_of(remembering, [], world_size=1), allow_changes=False, mid_epoch=True)
    named = {**now, "model": {**now["model"], "options": {"width": 8}}}  # what has no default is a difference
    with pytest.raises(ConfigError, match="model.options.width: None before, 8 now"):
        check_resumable(before, named, allow_changes=False, mid_epoch=True)


def test_flat_names():
    assert flatten({"a": {"b": 1, "c": [1, 2]}, "d": None}) == {"a.b": 1, "a.c": [1, 2], "d": None}
