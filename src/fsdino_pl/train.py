"""`fsdino train`: train on base classes, then evaluate the chosen checkpoint on `data.split`."""

from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from fsdino_pl.build import build_benchmark, build_data, build_features, build_segmenter, build_training
from fsdino_pl.checkpoints import newest_good
from fsdino_pl.config import Config
from fsdino_pl.data.feature_cache import FeatureCache
from fsdino_pl.evaluate import Summary, evaluate_best
from fsdino_pl.files import write_text
from fsdino_pl.metrics_log import cut_metrics_after
from fsdino_pl.run_folder import check_same_experiment, choose_run_folder, prepare_run_folder


def train(config: Config, features: FeatureCache | None = None) -> Summary:
    """Run one experiment in its run folder and return the summary that is written there.

    `features` is a backbone that another run of the same experiment has loaded and, perhaps, cached with.

    Raises:
        UserError: before the first step, for anything in the data or the experiment that cannot work.
    """
    benchmark = build_benchmark(config)
    data = build_data(config, benchmark)
    data.setup("fit")
    segmenter = build_segmenter(config, features or build_features(config), data.val_set.classes)
    folder = choose_run_folder(config)
    check_same_experiment(folder, config)
    resume_from = newest_good(folder / "checkpoints") if config.resume == "auto" else None
    _open_run(folder, config, resume_from)

    trainer, checkpoints = build_training(config, folder, benchmark.class_names)
    trainer.fit(segmenter, datamodule=data, ckpt_path=resume_from)
    return evaluate_best(
        config,
        segmenter,
        build_data(config, benchmark),
        run=folder,
        output=folder,
        seconds_train=checkpoints.seconds,
        steps=trainer.global_step,
    )


@rank_zero_only
def _open_run(folder: Path, config: Config, resume_from: Path | None) -> None:
    prepare_run_folder(folder, config)
    step = int(resume_from.stem.removeprefix("step=")) if resume_from else 0
    if resume_from:
        print(f"resuming {folder} at step {step}")
    else:
        write_text(folder / "metrics.jsonl", "")
    cut_metrics_after(folder / "metrics.jsonl", step)
