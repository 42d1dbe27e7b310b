"""torchvision's SSDlite with MobileNetV3-Large (Liu et al. 2016; Howard et al. 2019), on data in COCO format.

torchvision's model also transforms the images, matches anchors, and removes duplicate boxes. A device runs none of
that, so the network here ends at the raw heads. The task does the rest, with torchvision's own anchors, box coder and
loss; its metric is COCO's average precision, computed by pycocotools.

The environment variable DETECTION names the data folder, which holds ``images/``, ``train.json`` and ``test.json``.
"""

import contextlib
import io
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection.image_list import ImageList
from torchvision.ops.boxes import box_iou

SIZE, MAPS, CLASSES, MOST = 96, 3, 2, 8
"""Side of an image in pixels, and number of feature maps with heads (320 and 6 in torchvision's recipe; with 96 pixels,
the last three maps would be one cell each); number of classes; most boxes per image in the targets"""
LIKELIEST, OVERLAP, KEPT = 100, 0.55, 32
"""Boxes before non-maximum suppression; largest overlap of two boxes; boxes per image in the output"""


def ssdlite(width):
    """torchvision's untrained detector, reduced to MAPS feature maps; class 0 is the background."""
    detector = ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=1 + CLASSES, width_mult=width
    )
    detector.backbone.extra = detector.backbone.extra[: MAPS - 2]  # the first two maps come from MobileNet itself
    for head in (detector.head.classification_head, detector.head.regression_head):
        head.module_list = head.module_list[:MAPS]
    return detector


class Heads(nn.Module):
    """Backbone and heads: the scores of each map, N x (anchors per cell x classes) x H x W, then the boxes.

    torchvision concatenates the maps. Here each map is a separate output with its own int8 scale.
    """

    def __init__(self, detector):
        super().__init__()
        self.backbone = detector.backbone
        self.scores = detector.head.classification_head.module_list
        self.boxes = detector.head.regression_head.module_list

    def forward(self, images):
        maps = list(self.backbone(images).values())
        heads = zip([*self.scores, *self.boxes], maps + maps, strict=True)
        return [head(values) for head, values in heads]


def concatenated(outputs):
    """The outputs in torchvision's layout: N x anchors x (1 + classes), N x anchors x 4."""
    count = len(outputs) // 2
    parts = {"cls_logits": (outputs[:count], 1 + CLASSES), "bbox_regression": (outputs[count:], 4)}
    return {
        name: torch.cat([by_anchor(values, size) for values in maps_of_head], dim=1)
        for name, (maps_of_head, size) in parts.items()
    }


def by_anchor(values, size):
    """From N x (anchors per cell x size) x H x W to N x anchors x size."""
    return values.unflatten(1, (-1, size)).permute(0, 3, 4, 1, 2).flatten(1, 3)


def build(width=1.0):
    """The network for images of 3 x SIZE x SIZE."""
    return Heads(ssdlite(width))


def read_coco(folder, part):
    """(image, boxes) pairs: 3 x SIZE x SIZE from -1 to 1; MOST x 5, the class from 1 (0: no box) and the corners."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(folder / f"{part}.json")
    class_numbers = {key: index for index, key in enumerate(coco.getCatIds(), start=1)}
    items = []
    for entry in coco.loadImgs(coco.getImgIds()):
        with Image.open(folder / "images" / entry["file_name"]) as image:
            pixels = np.asarray(image.convert("RGB").resize((SIZE, SIZE)), np.float32)
        boxes = torch.zeros(MOST, 5)
        annotations = [annotation for annotation in coco.imgToAnns[entry["id"]] if not annotation.get("iscrowd")][:MOST]
        for index, annotation in enumerate(annotations):
            x, y, width, height = annotation["bbox"]
            across, down = SIZE / entry["width"], SIZE / entry["height"]
            corners = (x * across, y * down, (x + width) * across, (y + height) * down)
            boxes[index] = torch.tensor([class_numbers[annotation["category_id"]], *corners])
        items.append((torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1, boxes))
    return items


class Detection:
    """The task: object detection, measured by COCO's average precision."""

    directions = {"map": "max", "map_50": "max"}
    shares = ("map", "map_50")
    largest_loss = 0.05
    outputs = CLASSES

    def __init__(self):
        self.detector = ssdlite(1.0).eval()
        images = torch.zeros(1, 3, SIZE, SIZE)
        with torch.no_grad():
            maps = list(self.detector.backbone(images).values())
        self.anchors = self.detector.anchor_generator(ImageList(images, [(SIZE, SIZE)]), maps)[0]

    def data(self):
        folder = Path(os.environ.get("DETECTION", "objects"))
        return read_coco(folder, "train"), read_coco(folder, "test")

    def loss(self, output, target):
        """torchvision's loss: cross-entropy with hard negatives, and smooth L1 for the boxes."""
        predictions, anchors = concatenated(output), self.anchors.to(target.device)
        targets = [{"labels": rows[:, 0].long(), "boxes": rows[:, 1:]} for rows in map(present, target)]
        matches = [self.match(image_targets["boxes"], anchors) for image_targets in targets]
        return sum(self.detector.compute_loss(targets, predictions, [anchors] * len(targets), matches).values())

    def match(self, boxes, anchors):
        """Index of the box matched to each anchor; negative if there is none."""
        if not len(boxes):
            return torch.full((len(anchors),), -1, device=anchors.device)
        return self.detector.proposal_matcher(box_iou(boxes, anchors))

    def postprocess(self, output):
        """The highest-scoring boxes after suppression, N x KEPT x 6: score, class, corners; score 0 means no box."""
        predictions = concatenated(output)
        scores = predictions["cls_logits"].softmax(dim=-1)[..., 1:]
        boxes = [
            self.detector.box_coder.decode_single(encoded, self.anchors) for encoded in predictions["bbox_regression"]
        ]
        return torch.stack([self.likeliest(*of_image) for of_image in zip(scores, boxes, strict=True)])

    def likeliest(self, scores, boxes):
        best_scores, index = scores.flatten().topk(LIKELIEST)
        anchor, label = index // CLASSES, index % CLASSES
        corners = boxes[anchor].clamp(0, SIZE)
        kept = without_doubles(corners + 2 * SIZE * label[:, None])[
            :KEPT
        ]  # classes are moved apart, so that none hides another
        detections = torch.zeros(KEPT, 6)
        detections[: len(kept)] = torch.cat([best_scores[kept, None], label[kept, None] + 1, corners[kept]], dim=1)
        return detections

    def metrics(self, output, target):
        return average_precision(output, target)


def present(rows):
    """The rows that hold a box, without the padding."""
    return rows[rows[:, 0] > 0]


def without_doubles(boxes):
    """Indices of boxes that overlap no higher-scoring one (non-maximum suppression); boxes are sorted by score."""
    overlaps = box_iou(boxes, boxes) > OVERLAP
    kept = []
    for index in range(len(boxes)):
        if not overlaps[index, kept].any():
            kept.append(index)
    return kept


def average_precision(output, target):
    """COCO's average precision, by pycocotools: the mean over overlaps from 0.5 to 0.95, and the value at 0.5."""
    is_box = target[..., 0] > 0
    boxes = enumerate(coco_boxes(is_box, target[..., 0], target[..., 1:]), start=1)
    truth, scores = COCO(), output[..., 0]
    truth.dataset = {
        "images": [{"id": image} for image in range(len(target))],
        "categories": [{"id": label} for label in range(1, CLASSES + 1)],
        "annotations": [{"id": number, "iscrowd": 0, **box} for number, box in boxes],
    }
    answers = coco_boxes(scores > 0, output[..., 1], output[..., 2:])
    detections = [{**box, "score": score} for box, score in zip(answers, scores[scores > 0].tolist(), strict=True)]
    if not detections:
        return {"map": 0.0, "map_50": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(detections), "bbox")
        judge.params.areaRng, judge.params.areaRngLbl = judge.params.areaRng[:1], ["all"]
        judge.params.maxDets = [KEPT]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"]  # overlap x recall x class x area x boxes; -1 if a class has no box
    return {"map": known_mean(precision), "map_50": known_mean(precision[0])}


def known_mean(values):
    known = values[values >= 0]
    return float(known.mean()) if len(known) else float("nan")


def coco_boxes(is_box, labels, corners):
    """Boxes in COCO format, from labels (N x boxes) and corners (N x boxes x 4)."""
    images = is_box.nonzero()[:, 0].tolist()
    sizes = torch.cat([corners[..., :2], corners[..., 2:] - corners[..., :2]], dim=-1)[is_box].tolist()
    return [
        {"image_id": image, "category_id": int(label), "bbox": box, "area": box[2] * box[3]}
        for image, label, box in zip(images, labels[is_box].tolist(), sizes, strict=True)
    ]
