"""Cheapest matching of objects to hypotheses where some pairs are forbidden."""

from __future__ import annotations

import numpy as np

__all__ = ["cheapest_matching"]


def cheapest_matching(cost_OH: np.ndarray) -> list[tuple[int, int]]:
    """As many allowed pairs as possible, of all such matchings the cheapest (Hungarian method, O(n^3)).

    Args:
        cost_OH: >= 0; NaN or infinity forbids a pair. O objects, H hypotheses, both small.
    Returns: pairs (object, hypothesis) in the order of objects.
    """
    objects, hypotheses = cost_OH.shape
    allowed_OH = np.isfinite(cost_OH)
    if not allowed_OH.any():
        return []
    if objects > hypotheses:
        return sorted((o, h) for h, o in cheapest_matching(cost_OH.T))
    # one forbidden pair costs more than any number of allowed ones
    forbidden = 2.0 * (min(objects, hypotheses) + 1) * (float(cost_OH[allowed_OH].max()) + 1.0)
    cost = np.where(allowed_OH, cost_OH, forbidden)
    price_O, price_H = np.zeros(objects + 1), np.zeros(hypotheses + 1)
    owner_H = np.zeros(hypotheses + 1, dtype=np.int64)  # 1-based object of each hypothesis, 0 = free
    for current in range(1, objects + 1):
        _augment(cost, current, price_O, price_H, owner_H)
    pairs = [(int(owner_H[h]) - 1, h - 1) for h in range(1, hypotheses + 1) if owner_H[h]]
    return sorted((o, h) for o, h in pairs if allowed_OH[o, h])


def _augment(cost: np.ndarray, current: int, price_O: np.ndarray, price_H: np.ndarray, owner_H: np.ndarray) -> None:
    """Find the shortest augmenting path from one more object and flip it; slot 0 is the path's open end."""
    count = len(price_H)
    owner_H[0] = current
    least_H, before_H = np.full(count, np.inf), np.zeros(count, dtype=np.int64)
    done_H = np.zeros(count, dtype=bool)
    place = 0
    while True:
        done_H[place] = True
        row = owner_H[place]
        slack_H = np.full(count, np.inf)
        slack_H[1:] = cost[row - 1] - price_O[row] - price_H[1:]
        better_H = ~done_H & (slack_H < least_H)
        least_H[better_H], before_H[better_H] = slack_H[better_H], place
        following = int(np.where(done_H, np.inf, least_H).argmin())
        step = least_H[following]
        price_O[owner_H[done_H]] += step
        price_H[done_H] -= step
        least_H[~done_H] -= step
        place = following
        if owner_H[place] == 0:
            break
    while place:
        owner_H[place] = owner_H[before_H[place]]
        place = int(before_H[place])
