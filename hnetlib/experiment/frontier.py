"""What is known of accuracy against everything stored, over 100 tasks of PermutedMNIST."""

import json

from hnetlib.experiment import paths

Points = list[tuple[float, float]]  # parameters stored, final average accuracy

# (name, where it is said, parameters stored for 100 tasks, final average accuracy)
PUBLISHED: tuple[tuple[str, str, int, float], ...] = ()


def points() -> dict[str, Points]:
    """By name: committed runs on test images, searches on validation, and what is published."""
    found: dict[str, Points] = {}
    for summary in sorted(paths.reference_dir("").glob("*/summary.json")):
        for row in json.loads(summary.read_text()):
            if row["num_tasks"] == 100 and row["method"] == "hnet":
                found[f"{row['profile']} (test)"] = [(row["stored_eval"], row["acc_mean"])]
    return found


def published() -> list[str]:
    return [name for name, *_ in PUBLISHED]
