"""The closed forms: against brute force, and against oracles that predict from true events."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import product

import numpy as np
import pytest

from wholereel.datasets.worlds import WORLDS, get_world, oracle_scores
from wholereel.datasets.worlds.event_world import EventWorld
from wholereel.datasets.worlds.match8 import best_randomised_sum, best_sum
from wholereel.errors import ConfigError

GLYPH_WORLDS = [name for name, world in WORLDS.items() if issubclass(world, EventWorld)]
SAMPLES = 1200


@pytest.mark.parametrize("name", GLYPH_WORLDS)
def test_oracles_reach_the_ceilings(name):
    world = get_world(name)
    assert world.oracles().keys() == world.ceilings().keys()
    measured = oracle_scores(world, samples=SAMPLES, seed=1)
    for level, ceiling in world.ceilings().items():
        assert measured[level].error == pytest.approx((ceiling * (1 - ceiling) / SAMPLES) ** 0.5)
        assert abs(measured[level].value - ceiling) <= 4 * measured[level].error, level


def test_best_sum_is_nine_fourteenths():
    assert best_sum(8) == Fraction(9, 14)
    assert best_sum(4) == Fraction(2, 3)
    assert get_world("match8").ceilings()["sum"] == pytest.approx(0.642857, abs=1e-6)


def test_best_sum_by_brute_force():
    """All score functions of eight kinds with values 0..2, all thresholds."""
    scores_US = np.array(list(product(range(3), repeat=8)))
    match_UK = 2 * scores_US
    differ_UP = np.stack([scores_US[:, a] + scores_US[:, b] for a in range(8) for b in range(8) if a != b], axis=1)
    best = max(
        ((match_UK > t).mean(axis=1) / 2 + (differ_UP <= t).mean(axis=1) / 2).max() for t in np.arange(-0.5, 4.6, 1.0)
    )
    assert best == pytest.approx(9 / 14)


def accuracy_of_score_laws(laws_KV):
    """Accuracy on match8 when a clip of kind k scores -n..n by row k's probabilities and "match" means sum >= 0."""
    kinds, values = laws_KV.shape
    score_V = np.arange(values) - values // 2
    says_match = (score_V[:, None] + score_V[None, :] >= 0).astype(float)
    rate_KK = laws_KV @ says_match @ laws_KV.T
    match = np.trace(rate_KK) / kinds
    differ = (rate_KK.sum() - np.trace(rate_KK)) / (kinds * (kinds - 1))
    return (match + 1 - differ) / 2


def test_randomised_sum_is_attained_and_not_exceeded():
    laws_KV = np.zeros((8, 17))
    for kind in range(8):
        laws_KV[kind, 8 + (8 - kind)] += kind / 7
        laws_KV[kind, 8 - (8 - kind)] += 1 - kind / 7
    best = float(best_randomised_sum(8))
    assert best == pytest.approx(19 / 28)
    assert accuracy_of_score_laws(laws_KV) == pytest.approx(best)
    generator = np.random.default_rng(0)
    for concentration in (0.02, 0.1, 1.0):
        near = [0.7 * laws_KV + 0.3 * generator.dirichlet(np.full(17, concentration), size=8) for _ in range(100)]
        far = [generator.dirichlet(np.full(17, concentration), size=8) for _ in range(100)]
        assert max(map(accuracy_of_score_laws, near + far)) <= best + 1e-12


@pytest.mark.parametrize(("kinds", "steps"), [(2, 12), (3, 6), (4, 3)])
def test_no_order_of_strengths_exceeds_the_randomised_sum(kinds, steps):
    """The bound of docs/worlds/match8.md: the largest path sum over *all* ways to hand out strengths step by step."""

    def gain(share, others):
        """Integral of |F_a - mean F| while F_a grows by one step from `share`, the others' sum being `others`."""
        slope, begin = (kinds - 1) / kinds, share - (share + others) / kinds
        end = begin + slope / steps
        return (end * abs(end) - begin * abs(begin)) / (2 * slope)

    @cache
    def best_from(done):
        options = [
            gain(n / steps, (sum(done) - n) / steps) + best_from(tuple(sorted((*done[:i], n + 1, *done[i + 1 :]))))
            for i, n in enumerate(done)
            if n < steps
        ]
        return max(options, default=0.0)

    accuracy = 0.5 + 0.5 * best_from((0,) * kinds) / kinds * kinds / (kinds - 1)
    assert accuracy == pytest.approx(float(best_randomised_sum(kinds)))


def test_one_clip_of_pair6():
    assert get_world("pair6").ceilings()["clip"] == pytest.approx(5 / 24)


def test_unknown_level_and_world_are_refused():
    with pytest.raises(ConfigError, match="no oracle 'order_free'; choose one of clip, sum, video, sum_any"):
        get_world("match8").oracle("order_free")
    with pytest.raises(ConfigError, match=r"no world 'match9'\. Did you mean 'match8'\? There are: events8, match8"):
        get_world("match9")
