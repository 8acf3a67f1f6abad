"""A trained model on a video that has not ended yet: frames in, scores of clips out, at constant memory.

    stream = Stream("runs/demo", mode="causal")
    for frames in VideoReader("long.mp4", size=stream.short_side).stream():
        for clip in stream.push(frames):
            print(clip)

Modes, derived from the formulas of arXiv 2104.01198: `causal` clips read what came before them, `window` and `ema` the
recent past, `late_read` keeps a few numbers of each clip and judges all of them with the memory of everything: at the
end that is what the offline model says, exactly. Axes: K classes.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from wholereel.config import Clips
from wholereel.errors import CheckpointError, ConfigError
from wholereel.inference.predictor import find_package, package_views, precision_context
from wholereel.media.augment import test_crops
from wholereel.media.clip_assembly import ClipAssembler, TimedClip
from wholereel.media.frames import Frames
from wholereel.media.model_input import to_model_input
from wholereel.memory.online import Everything, Fading, OnlinePolicy, OnlineState, Window
from wholereel.memory.state import VideoState
from wholereel.models.package import Package, load_package
from wholereel.models.video_model import Summary, VideoModel
from wholereel.ops.aggregate import RULES, aggregate_scores

__all__ = ["MODES", "ClipScore", "Mode", "Stream", "causal_step"]

Mode = Literal["causal", "late_read", "window", "ema"]
MODES: tuple[Mode, ...] = ("causal", "late_read", "window", "ema")


@dataclass(frozen=True)
class ClipScore:
    """What the model says of one clip, and of the video so far.

    Args:
        number: of the clip, from 0. begin, end: seconds.
        scores_K: float32 probabilities of the clip. video_scores_K: of all clips so far.
        classes: names of the K classes.
        final: the clip's scores will not change any more; the video's never are before the stream has ended.
    """

    number: int
    begin: float
    end: float
    scores_K: Tensor
    video_scores_K: Tensor
    classes: tuple[str, ...]
    final: bool

    @property
    def label(self) -> str:
        """The clip's best class."""
        return self.classes[int(self.scores_K.argmax())]

    def to_dict(self, top: int = 5) -> dict[str, Any]:
        """Plain numbers and text, ready for JSON; the best `top` classes of the clip and of the video."""
        return {
            "clip": self.number,
            "begin": round(self.begin, 6),
            "end": round(self.end, 6),
            "top": _best(self.scores_K, self.classes, top),
            "video_top": _best(self.video_scores_K, self.classes, top),
            "final": self.final,
        }


def causal_step(
    model: VideoModel, clip_BCTHW: Tensor, states: tuple[OnlineState, ...] | None, policy: OnlinePolicy
) -> tuple[Tensor, tuple[OnlineState, ...]]:
    """Judge the next clip of each video with what its memories hold after it has pushed.

    Args:
        clip_BCTHW: normalised.
        states: one for each block, `None` for the first clip.
    Returns: logits `(B, K)` and the states for the next clip.
    Raises: ValueError: an interaction that the policy does not serve.
    """
    x_BCTHW, after = clip_BCTHW, []
    for index in range(len(model.places)):
        x_BCTHW = model.run_segment(index, x_BCTHW)
        order_B = torch.zeros(len(x_BCTHW), dtype=torch.int64, device=x_BCTHW.device)
        if states is not None:
            order_B = states[index].clips_B
        push = model.push_at(index, x_BCTHW, order_BN=order_B[:, None])
        before = policy.begin(push) if states is None else states[index]
        after.append(policy.add(before, push))
        x_BCTHW = model.infuse_at(index, x_BCTHW, policy.read(after[index]))
    return model.clip_model.forward_head(model.run_segment(len(model.places), x_BCTHW)), tuple(after)


class Stream:
    """One video, one reader of it.

    Args:
        package: folder of a model package or of a run that holds one, or a loaded package.
        mode: see above.
        clips: other clips than the package's; the plan is `contiguous` in any case.
        frame_rate, half_tick: of a file: its `metadata.frame_rate`, and half of its `metadata.time_base`, so that
            frames are found as the offline model finds them; nothing for sources without constant rate.
        window: clips that `window` remembers. decay: of `ema`.
        device: `None` = the first GPU where there is one, else the CPU.
        precision: "bf16" computes the clip model under autocast.
    Attributes:
        short_side: pixels that frames are scaled to; other sizes are scaled here.
    Raises: CheckpointError: no package. ConfigError: a mode that this model cannot serve.
    """

    def __init__(
        self,
        package: str | Path | Package,
        *,
        mode: Mode = "causal",
        clips: Clips | None = None,
        frame_rate: float | None = None,
        half_tick: float = 0.0,
        window: int = 16,
        decay: float = 0.9,
        device: torch.device | str | None = None,
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        if mode not in MODES:
            raise ConfigError(f"mode={mode!r} is unknown; modes are {', '.join(MODES)}")
        self.package = package if isinstance(package, Package) else load_package(find_package(package))
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = self.package.video_model.eval().to(self.device)
        self.mode, self.precision = mode, precision
        self._policy = self._choose_policy(window, decay)
        views = package_views(self.package, clips)
        self.short_side, self.crop = views.short_side, views.crop
        self.clips = views.clips
        self.assembler = ClipAssembler(views.clips, frame_rate=frame_rate, half_tick=half_tick)
        self._settings = {
            "mode": mode,
            "clips": dataclasses.asdict(views.clips),
            "frame_rate": frame_rate,
            "window": window,
            "decay": decay,
            "model": self.package.spec.name,
            "classes": list(self.package.classes),
        }
        self._states: tuple[OnlineState, ...] | None = None
        self._memory: VideoState | None = None  # of late_read
        self._summaries: list[tuple[Tensor, Tensor]] = []  # query and pooled features of each clip, of late_read
        self._times: list[tuple[float, float]] = []  # of late_read
        self._total_K = torch.zeros(len(self.package.classes), dtype=torch.float64)  # of the clips' logits or such
        self._count = 0

    @property
    def clips_seen(self) -> int:
        """Clips judged so far."""
        return self._count

    @property
    def frames_seen(self) -> int:
        """Frames taken so far."""
        return self.assembler.frames_seen

    @property
    def last_second(self) -> float:
        """Time of the newest frame; -inf before the first."""
        return self.assembler.last_second

    @torch.no_grad()
    def push(self, frames: Frames) -> list[ClipScore]:
        """Take the next frames, and judge the clips that they complete.

        Raises: ValueError: times that do not increase.
        """
        return [self._judge(clip) for clip in self.assembler.push(frames)]

    @torch.no_grad()
    def finish(self) -> list[ClipScore]:
        """The stream has ended: judge what is left; with `late_read`, all clips again, now `final`."""
        last = [self._judge(clip) for clip in self.assembler.finish()]
        if self.mode != "late_read" or not self._summaries:
            return last
        logits_NK = self._late_logits()
        video_K = self._aggregate(logits_NK)
        return [
            self._score(number, begin, end, logits_NK[number], video_K, final=True)
            for number, (begin, end) in enumerate(self._times)
        ]

    @torch.no_grad()
    def video_scores(self) -> Tensor:
        """Probabilities (K) of everything seen so far; NaN before the first clip.

        With `late_read` those of the offline model on the clips so far; otherwise the clips' own scores put together
        by the rule of the model's task.
        """
        if self._count == 0:
            return torch.full((len(self.package.classes),), torch.nan)
        if self.mode == "late_read":
            return self._aggregate(self._late_logits())
        rule, multi_label = RULES[self.package.task.aggregate], self.package.task.multi_label
        mean_K = (self._total_K if rule == "max" else self._total_K / self._count).float()
        return mean_K if rule == "prob" else mean_K.sigmoid() if multi_label else mean_K.softmax(-1)

    def save(self, path: str | Path) -> None:
        """Write memory, frames not yet judged and position: `load` goes on with the next frame."""
        tensors = {f"clip.{name}": tensor for name, tensor in self.assembler.state().items()}
        tensors["total"], tensors["count"] = self._total_K, torch.tensor(self._count)
        for index, state in enumerate(self._states or ()):
            tensors |= {f"state.{index}.{name}": tensor for name, tensor in state.as_dict().items()}
        if self._memory is not None:
            tensors |= {f"memory.{name}": tensor for name, tensor in self._memory.as_dict().items()}
        if self._summaries:
            tensors["query"] = torch.cat([query for query, _ in self._summaries])
            tensors["pooled"] = torch.cat([pooled for _, pooled in self._summaries])
            tensors["times"] = torch.tensor(self._times, dtype=torch.float64)
        path = Path(path)
        temporary = path.with_name(f".{path.name}.writing")
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(plain, temporary, metadata={"wholereel.stream": json.dumps(self._settings)})
        temporary.replace(path)

    def load(self, path: str | Path) -> None:
        """Go on where `save` was called, with the same model and settings.

        Raises: CheckpointError: not such a file, or of other settings.
        """
        stored, tensors = _read_state(Path(path))
        if stored != json.loads(json.dumps(self._settings)):
            raise CheckpointError(
                path,
                "is not the state of a stream" if stored is None else f"was saved by a stream of {stored}",
                f"one of {self._settings}",
                "Open the stream with the settings that it was saved with.",
            )
        tensors = {name: tensor.to(self.device) for name, tensor in tensors.items()}
        cpu = {name: tensor.cpu() for name, tensor in tensors.items()}
        self.assembler.load_state({name[5:]: tensor for name, tensor in cpu.items() if name.startswith("clip.")})
        self._total_K, self._count = cpu["total"], int(cpu["count"])
        memory = {name[7:]: tensor for name, tensor in tensors.items() if name.startswith("memory.")}
        late = self.mode == "late_read" and self._count > 0
        self._memory = VideoState.from_dict(memory) if late else None
        if late:
            self._summaries = list(zip(tensors["query"].split(1), tensors["pooled"].split(1), strict=True))
            self._times = [(begin, end) for begin, end in cpu["times"].tolist()]
        self._states = self._loaded_states(tensors) if self._count > 0 and not late else None

    def _loaded_states(self, tensors: dict[str, Tensor]) -> tuple[OnlineState, ...]:
        states = []
        for index in range(len(self.model.places)):
            prefix = f"state.{index}."
            own = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            states.append(_state_from(own, self._empty_kind(index)))
        return tuple(states)

    def _empty_kind(self, index: int) -> type[OnlineState]:
        """The class of the states at a block: follows from policy and interaction."""
        block = self.model.blocks()[index][1]
        return type(self._policy.begin(block.init_state(1, device=self.device)))

    def _choose_policy(self, window: int, decay: float) -> OnlinePolicy:
        if self.mode == "late_read" and not self.model.summarises:
            raise ConfigError(
                "mode='late_read' needs a single memory block in front of the head, read with a pooled query; "
                f"this model has {self.model.memory}. Use 'causal', or Predictor for files."
            )
        try:
            policy: OnlinePolicy = Everything()
            if self.mode in ("window", "ema"):
                policy = Window(window) if self.mode == "window" else Fading(decay)
            for _, block in self.model.blocks():
                if block.interaction.startswith("nl_"):
                    raise ValueError(f"mode={self.mode!r} needs a memory of fixed size; {block.interaction!r} has none")
                policy.begin(block.init_state(1))
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return policy

    def _judge(self, clip: TimedClip) -> ClipScore:
        pixels_1TCHW = test_crops(clip.pixels_TCHW[None], self.short_side, self.crop, 1).to(self.device)
        clip_BCTHW = to_model_input(pixels_1TCHW, mean=self.package.mean, std=self.package.std)
        with precision_context(self.precision, self.device):
            logits_K = self._late_step(clip_BCTHW) if self.mode == "late_read" else self._online_step(clip_BCTHW)
        self._count += 1
        self._times += [(clip.begin, clip.end)] if self.mode == "late_read" else []
        self._add(logits_K)
        final = self.mode != "late_read"
        return self._score(clip.number, clip.begin, clip.end, logits_K, self.video_scores(), final=final)

    def _online_step(self, clip_BCTHW: Tensor) -> Tensor:
        logits_BK, self._states = causal_step(self.model, clip_BCTHW, self._states, self._policy)
        return logits_BK[0].float().cpu()

    def _late_step(self, clip_BCTHW: Tensor) -> Tensor:
        order_B = torch.tensor([self._count], device=self.device)
        summary = self.model.encode(clip_BCTHW, order_B=order_B)
        self._memory = summary.push if self._memory is None else self._memory.merge(summary.push)
        self._summaries.append((summary.query_BP, summary.pooled_BD))
        return self.model.read(summary, self._memory)[0].float().cpu()

    def _late_logits(self) -> Tensor:
        assert self._memory is not None
        query, pooled = (torch.cat(parts) for parts in zip(*self._summaries, strict=True))
        shared = dataclasses.replace(self._memory, places=tuple(_repeated(p, len(query)) for p in self._memory.places))
        with precision_context(self.precision, self.device):
            logits_NK = self.model.read(Summary(VideoState(), query, pooled), shared)
        return logits_NK.float().cpu()

    def _add(self, logits_K: Tensor) -> None:
        rule = RULES[self.package.task.aggregate]
        values_K = self._probabilities(logits_K) if rule == "prob" else logits_K
        if rule == "max":
            self._total_K = values_K.double() if self._count == 1 else torch.maximum(self._total_K, values_K.double())
        else:
            self._total_K = self._total_K + values_K.double()

    def _aggregate(self, logits_NK: Tensor) -> Tensor:
        task = self.package.task
        valid_1N = torch.ones(1, len(logits_NK), dtype=torch.bool)
        return aggregate_scores(logits_NK[None], valid_1N, task.aggregate, multi_label=task.multi_label)[0]

    def _probabilities(self, logits_K: Tensor) -> Tensor:
        return logits_K.sigmoid() if self.package.task.multi_label else logits_K.softmax(-1)

    def _score(
        self, number: int, begin: float, end: float, logits_K: Tensor, video_K: Tensor, *, final: bool
    ) -> ClipScore:
        return ClipScore(number, begin, end, self._probabilities(logits_K), video_K, self.package.classes, final)


def _read_state(path: Path) -> tuple[Any, dict[str, Tensor]]:
    """Settings and tensors of a saved stream; no settings where the file is something else."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(path, f"cannot be read ({error})", "the state of a stream") from error
    return json.loads(metadata.get("wholereel.stream", "null")), tensors


def _repeated(state: Any, rows: int) -> Any:
    """The state of one video as that of `rows` equal ones, without copying."""
    return type(state)(**{name: tensor.expand(rows, *tensor.shape[1:]) for name, tensor in state.as_dict().items()})


def _state_from(tensors: dict[str, Tensor], kind: Any) -> OnlineState:
    state: OnlineState = kind.from_dict(tensors)
    return state


def _best(scores_K: Tensor, classes: tuple[str, ...], top: int) -> list[list[Any]]:
    order = scores_K.sort(descending=True, stable=True).indices[:top].tolist()
    return [[classes[index], round(float(scores_K[index]), 6)] for index in order]
