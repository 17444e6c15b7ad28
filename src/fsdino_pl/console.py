"""What the terminal shows: progress, results and warnings a user can act on; nothing else."""

import logging
import warnings

import lightning.pytorch
import transformers

# Each is about a choice this project makes on purpose, or about a dependency's own use of another.
HARMLESS = (
    r".*isinstance\(treespec, LeafSpec\).*is deprecated",  # lightning 2.6 on torch 2.13
    r"Found \d+ module\(s\) in eval mode at the start of training",  # the backbone is frozen
    r"You're resuming from a checkpoint that ended before the epoch ended",  # steps, not epochs, are resumed
    r"The '\w+_dataloader' does not have many workers",  # data.workers says how many
)


def quiet_dependencies() -> None:
    """Mute the libraries' own announcements in this process."""
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger(lightning.pytorch.__name__).setLevel(logging.WARNING)
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message=message)
