"""Families `memory_block` and `end_to_end`: float64 brute force of the formulas against the library's modules.

Both are run in float64 (tolerance 1e-12) and float32 (2e-6), relative to an array's largest absolute value.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tests.parity.golden import Comparison, Golden, NotUnderstood, Outcome, check_fields, compare
from wholereel import config
from wholereel.memory.collaborative import INFUSIONS, INTERACTIONS, CollaborativeMemory
from wholereel.memory.functions import gate
from wholereel.memory.state import CollaborativeState, MaxState, PlaceState, VideoState
from wholereel.models.clip_model import ClipModel, ModelInfo
from wholereel.models.video_model import VideoModel
from wholereel.tasks.losses import video_losses

__all__ = ["check_end_to_end", "check_memory_block"]

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6}
LABEL = {torch.float64: "float64 ", torch.float32: "float32 "}
SAMPLES = ("__flat_index", "__flat_value", "__stats")
PROSE = {
    "arithmetic",
    "grad",
    "grad_rule",
    "input_rule",
    "weights_rule",
    "network",
    "torch",
    "numpy",
    "note",
    "dk",
    "dv",
}
COMMON = PROSE | {"kind", "B", "N", "THW", "d", "keys", "std", "seed", "config"}
BLOCK_FIELDS = COMMON | {"relu_input"}
END_FIELDS = COMMON | {"cin", "num_classes", "loss", "position_norm", "value", "interaction", "infusion", "S_ref"}
END_FIELDS |= {"mix", "alpha", "a", "relu_input"}
CONFIG_FIELDS = {"interaction", "infusion", "position_norm", "value", "S_ref", "ref_positions"}
MIX_FIELDS = ("mix", "alpha", "a")


def check_memory_block(golden: Golden) -> Outcome:
    """One block on random features: memory, pops, gates, outputs, gradients, prefix means."""
    check_fields(golden.meta, BLOCK_FIELDS, "meta")
    settings = _settings(golden)
    comparisons: list[Comparison] = []
    used: set[str] = set()
    for dtype in TOLERANCE:
        block_comparisons, used = _check_block(golden, settings, dtype)
        comparisons += block_comparisons
    return Outcome(tuple(comparisons), _left(golden, used))


def check_end_to_end(golden: Golden) -> Outcome:
    """Token-wise backbone, block in front of the head, video loss: logits, exact and truncated gradients."""
    check_fields(golden.meta, END_FIELDS, "meta")
    settings = _settings(golden)
    comparisons: list[Comparison] = []
    used: set[str] = set()
    for dtype in TOLERANCE:
        end_comparisons, used = _check_end(golden, settings, dtype)
        comparisons += end_comparisons
    return Outcome(tuple(comparisons), _left(golden, used))


def _settings(golden: Golden) -> dict[str, Any]:
    given = dict(golden.meta.get("config", {}))
    given |= {name: golden.meta[name] for name in CONFIG_FIELDS if name in golden.meta}
    check_fields(given, CONFIG_FIELDS, "config")
    settings = {
        "interaction": given.get("interaction", "assoc"),
        "infusion": given.get("infusion", "gate"),
        "position_norm": given.get("position_norm", "sum"),
        "value": given.get("value", "tied"),
        "ref_positions": given.get("S_ref", given.get("ref_positions")),
    }
    legal = {
        "interaction": tuple(INTERACTIONS),
        "infusion": INFUSIONS,
        "position_norm": ("sum", "mean", "ref"),
        "value": ("tied", "separate"),
    }
    for name, values in legal.items():
        if settings[name] not in values:
            raise NotUnderstood(f"no builder for {name} {settings[name]!r}")
    return settings


def _block(golden: Golden, settings: dict[str, Any], dtype: torch.dtype) -> CollaborativeMemory:
    shapes = {name: shape for name, (shape, _) in golden.meta["keys"].items()}
    first = shapes["w_k"] if "w_k" in shapes else shapes["w_i"]
    mem_dim, value_dim = first[1], shapes["w_o"][0]
    block = CollaborativeMemory(int(golden.meta["d"]), mem_dim, value_dim, **settings).to(dtype)
    weights = _weights(golden)
    own = {name.removesuffix(".weight") for name, _ in block.named_parameters()}
    if own != {name for name in weights if name in ("w_k", "w_q", "w_v", "w_i", "w_o")}:
        raise NotUnderstood(f"no builder for a block of {sorted(weights)} with {settings}")
    with torch.no_grad():
        for name in own:
            getattr(block, name).weight.copy_(weights[name].T)
    return block


def _weights(golden: Golden) -> dict[str, Tensor]:
    rng = np.random.RandomState(golden.meta["seed"])
    weights = {}
    for name in sorted(golden.meta["keys"]):
        drawn = rng.standard_normal(tuple(golden.meta["keys"][name][0])) * golden.meta["std"][name]
        weights[name] = torch.from_numpy(drawn.astype(np.float32))
    return weights


def _normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.RandomState(seed)
    return rng.standard_normal(shape).astype(np.float32)


def _sizes(golden: Golden, channels: str) -> tuple[int, ...]:
    meta = golden.meta
    return (meta["B"], meta["N"], meta[channels], *meta["THW"])


def _mask(golden: Golden) -> Tensor | None:
    return torch.from_numpy(golden.arrays["mask"]).bool() if "mask" in golden.arrays else None


def _check_block(golden: Golden, settings: dict[str, Any], dtype: torch.dtype) -> tuple[list[Comparison], set[str]]:
    tolerance, label = TOLERANCE[dtype], LABEL[dtype]
    block, shape = _block(golden, settings, dtype), _sizes(golden, "d")
    drawn = _normal(golden.meta["seed"] + 1, shape)
    x_BNCTHW = torch.from_numpy(np.maximum(drawn, 0) if golden.meta.get("relu_input", False) else drawn)
    comparisons, used = _check_inputs(golden, x_BNCTHW, label)
    x_BNCTHW = x_BNCTHW.to(dtype).requires_grad_()
    valid_BN = _mask(golden)
    x_hat, state = block(x_BNCTHW, valid_BN)
    popped, pooled_BNV = block.pop(state, x_BNCTHW), block.pop_pooled(state, x_BNCTHW)
    weights = torch.from_numpy(_normal(golden.meta["seed"] + 2, shape)).to(dtype)
    if valid_BN is not None:
        weights = weights * valid_BN[:, :, None, None, None, None]
    terms = x_hat.double() * weights.double()
    loss = terms.sum()
    loss.backward()
    ours: dict[str, Tensor | None] = {
        "M": _memory(state),
        "M_running": _running(block, x_BNCTHW, valid_BN) if golden.has("M_running") else None,
        "M_n": popped,
        "M_n_pooled": pooled_BNV,
        "gate": gate(pooled_BNV, block.w_o.weight) if block.infusion == "gate" else None,
        "X_hat": x_hat,
        "loss": loss,
        "grad_X": x_BNCTHW.grad,
    }
    ours |= {f"grad_{name}": grad for name, grad in _gradients(block).items()}
    # Pooled features of the block in front of a head (identities 1 and 2) are held to the same numbers.
    late_BND = block(x_BNCTHW.detach(), valid_BN, pooled=True)[0]
    error = float((late_BND.detach() - x_hat.detach().flatten(3).mean(3)).abs().max() / x_hat.detach().abs().max())
    comparisons.append(Comparison(f"{label}Pool(X_hat) without X_hat", error, tolerance))
    comparisons += _compare_all(
        golden, {name: value for name, value in ours.items() if name != "loss"}, tolerance, label
    )
    if golden.has("loss"):
        # A sum of terms of both signs: in float32 its error is that of the terms, however small the sum happens to be.
        floor = 0.0 if dtype == torch.float64 else float(terms.detach().norm())
        comparisons.append(compare(golden, "loss", loss, tolerance, label, floor=floor))
    return comparisons, used | set(ours)


def _check_inputs(golden: Golden, x_BNCTHW: Tensor, label: str) -> tuple[list[Comparison], set[str]]:
    """Some files hold what the rule draws, so that a fault in the drawing shows as one."""
    ours = {f"weight_{name}": weight for name, weight in _weights(golden).items()} | {"input_X": x_BNCTHW}
    present = {name: tensor for name, tensor in ours.items() if golden.has(name)}
    return [compare(golden, name, tensor, 0.0, label) for name, tensor in present.items()], set(present) | {"mask"}


def _memory(state: PlaceState) -> Tensor | None:
    if isinstance(state, CollaborativeState):
        return state.mean()
    return state.read() if isinstance(state, MaxState) else None


def _running(block: CollaborativeMemory, x_BNCTHW: Tensor, valid_BN: Tensor | None) -> Tensor | None:
    state = block.init_state(x_BNCTHW.shape[0]) if not block.interaction.startswith("nl_") else None
    if state is None:
        return None
    memories = []
    for n in range(x_BNCTHW.shape[1]):
        valid = None if valid_BN is None else valid_BN[:, n : n + 1]
        state = state.merge(block.push(x_BNCTHW[:, n : n + 1], valid))
        memories.append(_memory(state))
    return torch.stack(memories, 1)


def _gradients(block: nn.Module) -> dict[str, Tensor | None]:
    return {
        name.removesuffix(".weight"): None if parameter.grad is None else parameter.grad.T.clone()
        for name, parameter in block.named_parameters()
    }


def _compare_all(golden: Golden, ours: dict[str, Tensor | None], tolerance: float, label: str) -> list[Comparison]:
    return [compare(golden, name, tensor, tolerance, label) for name, tensor in ours.items() if golden.has(name)]


def _left(golden: Golden, used: set[str]) -> tuple[str, ...]:
    names = set()
    for name in golden.arrays:
        for suffix in SAMPLES:
            name = name.removesuffix(suffix)
        names.add(name)
    return tuple(sorted(names - used))


class TokenBackbone(nn.Module):
    """tanh(V w_b + b_b) at every position."""

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, dim)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return torch.tanh(self.linear(x_BCTHW.movedim(1, -1))).movedim(-1, 1)


class TokenModel(ClipModel):
    """The clip model of the `end_to_end` files."""

    stage_names: ClassVar[tuple[str, ...]] = ("tokens",)

    def __init__(self, in_channels: int, dim: int, num_classes: int) -> None:
        super().__init__()
        self.info = ModelInfo(mean=(0.0,), std=(1.0,), crop=1, frames=1, stride=1, frame_rate=1.0)
        self.num_features = dim
        self.feature_info = [{"name": "tokens", "channels": dim, "reduction": (1, 1, 1)}]
        self.tokens = TokenBackbone(in_channels, dim)
        self.reset_classifier(num_classes)


def _video_model(golden: Golden, settings: dict[str, Any], dtype: torch.dtype) -> VideoModel:
    meta = golden.meta
    block = _block(golden, settings, dtype)
    memory = config.Memory(
        interaction=settings["interaction"],
        infusion=settings["infusion"],
        value=settings["value"],
        position_norm=settings["position_norm"],
        dim=block.mem_dim,
        value_dim=block.value_dim,
        ref_positions=settings["ref_positions"],
    )
    model = VideoModel(TokenModel(meta["cin"], meta["d"], meta["num_classes"]), memory).to(dtype)
    model.memories["last"] = block
    weights = _weights(golden)
    with torch.no_grad():
        for linear, letter in ((model.clip_model.tokens.linear, "b"), (model.clip_model.fc, "f")):
            linear.weight.copy_(weights[f"w_{letter}"].T)
            linear.bias.copy_(weights[f"b_{letter}"])
    return model


def _loss(golden: Golden, clip_logits_BNK: Tensor, valid_BN: Tensor | None) -> Tensor:
    name = golden.meta["loss"]
    target = torch.from_numpy(golden.arrays["target"])
    multi_label = name.startswith("bce_") or target.ndim == 2
    aggregate = name.removeprefix("bce_").removeprefix("ce_")
    if aggregate not in ("logits", "prob", "max", "clip", "mix"):
        raise NotUnderstood(f"no builder for the loss {name!r}")
    given = [golden.meta[field] for field in MIX_FIELDS if field in golden.meta]
    if aggregate == "mix" and len(given) != 1:
        raise NotUnderstood("the loss 'mix' without its share")
    if valid_BN is None:
        valid_BN = torch.ones(clip_logits_BNK.shape[:2], dtype=torch.bool)
    losses = video_losses(
        clip_logits_BNK, target, valid_BN, aggregate=aggregate, mix=given[0] if given else 0.5, multi_label=multi_label
    )
    return losses.total()


def _end_gradients(model: VideoModel) -> dict[str, Tensor | None]:
    clip = model.clip_model
    named = {
        "w_b": clip.tokens.linear.weight,
        "b_b": clip.tokens.linear.bias,
        "w_f": clip.fc.weight,
        "b_f": clip.fc.bias,
    }
    gradients = {
        name: None if parameter.grad is None else parameter.grad.t().clone() for name, parameter in named.items()
    }
    return gradients | _gradients(model.memories["last"])


def _check_end(golden: Golden, settings: dict[str, Any], dtype: torch.dtype) -> tuple[list[Comparison], set[str]]:
    model = _video_model(golden, settings, dtype)
    drawn = _normal(golden.meta["seed"] + 1, _sizes(golden, "cin"))
    clips_BNCTHW = torch.from_numpy(np.maximum(drawn, 0) if golden.meta.get("relu_input", False) else drawn).to(dtype)
    valid_BN = _mask(golden)
    logits_BNK, state = model(clips_BNCTHW, None, valid_BN)
    loss = _loss(golden, logits_BNK, valid_BN)
    loss.backward()
    block = model.memories["last"]
    features_BNCTHW = model.run_segment(0, clips_BNCTHW.flatten(0, 1)).unflatten(0, logits_BNK.shape[:2])
    ours: dict[str, Tensor | None] = {
        "clip_logits": logits_BNK,
        "loss": loss,
        "M": _memory(state.places[0]),
        "gate": gate(block.pop_pooled(state.places[0], features_BNCTHW), block.w_o.weight),
    }
    ours |= {f"grad_{name}": grad for name, grad in _end_gradients(model).items()}
    ours |= {f"truncgrad_{name}": grad for name, grad in _truncated(golden, model, clips_BNCTHW, valid_BN).items()}
    return _compare_all(golden, ours, TOLERANCE[dtype], LABEL[dtype]), set(ours) | {"target", "mask"}


def _truncated(
    golden: Golden, model: VideoModel, clips_BNCTHW: Tensor, valid_BN: Tensor | None
) -> dict[str, Tensor | None]:
    """Each clip reads its own push with graph and those of all others as constants (multi-iteration, `accumulate`)."""
    model.zero_grad()
    pushes = model.contributions(clips_BNCTHW, valid_BN)
    logits = []
    batch, clips, *clip_shape = clips_BNCTHW.shape
    for n, clip_BCTHW in enumerate(clips_BNCTHW.unbind(1)):
        state: VideoState = model.init_state(batch, clip_shape=tuple(clip_shape), clips=clips)
        for m, push in enumerate(pushes):
            state = state if m == n else state.merge(push)
        valid = None if valid_BN is None else valid_BN[:, n : n + 1]
        logits.append(model(clip_BCTHW[:, None], state, valid)[0][:, 0])
    _loss(golden, torch.stack(logits, 1), valid_BN).backward()
    return _end_gradients(model)
