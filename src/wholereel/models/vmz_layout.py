"""Names of tensors in the Caffe2 files of facebookresearch/VMZ, shared by its residual and channel-separated networks.

Blocks are counted over the whole network; the first factor of a convolution is called its middle. In networks with
plain depthwise convolutions the second and third convolutions of a block are numbers 3 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence

from wholereel.models.layouts import Layout, rename_norms, renaming

__all__ = ["vmz_caffe2"]


def vmz_caffe2(counts: Sequence[int], *, factorised_stem: bool, reduced: bool, pool1: bool) -> Layout:
    """The layout for so many blocks in each layer.

    Args:
        factorised_stem: 1 x 7 x 7, then 3 x 1 x 1. reduced: plain depthwise convolutions (ir-CSN).
        pool1: whether the networks released in such files have a pool behind the stem.
    """
    firsts = [sum(counts[:layer]) for layer in range(len(counts))]
    blocks = [
        (rf"^layer{layer}\.{number}\.", f"comp_{first + number}.")
        for layer, (first, count) in enumerate(zip(firsts, counts, strict=True), 1)
        for number in range(count)
    ]
    stem = [(r"^stem\.0\.", "conv1."), (r"^stem\.1\.", "conv1_spatbn_relu.")]
    if factorised_stem:
        stem = [
            (r"^stem\.0\.", "conv1_middle."),
            (r"^stem\.1\.", "conv1_middle_spatbn_relu."),
            (r"^stem\.3\.", "conv1."),
            (r"^stem\.4\.", "conv1_spatbn_relu."),
        ]
    names = renaming(
        *stem,
        *blocks,
        (r"^comp_(\d+)\.downsample\.0\.", r"shortcut_projection_\1."),
        (r"^comp_(\d+)\.downsample\.1\.", r"shortcut_projection_\1_spatbn."),
        *([(r"\.conv3\.", ".conv4."), (r"\.conv2\.", ".conv3.")] if reduced else []),
        (r"^(comp_\d+)\.conv(\d)\.0\.0\.", r"\1_conv_\2_middle."),
        (r"^(comp_\d+)\.conv(\d)\.0\.1\.", r"\1_spatbn_\2_middle."),
        (r"^(comp_\d+)\.conv(\d)\.0\.(?:[23]\.)?", r"\1_conv_\2."),
        (r"^(comp_\d+)\.conv(\d)\.1\.", r"\1_spatbn_\2."),
        (r"^fc\.", "last_out."),  # files add the number of classes, `weights.py` takes it off
    )
    return Layout("vmz-caffe2", lambda key: rename_norms(names(key)), {"bn_eps": 1e-3, "pool1": pool1})
