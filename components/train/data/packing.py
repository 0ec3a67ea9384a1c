"""Examples dealt to packs so that packs are full and alike: none over its budgets, all of nearly the same cost.

Examples are sorted by cost, and dealt like cards, one to each pack in a round: the largest of the round to the pack with the
most room and the least cost. What does not fit its pack tries again, largest first, in the packs with the most room left;
what fits nowhere makes the deal start over with more packs. Everything is done on arrays, a round at a time, so that a
million examples take about a second.

Worked example: lengths 5 4 3 3 2 1 and a budget of 9 need at least 18 / 9 = 2 packs. Round one deals 5 and 4, which leaves
room for 4 and 5; the largest of the next two goes where there is more: 3 to the second, 3 to the first, which leaves 1 and 2;
then 2 goes to the second and 1 to the first. Packs: 5 3 1 and 4 3 2, both full.
"""

from __future__ import annotations

import numpy as np


def deal(
    tokens: np.ndarray, media: np.ndarray, costs: np.ndarray, token_budget: int, media_budget: int
) -> tuple[np.ndarray, int]:
    """Which pack each example is in, int64 [n] below the number of packs, which comes second. No pack is empty.

    `tokens`, `media` and `costs` are int64 [n]; every example fits a pack alone.
    """
    order = np.argsort(-costs, kind="stable")
    packs = max(1, -(-int(tokens.sum()) // token_budget), -(-int(media.sum()) // media_budget))
    growth = 0.5  # of what the leftovers would fill: often they fit once there is some room
    while True:
        pack_of, left = dealt(order, tokens, media, costs, token_budget, media_budget, packs)
        if not len(left):
            return pack_of, packs
        over = max(int(tokens[left].sum()) / token_budget, int(media[left].sum()) / media_budget)
        packs = min(packs + max(1, int(growth * over)), len(tokens))
        growth = 1.0


def dealt(
    order: np.ndarray,
    tokens: np.ndarray,
    media: np.ndarray,
    costs: np.ndarray,
    token_budget: int,
    media_budget: int,
    packs: int,
) -> tuple[np.ndarray, np.ndarray]:
    """One deal to so many packs in the given order: the pack of each example, and the examples that fit nowhere."""
    pack_of = np.full(len(order), -1)
    free_tokens, free_media = np.full(packs, token_budget), np.full(packs, media_budget)
    cost, share = np.zeros(packs, np.int64), max(int(costs.sum()) / packs, 1.0)

    def round_of(examples: np.ndarray, weigh: bool = True) -> np.ndarray:
        """Deal one example to each pack, those with room and, to weigh, little cost first; gives back what does not fit."""
        room = np.minimum(free_tokens / token_budget, free_media / media_budget)  # the scarcer of the two counts
        pack = np.argsort(cost / share - room if weigh else -room, kind="stable")[: len(examples)]
        fits = (tokens[examples] <= free_tokens[pack]) & (media[examples] <= free_media[pack])
        taken, pack = examples[fits], pack[fits]
        pack_of[taken] = pack
        free_tokens[pack] -= tokens[taken]
        free_media[pack] -= media[taken]
        cost[pack] += costs[taken]
        misfits: np.ndarray = examples[~fits]
        return misfits

    misfits = [round_of(order[start : start + packs]) for start in range(0, len(order), packs)]
    left = np.concatenate(misfits)
    left = left[np.argsort(-tokens[left], kind="stable")]
    while len(left):
        again = round_of(left[:packs], weigh=False)
        if len(again) == min(len(left), packs):
            break
        left = np.concatenate([again, left[packs:]])
    return pack_of, left
