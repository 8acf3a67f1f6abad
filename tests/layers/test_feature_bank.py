"""Feature bank operators against sums that are written out, clip by clip and entry by entry."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wholereel.layers.feature_bank import FeatureBankOperator, pooled_bank

B, N, M, D, E, WIDTH = 2, 3, 5, 6, 4, 8
INSIDE = torch.tensor(
    [[[1, 1, 0, 0, 0], [0, 1, 1, 1, 0], [1, 1, 1, 1, 1]], [[0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [1, 0, 0, 0, 1]]]
).bool()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def operator(kind: str, **changed: float) -> FeatureBankOperator:
    settings = {"width": WIDTH, "layers": 2, "dropout": 0.2} | changed
    made = FeatureBankOperator(kind, D, E, **settings).double().eval()
    with torch.no_grad():
        for index, parameter in enumerate(made.parameters()):
            parameter.copy_(0.5 * drawn(*parameter.shape, seed=index))
    return made


@pytest.mark.parametrize("kind", ["avg", "max"])
def test_pooling_over_the_window(kind: str) -> None:
    entries = drawn(B, M, E)
    found = pooled_bank(entries, INSIDE, kind)
    for b in range(B):
        for n in range(N):
            chosen = [entries[b, m] for m in range(M) if INSIDE[b, n, m]]
            expected = torch.zeros(E, dtype=torch.float64)
            if chosen:
                stacked = torch.stack(chosen)
                expected = stacked.mean(0) if kind == "avg" else stacked.amax(0)
            torch.testing.assert_close(found[b, n], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layers", [2, 3])
@torch.no_grad()
def test_attention_as_written(layers: int) -> None:
    made, own, entries = operator("nl", layers=layers), drawn(B, N, D), drawn(B, M, E, seed=1)
    found = made(own, entries, INSIDE)
    for b in range(B):
        for n in range(N):
            a = made.reduce_own(own[b, n])
            for layer in made.layers:
                read = torch.zeros(WIDTH, dtype=torch.float64)
                chosen = [made.reduce_bank(entries[b, m]) for m in range(M) if INSIDE[b, n, m]]
                if chosen:
                    scores = [float(layer.theta(a) @ layer.phi(one)) / math.sqrt(WIDTH) for one in chosen]
                    total = sum(math.exp(score) for score in scores)
                    for score, one in zip(scores, chosen, strict=True):
                        read = read + math.exp(score) / total * layer.g(one)
                a = a + layer.out(torch.relu(F.layer_norm(read, (WIDTH,), layer.norm.weight, layer.norm.bias)))
            torch.testing.assert_close(found[b, n], a, rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", ["avg", "max", "nl"])
def test_what_lies_outside_has_no_part_and_the_bank_gets_no_gradient(kind: str) -> None:
    made, own, entries = operator(kind), drawn(B, N, D).requires_grad_(), drawn(B, M, E, seed=1).requires_grad_()
    found = made(own, entries, INSIDE)
    other = entries.detach().clone()
    other[0, 4] = 1e6  # clips 0 and 1 of video 0 do not read it
    changed = made(own, other, INSIDE)
    torch.testing.assert_close(changed[0, :2], found[0, :2])
    torch.testing.assert_close(changed[1], found[1])
    assert not torch.allclose(changed[0, 2], found[0, 2])
    assert found.isfinite().all()
    if kind == "nl":
        found.sum().backward()
        assert own.grad is not None
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in made.parameters())
    assert entries.grad is None


def test_a_fresh_operator_reads_its_own_features_alone() -> None:
    made = FeatureBankOperator("nl", D, E, width=WIDTH, layers=2, dropout=0.2).double().eval()
    own = drawn(B, N, D)
    torch.testing.assert_close(made(own, drawn(B, M, E, seed=1), INSIDE), made.reduce_own(own))
    made.train()
    torch.manual_seed(0)
    assert not torch.allclose(made(own, drawn(B, M, E), INSIDE), made.reduce_own(own))  # dropout of the inputs


def test_sizes_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="kind must be one of avg, max, nl; got 'mean'"):
        operator("mean")
    with pytest.raises(ValueError, match="at least 1 and dropout in"):
        operator("nl", layers=0)
    with pytest.raises(ValueError, match="entries have 3 numbers, the model reads 4"):
        operator("avg")(drawn(B, N, D), drawn(B, M, 3), INSIDE)
