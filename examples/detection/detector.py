"""Object detection by centres (after CenterNet: Zhou et al. 2019), on data in the format of COCO.

The folder is named by the variable DETECTION: ``images/``, and ``train.json`` and ``test.json`` with boxes as COCO has
them. The network says for each cell of a map, of 8x8 pixels, how likely each class has a centre there, and where the
box is.
"""

import json
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

SIZE, CELL, MOST, KEPT = 64, 8, 8, 16
"""Pixels of the image and of a cell; boxes an image at most, in the targets and in the answer"""


def build(num_classes=2, in_channels=3):
    """Three convolutions with strides, and a head: classes, then x and y in the cell, width, height."""
    layers, wide = [], in_channels
    for width in (16, 32, 64):
        layers += [nn.Conv2d(wide, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        wide = width
    head = nn.Sequential(nn.Conv2d(wide, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, num_classes + 4, 1))
    nn.init.constant_(head[-1].bias[:num_classes], -3.0)  # centres are rare
    return nn.Sequential(*layers, head)


def read_coco(folder, part):
    """(image, boxes) of a part: 3 x 64 x 64, and 8 x 5 of class, centre and size as shares, class -1 for none."""
    found = json.loads((folder / f"{part}.json").read_text())
    number = {entry["id"]: place for place, entry in enumerate(sorted(found["categories"], key=lambda c: c["id"]))}
    items = []
    for entry in found["images"]:
        with Image.open(folder / "images" / entry["file_name"]) as image:
            pixels = np.asarray(image.convert("RGB").resize((SIZE, SIZE)), np.float32)
        boxes = torch.full((MOST, 5), -1.0)
        own = [box for box in found["annotations"] if box["image_id"] == entry["id"]][:MOST]
        for place, box in enumerate(own):
            x, y, width, height = box["bbox"]
            shares = ((x + width / 2) / entry["width"], (y + height / 2) / entry["height"])
            sizes = (width / entry["width"], height / entry["height"])
            boxes[place] = torch.tensor([number[box["category_id"]], *shares, *sizes])
        items.append((torch.from_numpy(pixels).permute(2, 0, 1) / 128 - 1, boxes))
    return items


class Detection:
    """The task: boxes, judged by the average precision at half overlap."""

    directions = {"ap50": "max"}
    shares = ("ap50",)
    largest_loss = 0.05
    outputs = 2
    """classes"""

    def data(self):
        folder = Path(os.environ.get("DETECTION", "objects"))
        return read_coco(folder, "train"), read_coco(folder, "test")

    def loss(self, output, target):
        """Focal loss (Lin et al. 2017) of the centres, absolute error of the boxes."""
        scores, boxes = output[:, :-4], output[:, -4:].sigmoid()
        there = target[..., 0] >= 0
        image, place = there.nonzero().unbind(1)
        kind, x, y, width, height = target[image, place].unbind(1)
        column, row = ((value * SIZE / CELL).long().clamp(0, SIZE // CELL - 1) for value in (x, y))
        wanted = torch.zeros_like(scores)
        wanted[image, kind.long(), row, column] = 1.0
        cross = functional.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
        centres = (cross * (wanted - scores.sigmoid()).square()).sum() / len(image)
        inside = torch.stack([x * SIZE / CELL - column, y * SIZE / CELL - row, width, height], dim=1)
        return centres + 4 * (boxes[image, :, row, column] - inside).abs().mean()

    def postprocess(self, output):
        """The likeliest boxes, N x 16 x 6: score, class, centre and size. A centre is the largest score around it."""
        scores, boxes = output[:, :-4].sigmoid(), output[:, -4:].sigmoid()
        scores = scores * (scores == functional.max_pool2d(scores, 3, 1, 1))
        count, _, height, width = scores.shape
        best, place = scores.flatten(1).topk(KEPT)
        kind, row, column = place // (height * width), place // width % height, place % width
        x, y, w, h = (boxes[torch.arange(count)[:, None], at, row, column] for at in range(4))
        return torch.stack([best, kind.float(), (column + x) / width, (row + y) / height, w, h], dim=2)

    def metrics(self, output, target):
        return {"ap50": np.mean([average_precision(output, target, kind) for kind in range(self.outputs)])}


def average_precision(found, target, kind, overlap=0.5):
    """Of one class over all images (VOC's area under precision over recall): each true box may be found once."""
    rows = sorted(
        ((float(box[0]), image, box[2:]) for image, some in enumerate(found) for box in some if int(box[1]) == kind),
        key=lambda row: -row[0],
    )
    left = [[box[1:] for box in some if int(box[0]) == kind] for some in target]
    total, hits, precision = sum(map(len, left)), 0, 0.0
    for rank, (_, image, box) in enumerate(rows, start=1):
        overlaps = [shared(box, other) for other in left[image]]
        if overlaps and max(overlaps) >= overlap:
            left[image].pop(int(np.argmax(overlaps)))
            hits += 1
            precision += hits / rank
    return precision / total if total else 0.0


def shared(first, second):
    """Intersection over union of two boxes, centre and size."""
    low = torch.maximum(first[:2] - first[2:] / 2, second[:2] - second[2:] / 2)
    high = torch.minimum(first[:2] + first[2:] / 2, second[:2] + second[2:] / 2)
    both = float((high - low).clamp_min(0).prod())
    return both / (float(first[2:].prod() + second[2:].prod()) - both)
