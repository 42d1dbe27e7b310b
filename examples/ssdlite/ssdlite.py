"""torchvision's SSDlite with MobileNetV3-Large (Liu et al. 2016; Howard et al. 2019), on data in the format of COCO.

torchvision wraps the network in what changes the images, matches anchors, and takes doubles out. A device runs none of
that, so the network here ends at the raw heads. The task does the rest, with torchvision's own anchors, coder and loss;
it judges by COCO's average precision, as pycocotools counts it.

The folder is named by the variable DETECTION: ``images/``, and ``train.json`` and ``test.json``.
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
"""Pixels of an image, and maps that boxes are found on (320 and 6 in torchvision's recipe; of 96 pixels the last three
maps are one cell each); classes; boxes an image at most, in the targets"""
LIKELIEST, OVERLAP, KEPT = 100, 0.55, 32
"""Boxes before doubles are taken out; how far two may overlap; boxes an image in the answer"""


def ssdlite(width):
    """torchvision's detector without weights, with as many maps; class 0 is the background."""
    made = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=1 + CLASSES, width_mult=width)
    made.backbone.extra = made.backbone.extra[: MAPS - 2]  # the first two maps are MobileNet's own
    for head in (made.head.classification_head, made.head.regression_head):
        head.module_list = head.module_list[:MAPS]
    return made


class Heads(nn.Module):
    """Backbone and heads: the scores of each map, N x (anchors of a cell x classes) x H x W, and the boxes.

    torchvision concatenates the maps. Here each is an output of its own, with an int8 scale of its own.
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
    """The outputs as torchvision has them: N x anchors x (1 + classes), N x anchors x 4."""
    maps = len(outputs) // 2
    parts = {"cls_logits": (outputs[:maps], 1 + CLASSES), "bbox_regression": (outputs[maps:], 4)}
    return {name: torch.cat([by_anchor(one, last) for one in some], dim=1) for name, (some, last) in parts.items()}


def by_anchor(values, last):
    """From N x (anchors of a cell x last) x H x W to N x anchors x last."""
    return values.unflatten(1, (-1, last)).permute(0, 3, 4, 1, 2).flatten(1, 3)


def build(width=1.0):
    """For images of 3 x SIZE x SIZE."""
    return Heads(ssdlite(width))


def read_coco(folder, part):
    """(image, boxes) of a part: 3 x SIZE x SIZE from -1 to 1; MOST x 5, the class from 1 (0: no box) and corners."""
    with contextlib.redirect_stdout(io.StringIO()):
        found = COCO(folder / f"{part}.json")
    number = {key: place for place, key in enumerate(found.getCatIds(), start=1)}
    items = []
    for entry in found.loadImgs(found.getImgIds()):
        with Image.open(folder / "images" / entry["file_name"]) as image:
            pixels = np.asarray(image.convert("RGB").resize((SIZE, SIZE)), np.float32)
        boxes = torch.zeros(MOST, 5)
        own = [box for box in found.imgToAnns[entry["id"]] if not box.get("iscrowd")][:MOST]
        for place, box in enumerate(own):
            x, y, width, height = box["bbox"]
            across, down = SIZE / entry["width"], SIZE / entry["height"]
            corners = (x * across, y * down, (x + width) * across, (y + height) * down)
            boxes[place] = torch.tensor([number[box["category_id"]], *corners])
        items.append((torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1, boxes))
    return items


class Detection:
    """The task: boxes, judged by COCO's average precision."""

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
        """torchvision's: cross-entropy with hard negatives, smooth L1 of the boxes."""
        found, anchors = concatenated(output), self.anchors.to(target.device)
        targets = [{"labels": rows[:, 0].long(), "boxes": rows[:, 1:]} for rows in map(present, target)]
        matches = [self.match(one["boxes"], anchors) for one in targets]
        return sum(self.detector.compute_loss(targets, found, [anchors] * len(targets), matches).values())

    def match(self, boxes, anchors):
        """The box that each anchor has to find, -1 for none."""
        if not len(boxes):
            return torch.full((len(anchors),), -1, device=anchors.device)
        return self.detector.proposal_matcher(box_iou(boxes, anchors))

    def postprocess(self, output):
        """The likeliest boxes without doubles, N x KEPT x 6: score, class, corners; a score of 0 is no box."""
        found = concatenated(output)
        scores = found["cls_logits"].softmax(dim=-1)[..., 1:]
        boxes = [self.detector.box_coder.decode_single(one, self.anchors) for one in found["bbox_regression"]]
        return torch.stack([self.likeliest(*one) for one in zip(scores, boxes, strict=True)])

    def likeliest(self, scores, boxes):
        best, place = scores.flatten().topk(LIKELIEST)
        anchor, kind = place // CLASSES, place % CLASSES
        corners = boxes[anchor].clamp(0, SIZE)
        kept = without_doubles(corners + 2 * SIZE * kind[:, None])[:KEPT]  # classes apart, so that none hides another
        found = torch.zeros(KEPT, 6)
        found[: len(kept)] = torch.cat([best[kept, None], kind[kept, None] + 1, corners[kept]], dim=1)
        return found

    def metrics(self, output, target):
        return average_precision(output, target)


def present(rows):
    """The rows of boxes, without those that fill up."""
    return rows[rows[:, 0] > 0]


def without_doubles(boxes):
    """Places of boxes that overlap no likelier one (non-maximum suppression); the likeliest come first."""
    overlaps = box_iou(boxes, boxes) > OVERLAP
    kept = []
    for place in range(len(boxes)):
        if not overlaps[place, kept].any():
            kept.append(place)
    return kept


def average_precision(found, target):
    """COCO's, by pycocotools: the mean over overlaps of 0.5 to 0.95, and that at 0.5."""
    there = target[..., 0] > 0
    boxes = enumerate(coco_boxes(there, target[..., 0], target[..., 1:]), start=1)
    wanted, scores = COCO(), found[..., 0]
    wanted.dataset = {
        "images": [{"id": image} for image in range(len(target))],
        "categories": [{"id": kind} for kind in range(1, CLASSES + 1)],
        "annotations": [{"id": number, "iscrowd": 0, **box} for number, box in boxes],
    }
    answers = coco_boxes(scores > 0, found[..., 1], found[..., 2:])
    rated = [{**box, "score": score} for box, score in zip(answers, scores[scores > 0].tolist(), strict=True)]
    if not rated:
        return {"map": 0.0, "map_50": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):
        wanted.createIndex()
        judge = COCOeval(wanted, wanted.loadRes(rated), "bbox")
        judge.params.areaRng, judge.params.areaRngLbl = judge.params.areaRng[:1], ["all"]
        judge.params.maxDets = [KEPT]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"]  # overlap x recall x class x area x boxes, -1 where a class has no box
    return {"map": known_mean(precision), "map_50": known_mean(precision[0])}


def known_mean(values):
    known = values[values >= 0]
    return float(known.mean()) if len(known) else float("nan")


def coco_boxes(there, kinds, corners):
    """Boxes as COCO has them, of N x boxes and N x boxes x 4."""
    images = there.nonzero()[:, 0].tolist()
    sizes = torch.cat([corners[..., :2], corners[..., 2:] - corners[..., :2]], dim=-1)[there].tolist()
    return [
        {"image_id": image, "category_id": int(kind), "bbox": box, "area": box[2] * box[3]}
        for image, kind, box in zip(images, kinds[there].tolist(), sizes, strict=True)
    ]
