"""Checkpoints are whole at any moment; what is in the way is named."""

from __future__ import annotations

import os

import pytest
import torch

from wholereel.errors import CheckpointError, DataError
from wholereel.training.checkpoint import load_checkpoint, save_checkpoint

CONTENT = {"weights": {"w": torch.arange(4.0)}, "progress": {"step": 3}, "best": None, "note": "text", "list": [1, 2.5]}


def test_round_trip_with_weights_only(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, CONTENT)
    loaded = load_checkpoint(path)
    assert torch.equal(loaded.pop("weights")["w"], CONTENT["weights"]["w"])
    assert loaded == {"format": 1, **{key: value for key, value in CONTENT.items() if key != "weights"}}
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("moment", ["write", "replace"])
def test_killed_in_between_the_old_one_stays(tmp_path, monkeypatch, moment):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, CONTENT)

    class Killed(BaseException):
        pass

    def half_written(content, file):
        file.write(b"half a")
        raise Killed

    def killed(*paths):
        raise Killed

    if moment == "write":
        monkeypatch.setattr(torch, "save", half_written)
    else:
        monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(Killed):
        save_checkpoint(path, {"progress": {"step": 4}})
    monkeypatch.undo()
    assert load_checkpoint(path)["progress"] == {"step": 3}
    save_checkpoint(path, {"progress": {"step": 5}})  # what was left behind is in nobody's way
    assert load_checkpoint(path)["progress"] == {"step": 5}


def test_full_disk_is_an_error_with_the_file_and_keeps_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, CONTENT)

    def full(content, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(DataError, match=r"checkpoint\.pt: the checkpoint could not be written .*No space left"):
        save_checkpoint(path, {})
    assert load_checkpoint(path)["progress"] == {"step": 3}


def test_what_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(CheckpointError, match=r"no such checkpoint"):
        load_checkpoint(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(path)
    path.write_bytes(b"garbage" * 100)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(path)
    torch.save({"format": 99}, path)
    with pytest.raises(CheckpointError, match="checkpoint format 99, expected format 1"):
        load_checkpoint(path)
    torch.save([1], path)
    with pytest.raises(CheckpointError, match="checkpoint format list"):
        load_checkpoint(path)


def test_whatever_damage_is_a_checkpoint_error_with_a_remedy(tmp_path):
    path = tmp_path / "checkpoint.pt"
    for damaged in (b"h\x00.", b"\x80\x02h\x05.", b"(dp0", b""):  # among them a pickle that asks for an absent memo
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"cannot be read \(.+\).*Delete it to start anew"):
            load_checkpoint(path)
