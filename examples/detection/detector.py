"""Object detection by centres (after CenterNet: Zhou et al. 2019), on data in COCO format.

The environment variable DETECTION names the data folder, which holds ``images/``, and ``train.json`` and ``test.json``
with boxes in COCO format. For each cell of 8x8 pixels, the network predicts how likely an object of each class has its
centre there, and the position and size of its box.
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
"""Side of the image and of a cell, in pixels; most boxes per image in the targets and in the output"""


def build(num_classes=2, in_channels=3):
    """Three strided convolutions and a head: class scores, then x and y in the cell, width, height."""
    layers, channels = [], in_channels
    for width in (16, 32, 64):
        layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    head = nn.Sequential(nn.Conv2d(channels, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, num_classes + 4, 1))
    nn.init.constant_(head[-1].bias[:num_classes], -3.0)  # centres are rare
    return nn.Sequential(*layers, head)


def read_coco(folder, part):
    """(image, boxes) pairs: 3 x 64 x 64; 8 x 5 of class (-1: no box), centre and size as shares of the image."""
    coco = json.loads((folder / f"{part}.json").read_text())
    class_numbers = {
        entry["id"]: index for index, entry in enumerate(sorted(coco["categories"], key=lambda c: c["id"]))
    }
    items = []
    for entry in coco["images"]:
        with Image.open(folder / "images" / entry["file_name"]) as image:
            pixels = np.asarray(image.convert("RGB").resize((SIZE, SIZE)), np.float32)
        boxes = torch.full((MOST, 5), -1.0)
        annotations = [annotation for annotation in coco["annotations"] if annotation["image_id"] == entry["id"]][:MOST]
        for index, annotation in enumerate(annotations):
            x, y, width, height = annotation["bbox"]
            shares = ((x + width / 2) / entry["width"], (y + height / 2) / entry["height"])
            sizes = (width / entry["width"], height / entry["height"])
            boxes[index] = torch.tensor([class_numbers[annotation["category_id"]], *shares, *sizes])
        items.append((torch.from_numpy(pixels).permute(2, 0, 1) / 128 - 1, boxes))
    return items


class Detection:
    """The task: object detection, measured by the average precision at an overlap of 0.5."""

    directions = {"ap50": "max"}
    shares = ("ap50",)
    largest_loss = 0.05
    outputs = 2
    """Number of classes"""

    def data(self):
        folder = Path(os.environ.get("DETECTION", "objects"))
        return read_coco(folder, "train"), read_coco(folder, "test")

    def loss(self, output, target):
        """Focal loss (Lin et al. 2017) for the centres, absolute error for the boxes."""
        scores, boxes = output[:, :-4], output[:, -4:].sigmoid()
        is_box = target[..., 0] >= 0
        image, index = is_box.nonzero().unbind(1)
        label, x, y, width, height = target[image, index].unbind(1)
        column, row = ((value * SIZE / CELL).long().clamp(0, SIZE // CELL - 1) for value in (x, y))
        targets = torch.zeros_like(scores)
        targets[image, label.long(), row, column] = 1.0
        cross_entropy = functional.binary_cross_entropy_with_logits(scores, targets, reduction="none")
        centres = (cross_entropy * (targets - scores.sigmoid()).square()).sum() / len(image)
        target_boxes = torch.stack([x * SIZE / CELL - column, y * SIZE / CELL - row, width, height], dim=1)
        return centres + 4 * (boxes[image, :, row, column] - target_boxes).abs().mean()

    def postprocess(self, output):
        """The highest-scoring boxes, N x 16 x 6: score, class, centre, size. A centre is a local maximum."""
        scores, boxes = output[:, :-4].sigmoid(), output[:, -4:].sigmoid()
        scores = scores * (scores == functional.max_pool2d(scores, 3, 1, 1))
        count, _, height, width = scores.shape
        best_scores, index = scores.flatten(1).topk(KEPT)
        label, row, column = index // (height * width), index // width % height, index % width
        x, y, w, h = (boxes[torch.arange(count)[:, None], channel, row, column] for channel in range(4))
        return torch.stack([best_scores, label.float(), (column + x) / width, (row + y) / height, w, h], dim=2)

    def metrics(self, output, target):
        return {"ap50": np.mean([average_precision(output, target, label) for label in range(self.outputs)])}


def average_precision(output, target, label, overlap=0.5):
    """VOC's average precision (area under precision over recall) of one class; a true box can be matched once."""
    detections = sorted(
        (
            (float(box[0]), image, box[2:])
            for image, boxes in enumerate(output)
            for box in boxes
            if int(box[1]) == label
        ),
        key=lambda detection: -detection[0],
    )
    unmatched = [[box[1:] for box in boxes if int(box[0]) == label] for boxes in target]
    total, hits, precision = sum(map(len, unmatched)), 0, 0.0
    for rank, (_, image, box) in enumerate(detections, start=1):
        overlaps = [shared(box, other) for other in unmatched[image]]
        if overlaps and max(overlaps) >= overlap:
            unmatched[image].pop(int(np.argmax(overlaps)))
            hits += 1
            precision += hits / rank
    return precision / total if total else 0.0


def shared(first, second):
    """Intersection over union of two boxes, each given by centre and size."""
    low = torch.maximum(first[:2] - first[2:] / 2, second[:2] - second[2:] / 2)
    high = torch.minimum(first[:2] + first[2:] / 2, second[:2] + second[2:] / 2)
    intersection = float((high - low).clamp_min(0).prod())
    return intersection / (float(first[2:].prod() + second[2:].prod()) - intersection)
