"""The composition root: an experiment becomes objects here and nowhere else."""

import json
from pathlib import Path
from typing import Any

import lightning as L
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel

from fsdino_pl.baselines import all_baselines
from fsdino_pl.callbacks import EpisodePictures, ProgressBar
from fsdino_pl.checkpoints import AtomicCheckpointIO, RunCheckpoints
from fsdino_pl.config import Config
from fsdino_pl.data.benchmark import Benchmark
from fsdino_pl.data.data_module import EpisodeDataModule
from fsdino_pl.data.feature_cache import FeatureCache
from fsdino_pl.data.pascal5i import Pascal5i
from fsdino_pl.data.shapes import ShapesBenchmark
from fsdino_pl.data.transforms import JointTransform
from fsdino_pl.errors import UserError
from fsdino_pl.evaluator import EpisodicEvaluator
from fsdino_pl.losses import SegmentationLoss
from fsdino_pl.metrics_log import JsonLinesLogger
from fsdino_pl.segmenter import FewShotSegmenter
from fsdino_pl.student.adapter import BottleneckAdapter
from fsdino_pl.student.backbone import IMAGENET_MEAN, IMAGENET_STD, TOKEN_MODELS, Backbone
from fsdino_pl.student.correlation import CP4DReader, PeakReader
from fsdino_pl.student.mask_decoder import MaskDecoder
from fsdino_pl.student.prompt_generator import PromptGenerator
from fsdino_pl.student.student import Student

EMBEDDED_ENCODER = Path(__file__).parent / "encoders" / "shapes"
PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def build_benchmark(config: Config) -> Benchmark:
    """Return the benchmark, its files checked for being there."""
    if config.data.benchmark == "pascal5i":
        return Pascal5i(config.data.root, config.data.lists)
    return ShapesBenchmark(config.data.image_size)


def build_data(config: Config, benchmark: Benchmark) -> EpisodeDataModule:
    """Return the data module of the experiment's episodes."""
    data = config.data
    return EpisodeDataModule(
        benchmark,
        fold=data.fold,
        shot=data.shot,
        seed=data.seed,
        train_transform=JointTransform(data.image_size, flip=data.flip, scale_jitter=data.scale_jitter),
        eval_transform=JointTransform(data.image_size),
        split=data.split,
        max_steps=config.trainer.max_steps,
        batch_size=config.trainer.batch_size,
        val_episodes=config.trainer.val_episodes,
        episodes=config.evaluate.episodes,
        eval_batch_size=config.evaluate.batch_size,
        workers=data.workers,
    )


def build_backbone(config: Config) -> Backbone:
    """Load the frozen backbone. Raises UserError naming the folder or id and what to do."""
    student = config.student
    source = str(EMBEDDED_ENCODER) if student.backbone == "embedded" else student.backbone
    if not Path(source).exists() and (source.startswith((".", "/", "~")) or source.count("/") != 1):
        raise UserError(f"student.backbone={source}: no such folder, and no hub id (owner/name) either")
    try:
        model = AutoModel.from_pretrained(
            source, trust_remote_code=False, attn_implementation=_attention(source)
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"student.backbone={source} cannot be loaded: {reason}") from error
    mean, std = _normalisation(source, model.config.model_type)
    return Backbone(
        model,
        early_block=student.early_block,
        deep_blocks=student.deep_blocks,
        norm_deep=student.norm_deep,
        mean=student.image_mean or mean,
        std=student.image_std or std,
    )


def build_student(config: Config, backbone: Backbone) -> Student:
    """Return the trainable student, sized to the backbone's maps."""
    student = config.student
    backbone.check_image_size(config.data.image_size, config.data.image_size)
    early_dim, deep_dims = backbone.dims(config.data.image_size)
    mask_decoder = MaskDecoder(
        embed_dim=student.embed_dim,
        depth=student.decoder.depth,
        num_heads=student.decoder.num_heads,
        mlp_dim=student.decoder.mlp_dim,
    )
    return Student(
        adapter=BottleneckAdapter(
            early_dim,
            embed_dim=student.embed_dim,
            hidden_dim=student.adapter.hidden_dim,
            norm=student.adapter.norm,
            bottleneck_dim=student.adapter.bottleneck_dim,
            depth=student.adapter.depth,
            num_heads=student.adapter.num_heads,
        ),
        prompt_generator=PromptGenerator(
            deep_dims,
            embed_dim=student.embed_dim,
            sparse_prompt=student.sparse_prompt,
            background_token=student.background_token,
            dense_prompt=student.dense_prompt,
            prior_levels=student.prior_levels,
            reader=_build_reader(config, len(deep_dims)),
            contrast=student.contrast,
            support_stride=student.support_stride,
        ),
        mask_decoder=mask_decoder.requires_grad_(False) if student.decoder.frozen else mask_decoder,
    )


def _build_reader(config: Config, levels: int) -> CP4DReader | PeakReader | None:
    student = config.student
    if student.reader == "none":
        return None
    if student.reader == "peak":
        return PeakReader(levels)
    if len(student.reader_widths) != len(student.reader_strides):
        raise UserError("student.reader_widths and student.reader_strides must have one entry per block each")
    return CP4DReader(levels, student.reader_widths, student.reader_strides)


def build_features(config: Config) -> FeatureCache:
    """Return the frozen backbone behind its cache; folds of one experiment can share it."""
    budget = int(config.data.cache_gb * 1e9) if config.data.cache == "memory" else 0
    return FeatureCache(build_backbone(config), budget)


def build_segmenter(
    config: Config, features: FeatureCache, base_classes: tuple[int, ...]
) -> FewShotSegmenter:
    """Return the module to train; its initial weights follow from data.seed."""
    L.seed_everything(config.data.seed, verbose=False)
    return FewShotSegmenter(
        features,
        build_student(config, features.backbone),
        SegmentationLoss(config.optim.bce_weight, config.optim.dice_weight),
        base_classes=base_classes,
        lr=config.optim.lr,
        decoder_lr=config.optim.decoder_lr,
        weight_decay=config.optim.weight_decay,
        warmup_steps=config.optim.warmup_steps,
        max_steps=config.trainer.max_steps,
        seed=config.data.seed,
    )


def build_evaluator(
    config: Config, segmenter: FewShotSegmenter, data: EpisodeDataModule
) -> EpisodicEvaluator:
    """Return the evaluator of a trained segmenter and the baselines on the classes of these episodes."""
    return EpisodicEvaluator(
        segmenter,
        all_baselines(_prototype_levels(config)),
        base_classes=data.val_set.classes,
        test_classes=data.test_set.classes,
    )


def _prototype_levels(config: Config) -> tuple[int, ...]:
    """Return which of the deep levels the prototype baseline compares."""
    deep, chosen = config.student.deep_blocks, config.evaluate.prototype_blocks
    unknown = [block for block in chosen or [] if block not in deep]
    if unknown:
        raise UserError(f"evaluate.prototype_blocks: {unknown} are not among student.deep_blocks {deep}")
    return tuple(deep.index(block) for block in (chosen or deep))


def build_trainer(config: Config, folder: Path, class_names: tuple[str, ...], **how: Any) -> L.Trainer:
    """Return a Lightning trainer for this experiment, drawing pictures into `folder`."""
    trainer = config.trainer
    callbacks: list[L.Callback] = [EpisodePictures(folder / "episodes.png", class_names)]
    callbacks += how.pop("callbacks", [])
    if trainer.progress:
        callbacks.append(ProgressBar())
    return L.Trainer(
        accelerator=trainer.accelerator,
        devices=trainer.devices,
        num_nodes=trainer.nodes,
        strategy="ddp" if trainer.devices * trainer.nodes > 1 else "auto",
        precision=PRECISIONS[trainer.precision],
        callbacks=callbacks,
        enable_progress_bar=trainer.progress,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        # Cached features are trained on later, so they must not be inference tensors.
        inference_mode=False,
        num_sanity_val_steps=0,
        plugins=[AtomicCheckpointIO()],
        **{"logger": False, **how},
    )


def build_training(
    config: Config, folder: Path, class_names: tuple[str, ...]
) -> tuple[L.Trainer, RunCheckpoints]:
    """Return the trainer of a run and the callback that keeps its checkpoints."""
    checkpoints = RunCheckpoints(folder / "checkpoints", config.trainer.checkpoint_every)
    trainer = build_trainer(
        config,
        folder,
        class_names,
        callbacks=[checkpoints],
        max_steps=config.trainer.max_steps,
        max_epochs=-1,
        val_check_interval=min(config.trainer.val_every, config.trainer.max_steps),
        check_val_every_n_epoch=None,
        gradient_clip_val=config.optim.gradient_clip or None,
        log_every_n_steps=min(config.trainer.log_every, config.trainer.max_steps),
        logger=JsonLinesLogger(folder / "metrics.jsonl"),
    )
    return trainer, checkpoints


def _attention(source: str) -> str | None:
    """Return sdpa for transformers; map models have no attention to choose."""
    return "sdpa" if AutoConfig.from_pretrained(source).model_type in TOKEN_MODELS else None


def _normalisation(source: str, model_type: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return (mean, std) of the model's preprocessor file, else its family's."""
    preprocessor = Path(source) / "preprocessor_config.json"
    if preprocessor.is_file():
        settings = json.loads(preprocessor.read_text())
        if "image_mean" in settings and "image_std" in settings:
            return tuple(settings["image_mean"]), tuple(settings["image_std"])
    if model_type == "mobilenet_v2":
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    return IMAGENET_MEAN, IMAGENET_STD
