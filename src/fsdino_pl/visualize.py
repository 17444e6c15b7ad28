"""Pictures of episodes: support with mask, query, truth, predictions, side by side."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fsdino_pl.episode import EpisodeBatch
from fsdino_pl.files import write_atomically

CELL = 160  # pixels per panel
GAP, TITLE, CAPTION = 6, 22, 18
ROW = TITLE + CAPTION + CELL + 2 * GAP
TRUTH, PREDICTION = (0, 158, 115), (230, 97, 0)  # green and orange, told apart by colour-blind eyes too
MAX_SUPPORTS = 3


class EpisodePicture(NamedTuple):
    """What one row of the sheet shows."""

    title: str
    supports: list[UInt8[np.ndarray, "height width 3"]]
    query: UInt8[np.ndarray, "height width 3"]
    truth: UInt8[np.ndarray, "height width 3"]
    predictions: dict[str, UInt8[np.ndarray, "height width 3"]]


def picture_episodes(
    batch: EpisodeBatch,
    predictions: Mapping[str, Bool[Tensor, "batch height width"]],
    class_names: Sequence[str],
    limit: int,
) -> list[EpisodePicture]:
    """Return the first `limit` episodes of a batch as rows; `predictions` holds masks by column name."""
    images = batch.images.cpu().numpy().transpose(0, 2, 3, 1)
    rows = []
    for i in range(min(limit, len(batch.index))):
        query, truth = images[batch.query[i]], batch.query_mask[i].cpu().numpy()
        valid = ~batch.query_ignore[i].cpu().numpy()
        columns = {}
        for name, masks in predictions.items():
            mask = masks[i].cpu().numpy()
            iou = _iou(mask & valid, truth & valid)
            columns[f"{name} {100 * iou:.0f}"] = overlay(query, mask, PREDICTION)
        supports = zip(
            batch.support[i, :MAX_SUPPORTS].tolist(), batch.support_masks[i].cpu().numpy(), strict=False
        )
        rows.append(
            EpisodePicture(
                title=class_names[int(batch.class_id[i])],
                supports=[overlay(images[s], mask, TRUTH) for s, mask in supports],
                query=query,
                truth=overlay(query, truth, TRUTH),
                predictions=columns,
            )
        )
    return rows


def overlay(
    image: UInt8[np.ndarray, "height width 3"],
    mask: Bool[np.ndarray, "height width"],
    colour: tuple[int, int, int],
) -> UInt8[np.ndarray, "height width 3"]:
    """Return the image with the mask tinted and its outline drawn, the rest dimmed a little."""
    tint = np.array(colour, dtype=np.float32)
    inside, outside = 0.45 * image + 0.55 * tint, 0.75 * image + 0.25 * 128
    drawn = np.where(mask[..., None], inside, outside).astype(np.uint8)
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.ascontiguousarray(drawn), outlines, -1, (255, 255, 255), 1)


def draw_sheet(rows: Sequence[EpisodePicture], path: Path) -> None:
    """Write the rows as one PNG: supports, query, truth, then every prediction with its IoU in percent."""
    columns = max(len(row.supports) + 2 + len(row.predictions) for row in rows)
    width = columns * (CELL + GAP) + GAP
    height = len(rows) * ROW + GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    title_font, font = ImageFont.load_default(size=15), ImageFont.load_default(size=12)
    for number, row in enumerate(rows):
        top = number * ROW + GAP
        draw.text((GAP, top), row.title, fill="black", font=title_font)
        panels = [("support", support) for support in row.supports]
        panels += [("query", row.query), ("truth", row.truth), *row.predictions.items()]
        for position, (caption, panel) in enumerate(panels):
            left = GAP + position * (CELL + GAP)
            draw.text((left, top + TITLE), caption, fill="#555555", font=font)
            resized = cv2.resize(panel, (CELL, CELL), interpolation=cv2.INTER_AREA)
            sheet.paste(Image.fromarray(resized), (left, top + TITLE + CAPTION))
    encoded = io.BytesIO()
    sheet.save(encoded, format="PNG")
    write_atomically(path, lambda stream: stream.write(encoded.getvalue()) and None)


def _iou(pred: Bool[np.ndarray, "height width"], truth: Bool[np.ndarray, "height width"]) -> float:
    return float((pred & truth).sum() / max(1, (pred | truth).sum()))
