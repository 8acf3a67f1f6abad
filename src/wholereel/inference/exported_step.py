"""A file of `export.py`, run without the library's networks: by torch (`.pt2`) or onnxruntime (`.onnx`).

The names of its tensors: `clip`, `starts`, `state.*`, `boxes`, `boxes_valid` in; `logits`, `next.*` out.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wholereel.errors import CheckpointError, import_extra

__all__ = ["ExportedStep", "NamedState", "quiet"]

METADATA_KEY = "wholereel.json"
CLIP, STARTS, STATE, LOGITS, NEXT = "clip", "starts", "state.", "logits", "next."
BOXES, BOXES_VALID = "boxes", "boxes_valid"

NamedState = dict[str, Tensor]
Run = Callable[[NamedState, Mapping[str, Any]], tuple[Any, NamedState]]  # inputs by name, and the description


class ExportedStep:
    """A file of `export_model`, run by torch (`.pt2`) or onnxruntime on the CPU (`.onnx`).

    Attributes:
        description: what was written with it: `inputs`, `outputs`, `dtypes`, `input` (how clips are made), and more.
    Raises: CheckpointError: not such a file. MissingExtraError: ONNX without its packages.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._run, text = (_open_onnx if self.path.suffix == ".onnx" else _open_pt2)(self.path)
        if not text:
            raise CheckpointError(self.path, "no description in it", "a file written by wholereel export")
        self.description: dict[str, Any] = json.loads(text)
        self.state_names = tuple(
            name.removeprefix(STATE) for name in self.description["inputs"] if name.startswith(STATE)
        )

    def initial_state(self, batch_size: int = 1) -> NamedState:
        """Zeros; with all rows starting they are the memory of nothing."""
        shapes, dtypes = self.description["inputs"], self.description["dtypes"]
        return {
            name: torch.zeros(shapes[STATE + name][0] or batch_size, *shapes[STATE + name][1:]).to(
                getattr(torch, dtypes[STATE + name])
            )
            for name in self.state_names
        }

    def __call__(
        self,
        clip_BCTHW: Tensor,
        starts_B: Tensor,
        state: NamedState,
        boxes_BS4: Tensor | None = None,
        boxes_valid_BS: Tensor | None = None,
    ) -> tuple[Any, NamedState]:
        """See `Step.forward`.

        Raises: ValueError: names or shapes that the program was not made for.
        """
        boxes = {BOXES: boxes_BS4, BOXES_VALID: boxes_valid_BS}
        given = {CLIP: clip_BCTHW, STARTS: starts_B, **{STATE + name: tensor for name, tensor in state.items()}}
        given |= {name: tensor for name, tensor in boxes.items() if tensor is not None}
        expected = self.description["inputs"]
        if set(given) != set(expected):
            raise ValueError(f"the program has the inputs {sorted(expected)}, got {sorted(given)}")
        for name, tensor in given.items():
            if any(a not in (0, b) for a, b in zip(expected[name], tensor.shape, strict=True)):
                raise ValueError(f"{name} must have the shape {tuple(expected[name])}, got {tuple(tensor.shape)}")
        return self._run(given, self.description)


def _open_pt2(path: Path) -> tuple[Run, str]:
    extra = {METADATA_KEY: ""}
    try:
        with quiet():
            module = torch.export.load(path, extra_files=extra).module()
    except Exception as error:  # the archive reader raises whatever the bytes make it stumble over
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(path, f"cannot be read ({reason})", "a .pt2 written by wholereel export") from error

    def run(given: NamedState, description: Mapping[str, Any]) -> tuple[Any, NamedState]:
        state = {name.removeprefix(STATE): tensor for name, tensor in given.items() if name.startswith(STATE)}
        boxes = {"boxes_BS4": given[BOXES], "boxes_valid_BS": given[BOXES_VALID]} if BOXES in given else {}
        with torch.no_grad():
            logits, after = module(clip_BCTHW=given[CLIP], starts_B=given[STARTS], state=state, **boxes)
        return logits, after

    return run, extra[METADATA_KEY]


def _open_onnx(path: Path) -> tuple[Run, str]:
    runtime = import_extra("onnxruntime", extra="export", purpose="running ONNX")
    try:
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(path, f"cannot be read ({reason})", "an .onnx file") from error
    read = {value.name for value in session.get_inputs()}

    def run(given: NamedState, description: Mapping[str, Any]) -> tuple[Any, NamedState]:
        feed = {name: tensor.detach().cpu().numpy() for name, tensor in given.items() if name in read}
        names = list(description["outputs"])
        made = dict(zip(names, map(torch.from_numpy, session.run(names, feed)), strict=True))
        logits = [tensor for name, tensor in made.items() if not name.startswith(NEXT)]
        after = {name.removeprefix(NEXT): tensor for name, tensor in made.items() if name.startswith(NEXT)}
        return (tuple(logits) if len(logits) > 1 else logits[0]), after

    return run, session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "")


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' advice on their own innards."""
    noisy = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in noisy]
    try:
        for logger in noisy:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)
