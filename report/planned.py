"""The reference runs there are to be: for each profile its methods, and the seeds of each."""

from collections.abc import Iterator

from hnetlib.experiment.config import Config, make_config, plain
from hnetlib.experiment.profiles import (
    BASELINES,
    BASELINES_OF,
    MATCHED,
    MATCHED_ALL_STEPS,
    MATCHED_SIZE,
)

THREE, ONE = (0, 1, 2), (0,)  # pairs: seed and permutation_seed are one number
CONVERGED = {"method": "separate", "steps_per_task": 2000}
ALL_STEPS = "-all-steps"  # ends the name of a matched method with those
Methods = dict[str, tuple[dict, tuple[int, ...]]]  # method: what differs, and its pairs
METHODS: Methods = {
    "hnet": ({}, THREE),
    "hnet-adam": ({"profile": plain("laptop")}, THREE),  # learns as in the paper
    "hnet-beta0": ({"beta": 0.0}, THREE),
    **{method: ({"method": method}, THREE) for method in BASELINES},
    "separate-converged": (CONVERGED, THREE),
    # plain networks with as many numbers as the hypernetwork
    **{
        f"{method}{MATCHED_SIZE}": ({"profile": "laptop-brief", "method": method} | changes, THREE)
        for method, changes in MATCHED.items()
    },
    # the two strongest of those with all the steps, an hour or more of one core each
    **{
        f"{method}{MATCHED_SIZE}{ALL_STEPS}": (
            {"method": method, "eval_every": 25}
            | MATCHED[method]
            | MATCHED_ALL_STEPS.get(method, {}),
            ONE,
        )
        for method in ("ewc-multihead", "si-multihead")
    },
}
# The hypernetwork, and plain networks of the target's size, for as few steps as those had.
BRIEF: Methods = {"hnet": ({}, THREE)} | {
    m: ({"method": m}, THREE) for m in BASELINES if m not in ("joint-hnet", "separate")
}
PUBLISHED: Methods = {m: ({"method": m}, ONE) for m in BASELINES_OF["published10"]}
# The paper's hundred tasks with all their steps: the first of them, about two hours of two cores.
PAPER: Methods = {"hnet": ({"num_tasks": 20}, ONE)}


def methods_of(profile: str) -> Methods:
    """The methods that are recorded for a profile: for most, the hypernetwork alone."""
    several = {"laptop": METHODS, "laptop-brief": BRIEF, "published10": PUBLISHED, "paper": PAPER}
    small = ("paper10", "original", "standard", "tokens-small", "tokens", "tokens-large")
    pairs = THREE if profile in small else ONE
    return several.get(profile, {"hnet": ({}, pairs)})


def planned(profile: str) -> Iterator[tuple[str, Config]]:
    """The runs of a profile on MNIST, the first pair of every method before the second of any."""
    methods = methods_of(profile)
    for pair in range(max(len(pairs) for _, pairs in methods.values())):
        for method, (changes, pairs) in methods.items():
            if pair < len(pairs):
                seed = pairs[pair]
                settings = {"seed": seed, "permutation_seed": seed, "profile": profile, **changes}
                yield method, make_config(dataset="mnist", **settings)
