"""One step of a model as a file that runs without this library: clip in, logits out, memory in and out by name.

    exported = export_model(model, "model.onnx")             # or .pt2, for torch.export.load
    program = ExportedStep("model.onnx")
    state = program.initial_state()
    for clip_BCTHW, starts_B in clips:
        logits, state = program(clip_BCTHW, starts_B, state)

Every model with the contract `prediction, state = model(clip, state)` is served, and plain clip models, whose state is
empty. The state is a plain mapping of names to tensors of fixed shapes, `"0.sum_BPV"` being a field of the first
block's; rows where `starts_B` is true forget before the clip is read, inside the program. A state of zeros with all
rows starting is the memory of nothing.
Models that judge boxes take them in slots, `boxes` (S of them a row, in pixels) and `boxes_valid`, and give logits
`(B, S, K)`. A detector's boxes then read the clips so far, not those behind.
What was written is run against the module for a few steps, and refused where it differs.
Not here: running such a file (`exported_step.py`), what can be exported (`export_source.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wholereel.errors import CheckpointError, ConfigError, import_extra
from wholereel.inference.export_source import clip_shape_of
from wholereel.inference.exported_step import (
    BOXES,
    BOXES_VALID,
    CLIP,
    LOGITS,
    METADATA_KEY,
    NEXT,
    STARTS,
    STATE,
    ExportedStep,
    NamedState,
    quiet,
)
from wholereel.models.folding import fold_norms

__all__ = ["FORMATS", "Exported", "Step", "export_model", "export_program"]

FORMATS = (".pt2", ".onnx")
SLOTS = 16  # boxes of a row, for models that take any number
TOLERANCE = 1e-3  # of the logits' and states' spread; float32 kernels of two runtimes differ by 1e-6 to 1e-4


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        path: the file.
        inputs, outputs: names and shapes of the tensors, in order; a free batch axis is written as 0.
        largest_error: of logits and states against the module, relative to their spread.
        steps: that were compared.
    """

    path: Path
    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]
    largest_error: float
    steps: int


class Step(nn.Module):
    """A model as a function of tensors and one mapping of tensors.

    Args:
        model: with `init_state` and `forward(clip, state)`; or a clip model without state.
        state_options: of `model.init_state`.

    Attributes:
        slots: boxes that a row has, of which some count; 0 = the model judges clips.
    """

    def __init__(self, model: nn.Module, state_options: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.model = model
        judged = getattr(model, "boxes", None)
        self.slots: int = 0 if judged is None else getattr(judged, "slots", SLOTS)
        self.state_options = dict(state_options or {})
        self.init: Callable[..., Any] | None = getattr(model, "init_state", None)
        self.state_type = None if self.init is None else type(self.init(1, **self.state_options))

    def initial_state(self, batch_size: int) -> NamedState:
        """The memory of nothing; empty for models without one."""
        state: NamedState = {} if self.init is None else dict(self.init(batch_size, **self.state_options).as_dict())
        return state

    def forward(
        self,
        clip_BCTHW: Tensor,
        starts_B: Tensor,
        state: NamedState,
        boxes_BS4: Tensor | None = None,
        boxes_valid_BS: Tensor | None = None,
    ) -> tuple[Any, NamedState]:
        """One clip of each row.

        Args:
            clip_BCTHW: normalised.
            starts_B: bool; rows whose video begins with this clip.
            state: of the step before.
            boxes_BS4, boxes_valid_BS: for models that judge boxes: x1, y1, x2, y2 in pixels, and which are boxes.
        Returns: what the model predicts (logits, or several of them as a tuple), and the state for the next step.
        """
        if self.state_type is None:
            return self.model(clip_BCTHW), {}
        before = self.state_type.from_dict(state).reset(starts_B)
        if boxes_BS4 is None:
            prediction, after = self.model(clip_BCTHW, before)
        else:
            prediction, after = self.model.forward_slots(clip_BCTHW, before, boxes_BS4, boxes_valid_BS)  # type: ignore[operator]
        return prediction, dict(after.as_dict())


def export_program(
    model: nn.Module,
    clip_shape: tuple[int, int, int, int],
    *,
    batch_size: int | None = 1,
    state_options: Mapping[str, Any] | None = None,
) -> tuple[torch.export.ExportedProgram, dict[str, Any]]:
    """The program of one step, in evaluation mode, and the arguments that it was traced with.

    Args:
        clip_shape: (C, T, H, W).
        batch_size: rows of the program; `None` = any number.
        state_options: of `model.init_state`, e.g. `clips` of models that keep the tokens of all clips.
    """
    step = Step(model, _state_options(model, clip_shape, state_options)).eval()
    rows = 2 if batch_size is None else batch_size
    like = next(model.parameters())
    example: dict[str, Any] = {
        "clip_BCTHW": torch.zeros(rows, *clip_shape, dtype=like.dtype, device=like.device),
        "starts_B": torch.ones(rows, dtype=torch.bool, device=like.device),
        "state": step.initial_state(rows),
    }
    if step.slots:
        example |= _boxes(rows, step.slots, clip_shape, example["clip_BCTHW"], torch.Generator().manual_seed(0))
    dynamic = None
    if batch_size is None:
        batch = torch.export.Dim("batch")
        rows_free = {0: batch}
        dynamic = {
            "clip_BCTHW": rows_free,
            "starts_B": rows_free,
            "state": dict.fromkeys(example["state"], rows_free),
        }
        dynamic |= dict.fromkeys(("boxes_BS4", "boxes_valid_BS") if step.slots else (), rows_free)
    with torch.no_grad(), quiet():
        program = torch.export.export(step, (), example, dynamic_shapes=dynamic, strict=False)
    _drop_empty_regions(program)
    return program, example


def _boxes(
    rows: int, slots: int, clip_shape: tuple[int, ...], like: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Any boxes inside of a clip; from none to all slots of a row are filled, the first ones."""
    ends_BS22 = torch.rand(rows, slots, 2, 2, generator=generator).sort(2).values
    boxes_BS4 = (ends_BS22 * torch.tensor(clip_shape[:1:-1])).flatten(2)
    count_B1 = torch.randint(slots + 1, (rows, 1), generator=generator)
    valid_BS = torch.arange(slots) < count_B1
    return {"boxes_BS4": boxes_BS4.to(like), "boxes_valid_BS": valid_BS.to(like.device)}


def _drop_empty_regions(program: torch.export.ExportedProgram) -> None:
    """Regions without autocast whose result nobody reads: torch 2.14 writes them, but cannot read them again."""
    for node in reversed(list(program.graph.nodes)):
        if node.name.startswith("wrap_with_autocast") and not node.users:
            program.graph.erase_node(node)
    program.graph_module.delete_all_unused_submodules()
    program.graph_module.recompile()


def _state_options(
    model: nn.Module, clip_shape: tuple[int, int, int, int], given: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What `init_state` needs to know of the clips: models name it differently."""
    options = dict(given or {})
    code = getattr(getattr(model, "init_state", None), "__code__", None)
    names = () if code is None else code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    if "size" in names:
        options.setdefault("size", clip_shape[2:])
    if "clip_shape" in names and options.get("clips") is not None:
        options.setdefault("clip_shape", clip_shape)
    return options


def export_model(
    model: nn.Module,
    target: str | Path,
    *,
    clip_shape: tuple[int, int, int, int] | None = None,
    batch_size: int | None = 1,
    state_options: Mapping[str, Any] | None = None,
    description: Mapping[str, Any] | None = None,
    steps: int = 4,
    tolerance: float = TOLERANCE,
    fold: bool = False,
) -> Exported:
    """Write one step of a model, then run what was written against the module.

    Args:
        target: `.pt2` (a program of torch.export) or `.onnx` (needs the extra `export`); replaced in one step.
        clip_shape: (C, T, H, W); that of the model's training clips where `None`.
        batch_size: rows of the program; `None` = any number.
        state_options: of `model.init_state`.
        description: anything that JSON can hold, written into the file: classes, how the input is made, licence.
        steps: clips that are compared; the first row begins anew in the last but one.
        tolerance: largest error, relative to the spread of each output.
        fold: BatchNorm is folded into convolutions (`models.folding`); what was written is run against the module as
            it was given.
    Raises:
        ConfigError: another suffix, nothing to fold, or a model that cannot be exported, with the reason.
        CheckpointError: what was written computes something else.
        MissingExtraError: ONNX without its packages.
    """
    target = Path(target)
    if target.suffix not in FORMATS:
        raise ConfigError(f"{target}: a step is written as {' or '.join(FORMATS)}.")
    model = model.eval()
    shape = clip_shape or clip_shape_of(model)
    try:
        written = _folded(model, shape, state_options) if fold else model
        program, example = export_program(written, shape, batch_size=batch_size, state_options=state_options)
    except (torch._dynamo.exc.UserError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{type(model).__name__} cannot be exported for clips {shape}: {reason}") from error
    step = Step(model, _state_options(model, shape, state_options)).eval()
    content = {**_described(step, shape, example, batch_size), **dict(description or {})}
    part = target.with_name(f".{target.stem}.part{target.suffix}")
    write = _write_onnx if target.suffix == ".onnx" else _write_pt2
    write(program, example, content, part)
    try:
        error_found = _largest_error(step, ExportedStep(part), example, batch_size, steps)
    except Exception:
        part.unlink(missing_ok=True)
        raise
    if not error_found <= tolerance:
        part.unlink(missing_ok=True)
        found = f"outputs that differ from the module's by {error_found:.1e} of their spread"
        raise CheckpointError(target, found, f"at most {tolerance:.0e}", "Nothing was written.")
    os.replace(part, target)
    return Exported(target, content["inputs"], content["outputs"], error_found, steps)


def _folded(
    model: nn.Module, clip_shape: tuple[int, int, int, int], state_options: Mapping[str, Any] | None
) -> nn.Module:
    init = getattr(model, "init_state", None)
    state = () if init is None else (init(1, **_state_options(model, clip_shape, state_options)),)
    like = next(model.parameters())
    return fold_norms(model, torch.zeros(1, *clip_shape, dtype=like.dtype, device=like.device), *state)


def _described(
    step: Step, clip_shape: tuple[int, ...], example: Mapping[str, Any], batch_size: int | None
) -> dict[str, Any]:
    rows = batch_size or 0
    state = {f"{STATE}{name}": [rows, *tensor.shape[1:]] for name, tensor in example["state"].items()}
    dtypes = {f"{STATE}{name}": str(tensor.dtype).removeprefix("torch.") for name, tensor in example["state"].items()}
    clip_dtype = str(example["clip_BCTHW"].dtype).removeprefix("torch.")
    dtypes = {CLIP: clip_dtype, STARTS: "bool", **dtypes}
    boxes: dict[str, list[int]] = {}
    if step.slots:
        boxes = {BOXES: [rows, step.slots, 4], BOXES_VALID: [rows, step.slots]}
        dtypes |= {BOXES: clip_dtype, BOXES_VALID: "bool"}
    with torch.no_grad():
        logits, _ = step(**example)
    several = isinstance(logits, tuple)
    heads = {f"{LOGITS}.{i}": part for i, part in enumerate(logits)} if several else {LOGITS: logits}
    outputs = {name: [rows, *tensor.shape[1:]] for name, tensor in heads.items()}
    info = getattr(step.model, "info", None)
    return {
        "inputs": {CLIP: [rows, *clip_shape], STARTS: [rows], **state, **boxes},
        "dtypes": dtypes,
        "outputs": outputs | {name.replace(STATE, NEXT, 1): shape for name, shape in state.items()},
        "input": None if info is None else asdict(info),
    }


def _write_pt2(
    program: torch.export.ExportedProgram, example: Mapping[str, Any], content: Mapping[str, Any], path: Path
) -> None:
    with quiet():
        torch.export.save(program, path, extra_files={METADATA_KEY: json.dumps(content)})


def _write_onnx(
    program: torch.export.ExportedProgram, example: Mapping[str, Any], content: Mapping[str, Any], path: Path
) -> None:
    onnx = import_extra("onnx", extra="export", purpose="writing ONNX")
    import_extra("onnxscript", extra="export", purpose="writing ONNX")
    import_extra("onnxruntime", extra="export", purpose="checking what was written as ONNX")
    inputs = [name for name in content["inputs"] if name != STARTS or example["state"]]
    with quiet():
        made = torch.onnx.export(
            program, input_names=inputs, output_names=list(content["outputs"]), dynamo=True, verbose=False
        )
    if made is None:
        raise ConfigError("torch.onnx.export gave no program")
    proto = made.model_proto
    _rename(proto, inputs, list(content["outputs"]))
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(content)
    onnx.save(proto, str(path))


def _rename(proto: Any, inputs: list[str], outputs: list[str]) -> None:
    """Names of the graph's own inputs and outputs, which the exporter takes as wishes only."""
    found_in, found_out = [value.name for value in proto.graph.input], [value.name for value in proto.graph.output]
    if len(found_in) not in (len(inputs), len(inputs) + 1) or len(found_out) != len(outputs):
        raise ConfigError(
            f"the ONNX graph has inputs {found_in} and outputs {found_out}, expected {inputs} and {outputs}"
        )
    renamed = dict(zip(found_in, inputs, strict=False)) | dict(zip(found_out, outputs, strict=True))
    if len(renamed) != len(set(found_in[: len(inputs)]) | set(found_out)):
        raise ConfigError(f"the ONNX graph passes an input through unchanged: {sorted(set(found_in) & set(found_out))}")
    del proto.graph.input[len(inputs) :]  # a flag that models without state do not read
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        value.name = renamed.get(value.name, value.name)
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]


def _largest_error(
    step: Step, program: ExportedStep, example: Mapping[str, Any], batch_size: int | None, steps: int
) -> float:
    """Over a few steps of noise; the state that goes in is each one's own."""
    generator = torch.Generator().manual_seed(0)
    rows = 3 if batch_size is None else batch_size  # another number than the trace had
    ours = theirs = None
    worst = 0.0
    for number in range(steps):
        starts_B = torch.zeros(rows, dtype=torch.bool)
        starts_B[:1] = number == steps - 2
        starts_B |= number == 0
        like = example["clip_BCTHW"]
        clip = torch.randn(rows, *like.shape[1:], generator=generator).to(like)
        if ours is None or theirs is None:
            theirs = program.initial_state(rows)
            ours = {name: tensor.to(like.device) for name, tensor in theirs.items()}
        boxes = _boxes(rows, step.slots, like.shape[1:], like, generator) if step.slots else {}
        with torch.no_grad():
            expected, ours = step(clip, starts_B.to(like.device), ours, **boxes)
        found, theirs = program(clip, starts_B.to(like.device), theirs, **boxes)
        pairs = [(found, expected)] if isinstance(expected, Tensor) else list(zip(found, expected, strict=True))
        pairs += [(theirs[name], ours[name]) for name in ours]
        worst = max(worst, *(_relative(a, b) for a, b in pairs))
    return worst


def _relative(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
    if found.shape != expected.shape or not found.isfinite().all():
        return float("inf")
    if not found.numel():
        return 0.0
    spread = max(float(expected.std(correction=0)), 1e-3 * float(expected.abs().max()), 1e-12)
    return float((found - expected).abs().max()) / spread
