"""Linear maps of many tokens, by the quickest of two exact ways.

`plain` is PyTorch's `F.linear`, a product of its BLAS. `onednn` is the same product by oneDNN, which PyTorch carries
for its own compiler: on processors whose BLAS does not use all they can do it is quicker by a tenth, for few channels
by half, and it applies a GELU while the numbers are in the cache (`benchmarks/memvit.py`).
"""

from __future__ import annotations

import functools
import logging
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wholereel.ops.onednn import REFUSED, onednn_serves

__all__ = ["LINEAR_ROUTES", "linear", "linear_route"]

Route = Literal["plain", "onednn"]
LINEAR_ROUTES: tuple[Route, ...] = ("plain", "onednn")
SMALL = 4_000_000  # multiply-adds below which a call costs more than it saves

log = logging.getLogger(__name__)


def linear(x_BLD: Tensor, layer: nn.Linear, *, gelu: bool = False, route: Route | None = None) -> Tensor:
    """`layer(x)`, with the exact GELU behind it where `gelu`.

    Args:
        x_BLD: any number of axes, the last one for channels.
        layer: holds the weights.
        route: of `LINEAR_ROUTES`; `None`: see `linear_route`.
    Raises: ValueError: a route that does not serve these tensors.
    """
    if route is not None and route not in LINEAR_ROUTES:
        raise ValueError(f"route must be one of {LINEAR_ROUTES}, got {route!r}")
    if route == "onednn" and not _served(x_BLD, layer):
        raise ValueError(f"{REFUSED}; got {x_BLD.dtype} on {x_BLD.device}")
    if (route or linear_route(x_BLD, layer)) == "plain":
        y_BLD = layer(x_BLD)
        return F.gelu(y_BLD) if gelu else y_BLD
    weight, bias = layer.weight, layer.bias
    learning = any(tensor is not None and tensor.requires_grad for tensor in (x_BLD, weight, bias))
    if torch.is_grad_enabled() and learning:
        y_BLD = _Linear.apply(x_BLD, weight, bias)
        return F.gelu(y_BLD) if gelu else y_BLD
    return _product(x_BLD, weight, bias, "gelu" if gelu else "none")


def linear_route(x_BLD: Tensor, layer: nn.Linear) -> Route:
    """The route for these tensors, which is logged where it is first asked for."""
    if not _served(x_BLD, layer) or x_BLD.numel() * layer.out_features < SMALL:
        return "plain"
    _say()
    return "onednn"


def _served(x_BLD: Tensor, layer: nn.Linear) -> bool:
    return bool(
        type(layer) is nn.Linear  # others (quantised, parametrised, with adapters) compute something else
        and onednn_serves(x_BLD, layer.weight)
        and _has_product()
        # Hooks want to be called.
        and not (layer._forward_hooks or layer._forward_pre_hooks)
        and not (layer._backward_hooks or layer._backward_pre_hooks)
    )


@functools.cache
def _has_product() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@functools.cache
def _say() -> None:
    log.info("linear maps in float32 on cpu: onednn")


def _product(x_BLD: Tensor, weight_KD: Tensor, bias_K: Tensor | None, after: str = "none") -> Tensor:
    y_BLD: Tensor = torch.ops.mkldnn._linear_pointwise(x_BLD.contiguous(), weight_KD, bias_K, after, [], "none")
    return y_BLD


class _Linear(torch.autograd.Function):
    """Both products of the tokens by oneDNN; that of the weights, a long sum, stays with BLAS."""

    @staticmethod
    def forward(x_BLD: Tensor, weight_KD: Tensor, bias_K: Tensor | None) -> Tensor:
        return _product(x_BLD, weight_KD, bias_K)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x_BLD, weight_KD, _ = inputs
        ctx.save_for_backward(x_BLD, weight_KD)

    @staticmethod
    def backward(ctx: Any, *errors: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (error_BLK,) = errors
        x_BLD, weight_KD = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        if torch.is_grad_enabled():  # a derivative of this one is wanted
            to_x = error_BLK @ weight_KD if of_x else None
        else:
            to_x = _product(error_BLK, weight_KD.T.contiguous(), None) if of_x else None
        error_NK = error_BLK.reshape(-1, error_BLK.shape[-1])
        to_weight = error_NK.T @ x_BLD.reshape(-1, x_BLD.shape[-1]) if of_weight else None
        return to_x, to_weight, error_NK.sum(0) if of_bias else None
