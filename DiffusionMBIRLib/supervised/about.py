"""What the supervised baselines are called and serve, and what is smaller than published.  Needs no torch."""

from __future__ import annotations

from pathlib import Path

from ..tasks import CT_TASKS, LIMITED_ANGLE, MR_TASK, SPARSE_VIEW, task_info

TASKS_OF = {
    "fbpconvnet": (SPARSE_VIEW,),
    "lahiri": CT_TASKS,
    "zhang": (LIMITED_ANGLE,),
    "unet": (MR_TASK,),
    "dudornet": (MR_TASK,),
}
TITLES = {
    "fbpconvnet": "FBPConvNet",
    "lahiri": "Lahiri et al.",
    "zhang": "Zhang et al.",
    "unet": "U-Net",
    "dudornet": "DuDoRNet",
}
# What a card and a table must say of each.
DEPARTURES = {
    "fbpconvnet": (
        "A small re-implementation of FBPConvNet (Jin et al. 2017): four levels of 32 to 96 channels on 2 x 2 blocks "
        "of pixels, normalised over channels instead of batches, and one network for 2 to 36 views."
    ),
    "lahiri": (
        "A small re-implementation of Lahiri et al. (2023): two stages, single slices instead of subvolumes, squared "
        "error without the adversarial term, parallel beams, and one network for all scans of its task."
    ),
    "zhang": (
        "A small re-implementation of Zhang et al. (2016): a plain network of six layers of 64 channels on 2 x 2 "
        "blocks of pixels, and one network for ranges of 60 to 130 degrees."
    ),
    "unet": (
        "A small re-implementation of the U-Net of Zbontar et al. (2018): four levels of 32 to 96 channels on 2 x 2 "
        "blocks of pixels, complex zero-filled images, one coil or several combined by their maps, and one network for "
        "accelerations of 2 to 6."
    ),
    "dudornet": (
        "A small re-implementation of DuDoRNet (Zhou and Zhou 2020): five recurrent blocks with shared weights, "
        "networks on 2 x 2 blocks of pixels, no reference image of another contrast, several coils combined by their "
        "maps, and one network for accelerations of 2 to 6."
    ),
}


def network_name(method: str, task: str) -> str:
    """The id of a method's network for a task, by default, and the name of its file without suffix."""
    return f"{method}-{task_info(task).preset}"


def networks_folder() -> Path:
    """Where the networks of the benchmark's table lie in a checkout; an installed package does not hold them."""
    return Path(__file__).resolve().parents[2] / "Testing" / "benchmarks" / "supervised"
