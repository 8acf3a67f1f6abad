"""bounce_material: what is the ball made of? Four timbres in noise, five folds in ESC-50's layout: after av_bounce.

Pitch, loudness of the noise and the whole picture are independent of the timbre.
"""

from __future__ import annotations

import csv
import io
import wave
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from wholereel.datasets.atomic_files import write_text_file
from wholereel.datasets.worlds.av_bounce import TONE_SECONDS, bounce_meta
from wholereel.datasets.worlds.ball import BOUNCE_RATE, Ball, ball_frames, draw_ball, draw_touches
from wholereel.datasets.worlds.base import Oracle, Recording, Scene, World, generator_of
from wholereel.datasets.worlds.event_world import check_size
from wholereel.datasets.worlds.painting import draw_identity
from wholereel.datasets.worlds.sound import SAMPLE_RATE, add_tone, noise, onset

__all__ = ["TIMBRES", "BounceMaterial"]

SECONDS = 5.0
FOLDS = 5
HERTZ = (220.0, 440.0)
NOISE_DECIBEL = (-40.0, -30.0, -20.0)
LOUDNESS = 0.4
TONE_DECAY = 0.015
# Frequency as a multiple of the lowest, relative amplitude; scaled to equal energy.
TIMBRES: dict[str, tuple[tuple[float, float], ...]] = {
    "pure": ((1, 1),),
    "odd": ((1, 1), (3, 0.8), (5, 0.6)),
    "full": ((1, 1), (2, 0.8), (3, 0.7), (4, 0.6)),
    "bell": ((1, 1), (2.76, 0.9), (5.4, 0.8)),
}


@dataclass(frozen=True)
class MaterialScene(Scene):
    """A video: class index, flight, lowest frequency, loudness of the noise, and the seed of the rest."""

    label: int
    ball: Ball
    hertz: float
    decibel: float
    paint_seed: int


@dataclass(frozen=True)
class BounceMaterial(World[MaterialScene]):
    """Which timbre? The picture 1/4, the sound 1. Splits are the five folds.

    Args:
        size: side of the square canvas in pixels, even, at least 32.
    Raises: ConfigError: `size` is odd or below 32.
    """

    name: ClassVar[str] = "bounce_material"
    summary: ClassVar[str] = "which of 4 timbres a bouncing ball has; 5 folds in ESC-50's layout (after av_bounce)"
    classes: ClassVar[tuple[str, ...]] = tuple(TIMBRES)
    std_sizes: ClassVar[Mapping[str, int]] = {f"fold{fold}": 80 for fold in range(1, FOLDS + 1)}
    frame_rate: ClassVar[int] = BOUNCE_RATE
    group_frames: ClassVar[int] = BOUNCE_RATE

    size: int = 64

    def __post_init__(self) -> None:
        check_size(self.size)

    def sample(self, seed: int, split: str, index: int) -> MaterialScene:
        label = self.balanced_label(seed, split, index)
        generator = generator_of(seed, self.name, split, index)
        name, paint_seed = draw_identity(generator)
        ball = draw_ball(draw_touches(SECONDS, generator), generator)
        hertz, decibel = float(generator.uniform(*HERTZ)), float(generator.choice(NOISE_DECIBEL))
        return MaterialScene(name, split, index, label, ball, hertz, decibel, paint_seed)

    def record(self, scene: MaterialScene) -> Recording:
        frames_THWC = ball_frames(scene.ball, scene.paint_seed, seconds=SECONDS, size=self.size)
        return Recording(frames_THWC, self.wave(scene)[None].astype(np.float32), SAMPLE_RATE)

    def wave(self, scene: MaterialScene) -> np.ndarray:
        """The sound. Returns: wave_S, float64."""
        wave_S = noise(scene.paint_seed, SECONDS, decibel=scene.decibel)
        timbre = TIMBRES[self.classes[scene.label]]
        scale = LOUDNESS / sum(amplitude**2 for _, amplitude in timbre) ** 0.5
        partials = [(multiple * scene.hertz, scale * amplitude) for multiple, amplitude in timbre]
        for touch in scene.ball.inside(SECONDS):
            add_tone(wave_S, onset(touch), partials, seconds=TONE_SECONDS, decay=TONE_DECAY)
        return wave_S

    def truth(self, scene: MaterialScene) -> dict[str, Any]:
        sound = {"hertz": scene.hertz, "noise_decibel": scene.decibel}
        return {"label": self.classes[scene.label], "meta": sound | bounce_meta(scene.ball, SECONDS)}

    def right(self, scene: MaterialScene, prediction: Any) -> float:
        return float(prediction == scene.label)

    def ceilings(self) -> dict[str, float]:
        return {"picture": 1 / len(TIMBRES), "sound": 1.0}

    def oracles(self) -> dict[str, Oracle]:
        return {
            "picture": lambda scene, generator: int(generator.integers(len(TIMBRES))),
            "sound": lambda scene, generator: scene.label,
        }

    def export(self, folder: Path, scenes: Iterable[MaterialScene]) -> None:
        """ESC-50's layout: `audio/FOLD-ID-TAKE-TARGET.wav` (16 bit, 16 kHz) and `meta/esc50.csv`."""
        audio, meta = folder / "official" / "audio", folder / "official" / "meta"
        audio.mkdir(parents=True, exist_ok=True)
        meta.mkdir(parents=True, exist_ok=True)
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(("filename", "fold", "target", "category", "esc10", "src_file", "take"))
        for number, scene in enumerate(scenes):
            fold, source = int(scene.split.removeprefix("fold")), 100_000 + number
            filename = f"{fold}-{source}-A-{scene.label}.wav"
            writer.writerow((filename, fold, scene.label, self.classes[scene.label], "False", source, "A"))
            pcm_CS = Recording(np.empty(0), self.wave(scene)[None].astype(np.float32)).pcm_CS
            assert pcm_CS is not None
            _write_wav(audio / filename, pcm_CS[0].astype("<i2"))
        write_text_file(meta / "esc50.csv", table.getvalue())


def _write_wav(path: Path, pcm_S: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(pcm_S.tobytes())
