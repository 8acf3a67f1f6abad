"""Combinations that no golden file here has: the formulas, stated literally in float64, make files that must pass.

Literal means explicit token matrices, explicit loops over videos and clips, and autograd for gradients; nothing of the
library.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.models.test_backbones import mmaction2_slowfast
from tests.parity import rule_v1
from tests.parity.families import check_file
from wholereel.models.layouts import rename
from wholereel.models.slowfast import slowfast

B, N, D, P, V, THW, CIN, K = 2, 3, 8, 4, 5, (2, 2, 3), 3, 4
S = 12
MASK = np.array([[1, 1, 0], [0, 1, 1]])


def draw(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def weights(seed: int, shapes: dict[str, tuple[int, ...]], std: dict[str, float]) -> dict[str, Tensor]:
    rng = np.random.RandomState(seed)
    drawn = {name: (rng.standard_normal(shapes[name]) * std[name]).astype(np.float32) for name in sorted(shapes)}
    return {name: torch.from_numpy(value).double().requires_grad_() for name, value in drawn.items()}


def block(
    tokens: Tensor,
    w: dict[str, Tensor],
    valid: np.ndarray,
    c: dict[str, Any],
    detached: bool = False,
    *,
    positions: int = S,
    keys: int = P,
) -> dict[str, Tensor]:
    """All quantities for tokens (B, N, S, D); if `detached`, each clip sees the other clips' pushes as constants."""
    popped, memories, running = [], [], []
    factor = {"sum": 1.0, "mean": 1 / positions, "ref": c.get("S_ref", 0) / positions}[c["position_norm"]]
    clips = len(tokens[0])
    for b in range(len(tokens)):
        x = tokens[b]
        there = [n for n in range(clips) if valid[b, n]]
        if c["interaction"] == "assoc":
            w_v = w["w_q"] if c["value"] == "tied" else w["w_v"]
            pushes = [factor * (x[n] @ w["w_k"]).T @ (x[n] @ w_v) for n in range(clips)]
        elif c["interaction"] == "avg":
            pushes = [x[n].mean(0) @ w["w_i"] for n in range(clips)]
        elif c["interaction"] == "max":
            pushes = [(x[n] @ w["w_i"]).max(0).values for n in range(clips)]

        def memory_for(reader: int | None, among: list[int], pushes: list[Tensor]) -> Tensor:
            kept = [pushes[m].detach() if detached and m != reader else pushes[m] for m in among]
            stacked = torch.stack(kept)
            return stacked.max(0).values if c["interaction"] == "max" else stacked.mean(0)

        for n in range(clips):
            if c["interaction"].startswith("nl_"):
                others = [x[m].detach() if detached and m != n else x[m] for m in there]
                w_k, w_v = ([w[k].detach() if detached and m != n else w[k] for m in there] for k in ("w_k", "w_v"))
                all_keys = torch.cat([one @ weight for one, weight in zip(others, w_k, strict=True)])
                values = torch.cat([one @ weight for one, weight in zip(others, w_v, strict=True)])
                scores = (x[n] @ w["w_q"]) @ all_keys.T
                softmax = c["interaction"] == "nl_softmax"
                soft = torch.softmax(scores / keys**0.5, 1) if softmax else scores / len(all_keys)
                popped.append(soft @ values)
                continue
            memory = memory_for(n, there, pushes)
            popped.append(x[n] @ w["w_q"] @ memory if c["interaction"] == "assoc" else memory.expand(positions, -1))
            seen = [m for m in there if m <= n]
            running.append(memory_for(None, seen, pushes) if seen else torch.zeros_like(memory))
        if not c["interaction"].startswith("nl_"):
            memories.append(memory_for(None, there, pushes))
    out = {"M_n": torch.stack(popped).unflatten(0, (len(tokens), clips))}
    out["M_n_pooled"] = out["M_n"].mean(2)
    if memories:
        out["M"] = torch.stack(memories)
        out["M_running"] = torch.stack(running).unflatten(0, (len(tokens), clips))
    if c["infusion"] == "gate":
        out["gate"] = torch.sigmoid(out["M_n_pooled"] @ w["w_o"])
        out["tokens_hat"] = out["gate"][:, :, None] * tokens + tokens
    else:
        out["tokens_hat"] = tokens + out["M_n"] @ w["w_o"]
    return out


def shapes_of(c: dict[str, Any], value_dim: int) -> dict[str, tuple[int, ...]]:
    if c["interaction"] in ("avg", "max"):
        return {"w_i": (D, value_dim), "w_o": (value_dim, D)}
    own_values = c["value"] == "separate" or c["interaction"] != "assoc"
    value_dim = value_dim if own_values else P
    return {"w_k": (D, P), "w_q": (D, P), "w_o": (value_dim, D)} | ({"w_v": (D, value_dim)} if own_values else {})


def write(path: Path, meta: dict[str, Any], arrays: dict[str, Tensor | np.ndarray]) -> Path:
    plain = {key: value.detach().numpy() if isinstance(value, Tensor) else value for key, value in arrays.items()}
    np.savez(path, meta=np.array(json.dumps(meta)), **plain)
    return path


INTERACTIONS = ("assoc", "avg", "max", "nl_dot", "nl_softmax")
BLOCKS = list(itertools.product(INTERACTIONS, ("gate", "residual"), ("tied", "separate"), (False, True)))


def sampled(name: str, array: Tensor | np.ndarray, rng: np.random.RandomState) -> dict[str, np.ndarray]:
    """An array as big ones are stored: some of its values, and statistics of all."""
    flat = np.asarray(array.detach() if isinstance(array, Tensor) else array, dtype=np.float64).reshape(-1)
    index = np.sort(rng.choice(flat.size, min(64, flat.size), replace=False))
    stats = np.array([flat.mean(), flat.std(), np.abs(flat).max(), np.linalg.norm(flat)])
    return {f"{name}__flat_index": index, f"{name}__flat_value": flat[index], f"{name}__stats": stats}


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_a_larger_block_stored_as_samples(tmp_path: Path, interaction: str) -> None:
    """Positive inputs, one video with a single valid clip, and arrays too big to be stored whole."""
    d, thw, valid = 64, (4, 5, 5), np.array([[1, 1, 0, 1], [0, 0, 1, 0]])
    c = {"interaction": interaction, "infusion": "gate", "value": "separate", "position_norm": "mean"}
    keyed = {"w_k": (d, 16), "w_q": (d, 16), "w_v": (d, 16)}
    shapes = ({"w_i": (d, 16)} if interaction in ("avg", "max") else keyed) | {"w_o": (16, d)}
    std = {name: 0.3 if name == "w_o" else d**-0.5 for name in shapes}
    w = weights(5, shapes, std)
    x = torch.from_numpy(np.maximum(draw(6, (2, 4, d, *thw)), 0)).double().requires_grad_()
    out = block(x.flatten(3).transpose(2, 3), w, valid, c, positions=100, keys=16)
    x_hat = out.pop("tokens_hat").transpose(2, 3).reshape(x.shape)
    upstream = torch.from_numpy(draw(7, tuple(x.shape)) * valid[:, :, None, None, None, None])
    loss = (x_hat * upstream).sum()
    loss.backward()
    big = {"X_hat": x_hat, "grad_X": x.grad} | out | {f"grad_{name}": weight.grad for name, weight in w.items()}
    rng = np.random.RandomState(0)
    arrays: dict[str, Any] = {"loss": loss, "mask": valid}
    for name, array in big.items():
        arrays |= sampled(name, array, rng)
    meta = {"kind": "memory_block", "B": 2, "N": 4, "THW": thw, "d": d, "seed": 5, "std": std, "config": c}
    meta |= {"relu_input": True, "keys": {name: [shape, "float32"] for name, shape in shapes.items()}}
    line = check_file(write(tmp_path / "large.npz", meta, arrays))
    assert line.status == "pass", line.text
    assert "not compared" not in line.text
    arrays["X_hat__flat_value"] = arrays["X_hat__flat_value"] + np.eye(1, 64)[0] * 1e-4
    assert check_file(write(tmp_path / "wrong.npz", meta, arrays)).status != "pass"


@pytest.mark.parametrize(("interaction", "infusion", "value", "masked"), BLOCKS)
def test_every_block(tmp_path: Path, interaction: str, infusion: str, value: str, masked: bool) -> None:
    norms = ("sum", "mean", "ref")
    for index, (position_norm, clips) in enumerate(itertools.product(norms, (1, N))):
        if (interaction != "assoc" and position_norm != "sum") or (masked and clips == 1):
            continue
        c = {"interaction": interaction, "infusion": infusion, "value": value, "position_norm": position_norm}
        c |= {"S_ref": 20} if position_norm == "ref" else {}
        shapes = shapes_of(c, V)
        std = {name: 0.1 if name == "w_o" else D**-0.5 for name in shapes}
        seed, valid = 70 + index, MASK if masked else np.ones((B, clips), dtype=np.int64)
        w = weights(seed, shapes, std)
        x = torch.from_numpy(draw(seed + 1, (B, clips, D, *THW))).double().requires_grad_()
        out = block(x.flatten(3).transpose(2, 3), w, valid, c)
        x_hat = out.pop("tokens_hat").transpose(2, 3).reshape(x.shape)
        upstream = torch.from_numpy(draw(seed + 2, tuple(x.shape)) * valid[:, :, None, None, None, None])
        loss = (x_hat * upstream).sum()
        loss.backward()
        gradients = {f"grad_{name}": weight.grad for name, weight in w.items()}
        meta = {"kind": "memory_block", "B": B, "N": clips, "THW": THW, "d": D, "seed": seed, "std": std, "config": c}
        meta |= {"relu_input": False, "keys": {name: [shape, "float32"] for name, shape in shapes.items()}}
        arrays = (
            {"X_hat": x_hat, "loss": loss, "grad_X": x.grad} | out | gradients | ({"mask": valid} if masked else {})
        )
        line = check_file(write(tmp_path / f"{index}.npz", meta, arrays))
        assert line.status == "pass", (c, line.text)
        assert "not compared" not in line.text


def video_loss(z: Tensor, target: np.ndarray, valid: np.ndarray, name: str, share: float) -> Tensor:
    """Mean over videos; clips are left out by indexing."""
    multi = name.startswith("bce_")
    losses = []
    for b in range(len(z)):
        rows = z[b, torch.from_numpy(valid[b]).bool()]
        y = torch.tensor(target[b])

        def of_logits(logits: Tensor, y: Tensor = y) -> Tensor:
            return F.binary_cross_entropy_with_logits(logits, y.double()) if multi else F.cross_entropy(logits, y)

        clip = torch.stack([of_logits(row) for row in rows]).mean()
        if name.endswith("prob"):
            mean = (rows.sigmoid() if multi else rows.softmax(1)).mean(0)
            losses.append(F.binary_cross_entropy(mean, y.double()) if multi else -mean[y].log())
        elif name.endswith("clip"):
            losses.append(clip)
        elif name.endswith("max"):
            losses.append(of_logits(rows.max(0).values))
        else:
            logits = of_logits(rows.mean(0))
            losses.append((1 - share) * logits + share * clip if name.endswith("mix") else logits)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("multi", ["", "bce_"])
@pytest.mark.parametrize("rule", ["logits", "prob", "clip", "max", "mix"])
def test_every_video_loss(tmp_path: Path, rule: str, multi: str, masked: bool) -> None:
    c = {"interaction": "assoc", "infusion": "gate", "value": "separate", "position_norm": "mean"}
    shapes = shapes_of(c, P) | {"w_b": (CIN, D), "b_b": (D,), "w_f": (D, K), "b_f": (K,)}
    std = {name: {"w_o": 3.0, "b_b": 0.1, "b_f": 0.1}.get(name, 0.5) for name in shapes}
    seed, share, valid = 31, 0.3, MASK if masked else np.ones((B, N), dtype=np.int64)
    target = np.array([[1, 0, 0, 1], [0, 1, 1, 0]]) if multi else np.array([2, 0])
    pixels = torch.from_numpy(draw(seed + 1, (B, N, CIN, *THW))).double().flatten(3).transpose(2, 3)
    arrays: dict[str, Any] = {"target": target} | ({"mask": valid} if masked else {})
    for prefix, detached in (("grad", False), ("truncgrad", True)):
        w = weights(seed, shapes, std)
        out = block(torch.tanh(pixels @ w["w_b"] + w["b_b"]), w, valid, c, detached)
        z = out["tokens_hat"].mean(2) @ w["w_f"] + w["b_f"]
        loss = video_loss(z, target, valid, multi + rule, share)
        loss.backward()
        arrays |= {"clip_logits": z, "loss": loss, "M": out["M"], "gate": out["gate"]}
        arrays |= {f"{prefix}_{name}": weight.grad for name, weight in w.items()}
    meta = {"kind": "end_to_end", "B": B, "N": N, "THW": THW, "cin": CIN, "d": D, "dk": P, "num_classes": K}
    meta |= {"loss": multi + rule, "position_norm": "mean", "value": "separate", "seed": seed, "std": std}
    meta |= {"keys": {name: [shape, "float32"] for name, shape in shapes.items()}} | (
        {"mix": share} if rule == "mix" else {}
    )
    line = check_file(write(tmp_path / "end.npz", meta, arrays))
    assert line.status == "pass", line.text
    assert "not compared" not in line.text


ENDS = [
    *itertools.product(INTERACTIONS, ("gate", "residual"), ("separate",), ("mean",)),
    ("assoc", "gate", "tied", "sum"),
    ("assoc", "residual", "tied", "ref"),
]


@pytest.mark.parametrize(
    "valid", [np.ones((B, N), dtype=np.int64), np.array([[0, 1, 0], [1, 1, 1]])], ids=["all", "one"]
)
@pytest.mark.parametrize(("interaction", "infusion", "value", "position_norm"), ENDS)
def test_every_block_end_to_end(
    tmp_path: Path, interaction: str, infusion: str, value: str, position_norm: str, valid: Any
) -> None:
    """Exact and truncated gradients behind a backbone, of every interaction; one video has a single valid clip."""
    valid = np.array(valid)
    c = {"interaction": interaction, "infusion": infusion, "value": value, "position_norm": position_norm}
    c |= {"S_ref": 20} if position_norm == "ref" else {}
    shapes = shapes_of(c, P) | {"w_b": (CIN, D), "b_b": (D,), "w_f": (D, K), "b_f": (K,)}
    std = {name: {"w_o": 1.0, "b_b": 0.1, "b_f": 0.1}.get(name, 0.5) for name in shapes}
    seed, target = 91, np.array([2, 0])
    pixels = torch.from_numpy(draw(seed + 1, (B, N, CIN, *THW))).double().flatten(3).transpose(2, 3)
    arrays: dict[str, Any] = {"target": target, "mask": valid}
    for prefix, detached in (("grad", False), ("truncgrad", True)):
        w = weights(seed, shapes, std)
        out = block(torch.tanh(pixels @ w["w_b"] + w["b_b"]), w, valid, c, detached)
        z = out["tokens_hat"].mean(2) @ w["w_f"] + w["b_f"]
        loss = video_loss(z, target, valid, "logits", 0.0)
        loss.backward()
        arrays |= {"clip_logits": z, "loss": loss} | ({"M": out["M"]} if "M" in out else {})
        arrays |= {f"{prefix}_{name}": weight.grad for name, weight in w.items()}
    arrays["clip_logits"] = arrays["clip_logits"].detach().clone()
    meta = {"kind": "end_to_end", "B": B, "N": N, "THW": THW, "cin": CIN, "d": D, "dk": P, "num_classes": K}
    meta |= {"loss": "logits", "seed": seed, "std": std, **c}
    meta |= {"keys": {name: [shape, "float32"] for name, shape in shapes.items()}}
    line = check_file(write(tmp_path / "end.npz", meta, arrays))
    assert line.status == "pass", line.text
    assert "not compared" not in line.text


def test_slowfast_of_mmaction2(tmp_path: Path) -> None:
    """Two feature maps, of a network that is written down anew from names of tensors alone."""
    with torch.device("meta"):
        model = slowfast(26, 8, 4, 5, None, False, "mmaction2")
    (layout,) = model.layouts()
    state = {
        name.removeprefix("backbone."): torch.zeros_like(model.state_dict()[ours], device="cpu")
        for name, ours in rename(model.state_dict(), layout).items()
        if name.startswith("backbone.")
    }
    shapes = {name: [list(value.shape), str(value.dtype).removeprefix("torch.")] for name, value in state.items()}
    meta = {"rule": "v1", "std_rule": "fan_in", "seed": 31, "layout": "mmaction2-backbone", "state_dict": shapes}
    meta |= {"input_shapes": [[1, 3, 16, 32, 40]], "params": sum(p.numel() for p in model.parameters())}
    meta["params"] -= sum(parameter.numel() for parameter in model.fc.parameters())
    config = {"model": "slowfast", "depth": 26, "speed_ratio": 4, "resample_rate": 4, "channel_ratio": 8}
    meta["config"] = {**config, "bn_eps": 1e-5, "output": "[slow, fast] feature maps"}
    drawn: Any = SimpleNamespace(state_dict=lambda: state)
    rule_v1.fill_weights(drawn, meta)
    (x,) = rule_v1.inputs(meta)
    with torch.no_grad():
        slow, fast = mmaction2_slowfast({f"backbone.{name}": value for name, value in state.items()}, x, 4)
    good = check_file(write(tmp_path / "good.npz", meta, {"out0": slow, "out1": fast}))
    assert good.status == "pass", good.text
    assert "not compared" not in good.text
    meta["config"]["resample_rate"] = 8
    assert check_file(write(tmp_path / "fewer.npz", meta, {"out0": slow, "out1": fast})).status == "skip"


@pytest.mark.parametrize("displaced", ["previous", "current"])
def test_correlation_with_either_frame_displaced(tmp_path: Path, displaced: str) -> None:
    """The formula as loops over displacements, with numbers of float64."""
    n, c, frames, height, width, k, groups, gap = 1, 4, 3, 5, 6, 3, 2, 2
    rng = np.random.RandomState(3)
    x = torch.from_numpy(rng.standard_normal((n, c, frames, height, width))).requires_grad_()
    w = torch.from_numpy(rng.standard_normal((frames, c, k, k))).requires_grad_()
    gy = torch.from_numpy(rng.standard_normal((n, groups * k * k, frames, height, width)))
    before = torch.cat((x[:, :, :1], x[:, :, :-1]), 2)
    fixed, moved = (x, before) if displaced == "previous" else (before, x)
    padded = F.pad(moved, (gap, gap, gap, gap))
    maps = []
    for g in range(groups):
        own = slice(g * c // groups, (g + 1) * c // groups)
        for a, b in itertools.product(range(k), range(k)):
            seen = padded[:, own, :, a * gap : a * gap + height, b * gap : b * gap + width]
            maps.append((w[:, own, a, b].T[None, :, :, None, None] * fixed[:, own] * seen).mean(1))
    y = torch.stack(maps, 1)
    y.backward(gy)
    meta = {"N": n, "C": c, "L": frames, "H": height, "W": width, "K": k, "G": groups, "D": gap, "seed": 3}
    meta |= {"ones": False, "displaced": displaced}
    line = check_file(write(tmp_path / "op.npz", meta, {"y": y, "gx": x.grad, "gw": w.grad}))
    assert line.status == "pass", line.text
