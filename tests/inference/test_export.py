"""Steps of models as files: torch.export and ONNX against the module, with memory, resets and any batch."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.inference.builders import package
from wholereel import config
from wholereel.cli.main import main
from wholereel.errors import CheckpointError, ConfigError
from wholereel.inference.export import FORMATS, Step, export_model
from wholereel.inference.export_source import source_model
from wholereel.inference.exported_step import ExportedStep
from wholereel.models import build_model, create_model
from wholereel.models.memvit import MeMViT
from wholereel.models.memvit_boxes import BoxConfig
from wholereel.models.memvit_state import MemoryConfig
from wholereel.models.mvit import MViT
from wholereel.models.mvit_config import tiny_config
from wholereel.models.video_model import VideoModel

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
NEEDS_ONNX = pytest.mark.skipif(not HAS_ONNX, reason="needs wholereel[export]")
FORMAT = [pytest.param(suffix, marks=[NEEDS_ONNX] if suffix == ".onnx" else []) for suffix in FORMATS]
KINDS = [("clip", ".onnx"), ("none", ".pt2"), ("largest", ".pt2"), ("cached", ".onnx"), ("cached", ".pt2")]
SHAPE = (3, 4, 16, 16)


def make(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "clip":
        return create_model("tiny2d", num_classes=3).eval()
    if kind == "cached":
        config_1 = replace(tiny_config(4, 16, 4), depth=1, widen=(), q_strides=((0, 1, 1, 1),), pool_first=True)
        return MeMViT(config_1, MemoryConfig(kernel=(3, 3, 3), stride=(2, 2, 2)), num_classes=3).eval()
    memory = {
        "collaborative": config.Memory(dim=4, value_dim=4),
        "largest": config.Memory(dim=4, value_dim=4, interaction="max"),
        "none": None,
    }[kind]
    model = VideoModel(create_model("tiny2d", num_classes=3), memory)
    for parameter in model.memories.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.eval()


def stream(step: Step | ExportedStep, state: dict[str, Tensor], rows: int, steps: int = 5) -> list[Tensor]:
    generator, out = torch.Generator().manual_seed(1), []
    for number in range(steps):
        clip = torch.randn(rows, *SHAPE, generator=generator)
        starts_B = torch.tensor([number in (0, 3)] + [number == 0] * (rows - 1))
        with torch.no_grad():
            logits, state = step(clip, starts_B, state)
        out.append(logits)
    return out


def runs_with_torch_alone(path: Path) -> None:
    inputs = ExportedStep(path).description["inputs"]
    shapes = {name.removeprefix("state."): shape for name, shape in inputs.items() if name.startswith("state.")}
    code = f"""
import sys, torch
program = torch.export.load({str(path)!r}).module()
dtypes = torch.float32, torch.int64
state = {{n: torch.zeros(s, dtype=dtypes[n.endswith("s_B")]) for n, s in {shapes!r}.items()}}
logits, state = program(clip_BCTHW=torch.zeros(2, *{SHAPE}), starts_B=torch.tensor([True, True]), state=state)
print(tuple(logits.shape), "wholereel" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(2, 3) False"


@pytest.mark.parametrize(
    ("kind", "suffix"), [pytest.param(*row, marks=[NEEDS_ONNX] if row[1] == ".onnx" else []) for row in KINDS]
)
def test_a_file_streams_like_the_module(kind: str, suffix: str, tmp_path: Path) -> None:
    model = make(kind)
    exported = export_model(model, tmp_path / f"step{suffix}", clip_shape=SHAPE, batch_size=2)
    assert exported.largest_error < 1e-4
    program, step = ExportedStep(exported.path), Step(model)
    assert [path.name for path in tmp_path.iterdir()] == [f"step{suffix}"]
    assert set(program.state_names) == set(step.initial_state(1))
    ours, theirs = stream(step, step.initial_state(2), 2), stream(program, program.initial_state(), 2)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)
    if program.state_names:  # the first row was reset in step 3: there it is what it would be in step 0
        clip = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(9))
        state = {name: tensor + 1 for name, tensor in program.initial_state().items()}
        again, _ = program(clip, torch.tensor([True, True]), state)
        fresh, _ = program(clip, torch.tensor([True, True]), program.initial_state())
        assert torch.equal(again, fresh)
    assert program.description["input"]["mean"] == list(model.info.mean)
    if (kind, suffix) == ("cached", ".pt2"):
        runs_with_torch_alone(exported.path)


@pytest.mark.parametrize("suffix", FORMAT)
@pytest.mark.parametrize("kind", ["collaborative", pytest.param("cached", marks=pytest.mark.exports)])
def test_any_number_of_rows(kind: str, suffix: str, tmp_path: Path) -> None:
    model = make(kind)
    exported = export_model(model, tmp_path / f"step{suffix}", clip_shape=SHAPE, batch_size=None)
    program, step = ExportedStep(exported.path), Step(model)
    assert exported.inputs["clip"] == [0, *SHAPE]
    for rows in (1, 5):
        ours, theirs = stream(step, step.initial_state(rows), rows), stream(program, program.initial_state(rows), rows)
        torch.testing.assert_close(theirs[-1], ours[-1], rtol=1e-4, atol=1e-5)


def judges_boxes(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "cached":
        small = replace(tiny_config(4, 16, 8), depth=1, widen=(), q_strides=((0, 1, 1, 1),), pool_first=True)
        memory = MemoryConfig(kernel=(3, 3, 3), stride=(2, 2, 2))
        model: nn.Module = MeMViT(small, memory, boxes=BoxConfig(slots=3, scale=4, resolution=2), num_classes=3)
    else:
        memory_1 = config.Memory(dim=4, value_dim=4)
        spec = config.Model("tiny_r2plus1d", options={"width": 8}, boxes=config.BoxHead(read="roi"), memory=memory_1)
        model = build_model(spec, 3)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model.eval()


BOXED = [
    pytest.param(
        kind,
        suffix,
        marks=[
            *([pytest.mark.exports] if suffix == ".onnx" or kind == "detector" else []),
            *([NEEDS_ONNX] if suffix == ".onnx" else []),
        ],
    )
    for kind in ("cached", "detector")
    for suffix in FORMATS
]


@pytest.mark.parametrize(("kind", "suffix"), BOXED)
def test_boxes_come_in_slots(kind: str, suffix: str, tmp_path: Path) -> None:
    """What a file says of filled slots is what the model says of so many boxes; of others it says nothing."""
    model = judges_boxes(kind)
    exported = export_model(model, tmp_path / f"step{suffix}", clip_shape=SHAPE, batch_size=None)
    assert exported.largest_error < 1e-3
    program = ExportedStep(exported.path)
    slots = exported.inputs["boxes"][1]
    assert exported.outputs["logits"] == [0, slots, 3]
    generator = torch.Generator().manual_seed(1)
    ours, theirs = model.init_state(3), program.initial_state(3)
    for number in range(4):
        clip_BCTHW = torch.randn(3, *SHAPE, generator=generator)
        starts_B = torch.tensor([number == 0, number in (0, 2), number == 0])
        boxes_BS4 = (torch.rand(3, slots, 2, 2, generator=generator).sort(2).values * 16).flatten(2)
        valid_BS = torch.arange(slots) < torch.tensor([[2], [number % 3], [slots]])
        row_R, slot_R = valid_BS.nonzero(as_tuple=True)
        with torch.no_grad():
            boxes_R5 = torch.cat([row_R[:, None].float(), boxes_BS4[valid_BS]], 1)
            logits_RK, ours = model(clip_BCTHW, ours.reset(starts_B), boxes_R5=boxes_R5)
        logits_BSK, theirs = program(clip_BCTHW, starts_B, theirs, boxes_BS4, valid_BS)
        torch.testing.assert_close(logits_BSK[row_R, slot_R], logits_RK, rtol=1e-3, atol=1e-4)
        assert not logits_BSK[~valid_BS].any()


@pytest.mark.exports
def test_folded_norms_are_not_in_the_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = VideoModel(create_model("tiny2d", num_classes=3, norm="batch"), config.Memory(dim=4, value_dim=4)).eval()
    kinds = {}
    for fold in (False, True):
        path = tmp_path / f"{fold}.pt2"
        assert export_model(model, path, clip_shape=SHAPE, fold=fold).largest_error < 1e-4
        kinds[fold] = {str(node.target) for node in torch.export.load(path).graph.nodes}
    assert any("batch_norm" in kind for kind in kinds[False])
    assert not any("batch_norm" in kind for kind in kinds[True])
    with pytest.raises(ConfigError, match="VideoModel has no BatchNorm that could be folded"):
        export_model(make("none"), tmp_path / "group.pt2", clip_shape=SHAPE, fold=True)


def test_several_label_spaces_and_all_tokens(tmp_path: Path) -> None:
    plain = replace(tiny_config(4, 16, 4), depth=1, widen=(), q_strides=((0, 1, 1, 1),))
    model = MViT(plain, num_classes=(2, 4)).eval()
    program = ExportedStep(export_model(model, tmp_path / "two.pt2", clip_shape=SHAPE).path)
    logits, _ = program(torch.zeros(1, *SHAPE), torch.tensor([True]), program.initial_state())
    assert [tuple(part.shape) for part in logits] == [(1, 2), (1, 4)]
    memory = config.Memory(dim=4, value_dim=4, interaction="nl_softmax")
    keeps_all = VideoModel(create_model("tiny2d", num_classes=3), memory).eval()
    exported = export_model(keeps_all, tmp_path / "all.pt2", clip_shape=SHAPE, state_options={"clips": 6})
    assert exported.inputs["state.0.keys_BMSP"][1] == 6


class Fickle(nn.Module):
    """Computes something else each time it is traced or run."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.calls = nn.Linear(3, 2), 0

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        self.calls += 1
        return self.linear(x_BCTHW.mean((2, 3, 4))) * self.calls


def test_what_computes_something_else_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="outputs that differ from the module's by .* of their spread"):
        export_model(Fickle(), tmp_path / "step.pt2", clip_shape=SHAPE)
    assert not list(tmp_path.iterdir())


def test_files_and_calls_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = make("clip")
    with pytest.raises(ConfigError, match=r"a step is written as .pt2 or .onnx"):
        export_model(model, tmp_path / "step.pth")
    (tmp_path / "broken.pt2").write_bytes(b"no archive")
    with pytest.raises(CheckpointError, match="broken.pt2: cannot be read"):
        ExportedStep(tmp_path / "broken.pt2")
    program = ExportedStep(export_model(model, tmp_path / "step.pt2", clip_shape=SHAPE).path)
    starts_B = torch.tensor([True])
    with pytest.raises(ValueError, match=r"the program has the inputs .* got \['boxes', 'clip', 'starts'\]"):
        program(torch.zeros(1, *SHAPE), starts_B, {}, torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match=r"clip must have the shape \(1, 3, 4, 16, 16\), got \(2, 3, 4, 16, 16\)"):
        program(torch.zeros(2, *SHAPE), starts_B, {})
    with pytest.raises(ValueError, match=r"the program has the inputs \['clip', 'starts'\]"):
        program(torch.zeros(1, *SHAPE), starts_B, {"0.sum_BPV": torch.zeros(1)})
    with pytest.raises(ConfigError, match="'tiny2' is no folder, no file and no model. Did you mean 'tiny2d'"):
        source_model("tiny2")


def test_the_command_takes_packages_files_and_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = package(tmp_path / "run", config.Memory(dim=4, value_dim=4)), tmp_path / "run.pt2"
    assert main(["export", str(folder), str(out), "--batch", "any"]) == 0
    printed = capsys.readouterr().out
    assert "in   clip                            any x 3 x 4 x 32 x 32" in printed
    assert "state.0.sum_BPV" in printed
    assert "differs from the module by at most" in printed
    said = ExportedStep(out).description
    assert said["classes"] == ["left", "right"]
    assert said["input"]["short_side"] == 36
    weights = tmp_path / "weights.pth"
    torch.save(create_model("tiny2d", num_classes=2).state_dict(), weights)
    small = ["--frames", "4", "--size", "16", "16"]
    assert main(["export", str(weights), str(out), *small]) == 2
    assert "does not say which network it is of; name it with --model" in capsys.readouterr().err
    assert main(["export", str(weights), str(out), *small, "--model", "tiny2d", "--classes", "2"]) == 0
    assert json.dumps(ExportedStep(out).description["outputs"]) == '{"logits": [1, 2]}'
    assert main(["export", "tiny_r3d", str(out), *small, "--set", "dropout=0.5"]) == 0
    assert "tiny_r3d" in json.dumps(ExportedStep(out).description)
    assert main(["export", str(folder), str(out), "--set", "a=1"]) == 2
    assert main(["export", "tiny2d", str(out), "--batch", "0"]) == 2
    assert main(["export", "tiny2d", str(out), "--steps", "2"]) == 2
    assert "--batch 0: expected a positive number or any" in capsys.readouterr().err
