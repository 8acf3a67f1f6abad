"""Published ways to look at a video in testing, by name.

Source: configurations of facebookresearch/SlowFast (and MViT, MeMViT in its style): how many temporal views under which
rule, how many crops, of which size, and what becomes of the views' scores. What a clip is (frames, stride, frame rate)
belongs to the model and stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from wholereel.config import Views
from wholereel.errors import ConfigError, closest

__all__ = ["PROTOCOLS", "TestProtocol", "published_views"]


@dataclass(frozen=True)
class TestProtocol:
    """A way of looking.

    Args:
        rule: where temporal views start, see `media.clip_plans.view_starts`; "segments": one clip of the whole video.
        clips, crops: temporal views, spatial views of each.
        size: side of the square crops and of the frames' short side: "short_side", the model's short side, as
            convolutional networks are tested (256 after training on 224), or "crop", its training crop.
        combine: softmax outputs are averaged (their sum ranks the same) or the largest sigmoid outputs taken.
        used_for: where these settings are published.
    """

    __test__ = False  # the name begins like a test's

    rule: Literal["classic", "offset", "segments"]
    clips: int
    crops: Literal[1, 3]
    size: Literal["short_side", "crop"]
    combine: Literal["softmax_mean", "sigmoid_max"]
    used_for: str


PROTOCOLS: dict[str, TestProtocol] = {
    "kinetics_10x3": TestProtocol("classic", 10, 3, "short_side", "softmax_mean", "SlowFast and X3D on Kinetics"),
    "kinetics_5x1": TestProtocol("offset", 5, 1, "crop", "softmax_mean", "MViT on Kinetics"),
    "kinetics_5x3": TestProtocol("offset", 5, 3, "crop", "softmax_mean", "large MViTv2 on Kinetics"),
    "something_1x3": TestProtocol("segments", 1, 3, "crop", "softmax_mean", "MViT on Something-Something"),
    "charades_10x3": TestProtocol("classic", 10, 3, "short_side", "sigmoid_max", "SlowFast on Charades"),
    "charades_10x3_offset": TestProtocol("offset", 10, 3, "crop", "sigmoid_max", "MViT on Charades"),
}


def published_views(name: str, views: Views, *, multi_label: bool) -> Views:
    """The protocol's views for a model.

    Args:
        name: key of `PROTOCOLS`.
        views: the model's own: its clips' frames, stride and rate, its short side and crop.
        multi_label: whether the model gives any number of labels.
    Raises: ConfigError: an unknown name, or a protocol for the other kind of labels.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"no protocol {name!r}.{closest(name, PROTOCOLS)} There are: {', '.join(PROTOCOLS)}.")
    chosen = PROTOCOLS[name]
    if (chosen.combine == "sigmoid_max") != multi_label:
        kinds = {True: "any number of labels", False: "one label"}
        raise ConfigError(
            f"protocol {name!r} is for {kinds[not multi_label]} a video; this model gives {kinds[multi_label]}"
        )
    side = views.short_side if chosen.size == "short_side" else views.crop
    clips = replace(views.clips, plan=chosen.rule, count=chosen.clips, coverage=False)
    return replace(views, clips=clips, short_side=side, crop=side, crops=chosen.crops, combine=chosen.combine)
