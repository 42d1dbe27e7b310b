"""Multiply-accumulates and outputs, by kind of operator, of the architectures in published board measurements.

Each architecture follows its paper, or the published code of the model zoo that names it, as TensorFlow Lite runs it:
batch norms are folded, and an activation is fused into the operator before it if nothing else reads that operator's
output. Only counts are needed, so no network is built. `scripts/fit_board_times.py` compares these multiply-accumulates
with those stated by the measurements, and leaves a network out if they differ by more than 1 %.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pretrim.latency.board_systems import Work

Shape = tuple[int, int, int]
"""Height, width and channels of a feature map"""


@dataclass
class Graph:
    """Counts of operators, updated as they are appended; each operator reads the last feature map."""

    height: int
    width: int
    channels: int = 3
    macs: Counter[str] = field(default_factory=Counter)
    outputs: Counter[str] = field(default_factory=Counter)

    @property
    def shape(self) -> Shape:
        """Shape of the last feature map, to branch from later."""
        return self.height, self.width, self.channels

    def at(self, shape: Shape) -> Graph:
        """Continue from a feature map of this shape."""
        self.height, self.width, self.channels = shape
        return self

    def _slide(self, kernel: tuple[int, int], stride: int, is_padded: bool) -> None:
        if is_padded:  # TensorFlow's SAME
            self.height, self.width = -(-self.height // stride), -(-self.width // stride)
        else:
            self.height = (self.height - kernel[0]) // stride + 1
            self.width = (self.width - kernel[1]) // stride + 1

    def conv(
        self, filters: int, kernel: int | tuple[int, int] = 3, stride: int = 1, *, is_padded: bool = True
    ) -> Graph:
        """A convolution over all channels; counted as pointwise if its kernel is 1x1."""
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        self._slide((rows, columns), stride, is_padded)
        kind = "convolution" if rows * columns > 1 else "pointwise"
        self.macs[kind] += self.height * self.width * filters * rows * columns * self.channels
        self.channels = filters
        return self.elements(kind)

    def depthwise(self, stride: int = 1, kernel: int = 3) -> Graph:
        """A depthwise convolution: one filter per channel."""
        self._slide((kernel, kernel), stride, True)
        self.macs["depthwise"] += self.height * self.width * self.channels * kernel**2
        return self.elements("depthwise")

    def separable(self, filters: int, stride: int = 1) -> Graph:
        """A depthwise and a pointwise convolution: MobileNet's block."""
        return self.depthwise(stride).conv(filters, 1)

    def elements(self, kind: str) -> Graph:
        """An operator that computes every element of the last feature map once."""
        self.outputs[kind] += self.height * self.width * self.channels
        return self

    def pool(self, kernel: int, stride: int, *, is_padded: bool = False) -> Graph:
        """Max or average pooling."""
        self._slide((kernel, kernel), stride, is_padded)
        return self.elements("pool")

    def mean(self) -> Graph:
        """Global average pooling; its work is the number of elements it reads."""
        self.elements("pool")
        self.height = self.width = 1
        return self

    def dense(self, units: int) -> Graph:
        """A fully connected layer on the flattened feature map."""
        self.macs["dense"] += self.height * self.width * self.channels * units
        self.height, self.width, self.channels = 1, 1, units
        return self.elements("dense")

    @property
    def work(self) -> Work:
        """The counts so far."""
        return Work(dict(self.macs), dict(self.outputs))


def divisible(value: float, divisor: int = 8) -> int:
    """The multiple nearest to a width, but at most a tenth below it: `_make_divisible` of TensorFlow's MobileNets."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


# ---------------------------------------------------------------------------------------- image classification

MOBILENET_V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
FD_MOBILENET = (
    *((64, 2), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *[(512, 1)] * 4,
    (1024, 1),
)


def mobilenet_v1(alpha: float, side: int, channels: int = 3, classes: int = 5) -> Graph:
    """Howard et al. 2017, arXiv 1704.04861, table 1."""
    graph = Graph(side, side, channels).conv(int(32 * alpha), 3, 2)
    for filters, stride in MOBILENET_V1:
        graph.separable(int(filters * alpha), stride)
    return graph.mean().dense(classes)


def fd_mobilenet(alphas: Sequence[float], side: int, classes: int = 5) -> Graph:
    """Qin et al. 2018, arXiv 1802.03750, table 1; ST's version has a width multiplier for each block."""
    graph = Graph(side, side).conv(int(32 * alphas[0]), 3, 2)
    for (filters, stride), alpha in zip(FD_MOBILENET, alphas[1:], strict=True):
        graph.separable(int(filters * alpha), stride)
    return graph.mean().conv(classes, 1)


ST_FD_ALPHAS = (0.5, 0.75, 0.625, 0.5, 0.375, *[0.25] * 7)
"""STM32 model zoo, image_classification, st_fdmobilenet_v1"""


def inverted_residual(graph: Graph, filters: int, stride: int, expand: int, kernel: int = 3) -> None:
    """Sandler et al. 2018, arXiv 1801.04381, figure 4d."""
    inputs = graph.channels
    if expand > 1:
        graph.conv(inputs * expand, 1)
    graph.depthwise(stride, kernel).conv(filters, 1)
    if stride == 1 and inputs == filters:
        graph.elements("elementwise")


MOBILENET_V2 = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)


def mobilenet_v2_features(graph: Graph, alpha: float) -> list[Shape]:
    """Add the blocks of MobileNetV2 and return the shape of the feature map after each."""
    graph.conv(divisible(32 * alpha), 3, 2)
    shapes = []
    for expand, filters, repeats, stride in MOBILENET_V2:
        for number in range(repeats):
            inverted_residual(graph, divisible(filters * alpha), stride if number == 0 else 1, expand)
            shapes.append(graph.shape)
    return shapes


def mobilenet_v2(alpha: float, side: int, classes: int = 5, last: int = 1280) -> Graph:
    """Sandler et al. 2018, arXiv 1801.04381, table 2."""
    graph = Graph(side, side)
    mobilenet_v2_features(graph, alpha)
    return graph.conv(last, 1).mean().dense(classes)


def residual(graph: Graph, filters: int, stride: int) -> None:
    """He et al. 2015, arXiv 1512.03385, with a 1x1 convolution on the shortcut where the size changes."""
    before = graph.shape
    graph.conv(filters, 3, stride).conv(filters)
    after = graph.shape
    if stride > 1:
        graph.at(before).conv(filters, 1, stride)
    graph.at(after).elements("elementwise")


def resnet(blocks: int, classes: int) -> Graph:
    """ResNet for 32x32 images: 8 layers (MLPerf Tiny) with one block per stage, 32 layers with five."""
    graph = Graph(32, 32).conv(16)
    for filters in (16, 32, 64):
        for number in range(blocks):
            residual(graph, filters, 2 if number == 0 and filters > 16 else 1)
    return graph.mean().dense(classes)


def squeezenet_1_1(side: int, classes: int = 5) -> Graph:
    """Iandola et al. 2016, arXiv 1602.07360, and the authors' version 1.1."""
    graph = Graph(side, side).conv(64, 3, 2, is_padded=False)
    for stage in (((16, 64), (16, 64)), ((32, 128), (32, 128)), ((48, 192), (48, 192), (64, 256), (64, 256))):
        graph.pool(3, 2)
        for squeeze, expand in stage:
            graph.conv(squeeze, 1)
            squeezed = graph.shape
            graph.conv(expand, 1).at(squeezed).conv(expand)
            graph.channels = 2 * expand
    return graph.conv(classes, 1).mean()


EFFICIENTNET = (
    *((16, 1, 1, 3, 1), (24, 2, 2, 3, 3), (40, 2, 2, 5, 3), (80, 3, 2, 3, 3)),
    *((112, 3, 1, 5, 3), (192, 4, 2, 5, 3), (320, 1, 1, 3, 3)),
)


def st_efficientnet_lc(side: int, classes: int = 5, width: float = 0.45) -> Graph:
    """Tan and Le 2019, arXiv 1905.11946, at 0.45 times the width and half the expansion (STM32 model zoo)."""
    graph = Graph(side, side).conv(divisible(32 * width), 3, 2)
    for filters, repeats, stride, kernel, expand in EFFICIENTNET:
        for number in range(repeats):
            inputs = graph.channels
            if expand > 1:
                graph.conv(inputs * expand, 1)
            graph.depthwise(stride if number == 0 else 1, kernel)
            expanded = graph.shape
            graph.mean().conv(max(1, inputs // 4), 1).conv(expanded[2], 1).at(expanded).elements("elementwise")
            graph.conv(divisible(filters * width), 1)
            if number > 0 or (stride == 1 and inputs == graph.channels):
                graph.elements("elementwise")
    return graph.conv(divisible(1280 * width), 1).mean().dense(classes)


# ---------------------------------------------------------------------------------------- detection


def st_yolo_lc(side: int, outputs: int = 30) -> Graph:
    """STM32 model zoo, object_detection, st_yolo_lc_v1: five anchors, one class."""
    graph = Graph(side, side)
    for filters in (16, 32, 64, 128):
        graph.conv(filters, 3, 2)
    graph.separable(256).separable(256).elements("pool").separable(128).separable(256)
    return graph.conv(outputs, 1)


def tiny_yolo_v2(side: int, outputs: int = 30) -> Graph:
    """Redmon and Farhadi 2016, arXiv 1612.08242; its leaky ReLUs are separate operators."""
    graph = Graph(side, side)
    for filters in (16, 32, 64, 128, 256, 512):
        graph.conv(filters).elements("activation").pool(2, 2 if filters < 512 else 1, is_padded=True)
    graph.conv(1024).elements("activation").conv(512).elements("activation")
    return graph.conv(outputs, 1)


def ssd_mobilenet_v1(side: int, alpha: float = 0.25, anchors: int = 5) -> Graph:
    """STM32 model zoo, object_detection, st_ssd_mobilenet_v1: a pyramid of six maps of 32 channels, one class."""
    graph = Graph(side, side).conv(int(32 * alpha), 3, 2)
    shapes = []
    for filters, stride in MOBILENET_V1:
        graph.separable(int(filters * alpha), stride)
        shapes.append(graph.shape)
    padded_cells = 1 if side == 224 else 0  # its maps are padded to those of 256x256
    maps = []
    for shape, padding in ((shapes[4], 4 * padded_cells), (shapes[10], 2 * padded_cells), (shapes[12], padded_cells)):
        graph.at((shape[0] + padding, shape[1] + padding, shape[2])).conv(32, 1)
        maps.append(graph.shape)
    last = shapes[12]
    graph.at((last[0] + padded_cells, last[1] + padded_cells, last[2]))
    for _ in range(2):
        graph.separable(256, 2).separable(256)
        extra_map = graph.shape
        graph.conv(32, 1)
        maps.append(graph.shape)
        graph.at(extra_map)
    graph.mean().conv(32, 1)
    for shape in maps:
        graph.at(shape).elements("elementwise")
    for shape, kernel in [*((shape, 3) for shape in maps), ((1, 1, 32), 1)]:
        for predicted in (2, 4):  # class scores, box
            graph.at(shape).conv(anchors * predicted, kernel)
    return graph


def ssd_mobilenet_v2_fpnlite(side: int, alpha: float = 0.35, channels: int = 128) -> Graph:
    """STM32 model zoo, object_detection, ssd_mobilenet_v2_fpnlite: five maps of 128 channels, one class."""
    graph = Graph(side, side)
    shapes = mobilenet_v2_features(graph, alpha)
    deepest = graph.conv(1280, 1).shape
    lateral = []
    for shape in (shapes[5], shapes[12], deepest):
        lateral.append(graph.at(shape).conv(channels, 1).shape)
    for shape in (lateral[1], lateral[0]):
        graph.at(shape).elements("elementwise").separable(channels)
    third = graph.at(lateral[2]).separable(channels, 2).shape
    fourth = graph.separable(channels, 2).shape
    for shape, anchors in zip((*lateral, third, fourth), (4, 6, 6, 6, 4), strict=True):
        graph.at(shape)
        for _ in range(4):
            graph.separable(channels)
        for predicted in (2, 4):  # class scores, box
            graph.at(shape).separable(anchors * predicted)
    return graph


# ---------------------------------------------------------------------------------------- audio and vibration


def autoencoder() -> Graph:
    """MLPerf Tiny, anomaly detection (Banbury et al. 2021, arXiv 2106.07597)."""
    graph = Graph(1, 1, 640)
    for units in (*[128] * 4, 8, *[128] * 4, 640):
        graph.dense(units)
    return graph


def ds_cnn() -> Graph:
    """MLPerf Tiny, keyword spotting: DS-CNN (Zhang et al. 2017, arXiv 1711.07128), 49x10 features, 12 words."""
    graph = Graph(49, 10, 1).conv(64, (10, 4), 2)
    for _ in range(4):
        graph.separable(64)
    return graph.mean().dense(12)


def yamnet_256(classes: int = 10) -> Graph:
    """STM32 model zoo, audio_event_detection: the first blocks of YAMNet (MobileNetV1), on 64x96 spectrograms."""
    graph = Graph(64, 96, 1).conv(32, 3, 2)
    for filters, stride in MOBILENET_V1[:5]:
        graph.separable(filters, stride)
    return graph.mean().dense(classes)


def miniresnet_v2(classes: int = 10) -> Graph:
    """STM32 model zoo, audio_event_detection, miniresnetv2 with one stack, on 64x50 spectrograms."""
    graph = Graph(64, 50, 1).conv(64, 7, 2).pool(3, 2, is_padded=True)
    for stride in (1, 2):
        before = graph.shape
        graph.elements("activation")
        if stride == 1:
            graph.conv(64, 1).at(before)
        graph.conv(64, 1).conv(64, 3, stride).elements("elementwise")
    return graph.elements("activation").mean().dense(classes)


# ---------------------------------------------------------------------------------------- NATS-Bench


@dataclass(frozen=True)
class Step:
    """An operator of a NATS-Bench network.

    Attributes:
        kind: convolution, pointwise, dense, elementwise or pool.
        reads: indices of the steps it reads, each with whether a ReLU comes in between.
        elements: size of its output (for a mean, of its input).
        macs: its multiply-accumulates.
    """

    kind: str
    reads: tuple[tuple[int, bool], ...]
    elements: int
    macs: int = 0


@dataclass
class Nats:
    """A network of NATS-Bench's topology space (Dong et al. 2021, arXiv 2009.00437): 16 channels, 5 cells per stage."""

    steps: list[Step] = field(default_factory=list)
    pools: dict[tuple[int, int], int] = field(default_factory=dict)
    side: int = 32

    def add(self, kind: str, reads: tuple[tuple[int, bool], ...], channels: int, macs: int = 0) -> int:
        """Append a step whose output has the current size, and return its index."""
        self.steps.append(Step(kind, reads, self.side**2 * channels, macs))
        return len(self.steps) - 1

    def conv(self, source: int, inputs: int, outputs: int, kernel: int, *, has_relu: bool = True) -> int:
        """A convolution, preceded by a ReLU if `has_relu`."""
        macs = self.side**2 * outputs * inputs * kernel**2
        return self.add("convolution" if kernel > 1 else "pointwise", ((source, has_relu),), outputs, macs)

    def pool(self, source: int, channels: int, kernel: int) -> int:
        """Average pooling; identical poolings of one feature map are computed once."""
        if (source, kernel) not in self.pools:
            self.pools[source, kernel] = self.add("pool", ((source, False),), channels)
        return self.pools[source, kernel]

    def total(self, parts: Sequence[int], channels: int) -> int:
        """A sum of feature maps, as a chain of additions."""
        result = parts[0]
        for part in parts[1:]:
            result = self.add("elementwise", ((result, False), (part, False)), channels)
        return result

    def cell(self, source: int, channels: int, edges: Sequence[Sequence[tuple[str, int]]]) -> int:
        """Four nodes, each the sum of its edges; returns the last one, or zero times the input if it has no edges."""
        nodes: list[int | None] = [source]
        for incoming in edges:
            parts = [
                self._edge(operation, node, channels)
                for operation, number in incoming
                if operation != "none" and (node := nodes[number]) is not None
            ]
            nodes.append(self.total(parts, channels) if parts else None)
        last = nodes[-1]
        return last if last is not None else self.add("elementwise", ((source, False),), channels)

    def _edge(self, operation: str, node: int, channels: int) -> int:
        if operation == "skip_connect":
            return node
        if operation == "avg_pool_3x3":
            return self.pool(node, channels, 3)
        return self.conv(node, channels, channels, int(operation[-1]))

    def reduction(self, source: int, inputs: int) -> int:
        """A residual block of stride 2 with twice the channels."""
        self.side //= 2
        left = self.conv(self.conv(source, inputs, 2 * inputs, 3), 2 * inputs, 2 * inputs, 3)
        shortcut = self.conv(self.pool(source, inputs, 2), inputs, 2 * inputs, 1, has_relu=False)
        return self.total([left, shortcut], 2 * inputs)

    @property
    def work(self) -> Work:
        """Work of the steps that the output needs; a ReLU is a separate operator if its input has other readers."""
        needed = {len(self.steps) - 1}
        for number in range(len(self.steps) - 1, -1, -1):
            if number in needed:
                needed.update(source for source, _ in self.steps[number].reads)
        reads = [read for number in needed if number >= 0 for read in self.steps[number].reads]
        rectified, plain = ({source for source, relu in reads if relu is is_relu} for is_relu in (True, False))
        macs: Counter[str] = Counter()
        outputs: Counter[str] = Counter()
        for number in sorted(needed - {-1}):
            step = self.steps[number]
            outputs[step.kind] += step.elements
            macs[step.kind] += step.macs
            if number in rectified & plain:
                outputs["activation"] += step.elements
        return Work({kind: count for kind, count in macs.items() if count}, dict(outputs))


def nats(architecture: str) -> Nats:
    """The network of an architecture string: ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|``."""
    edges = [
        [(edge.partition("~")[0], int(edge.partition("~")[2])) for edge in node.strip("|").split("|")]
        for node in architecture.split("+")
    ]
    network = Nats()
    channels = 16
    last = network.conv(-1, 3, channels, 3, has_relu=False)
    for stage in range(3):
        if stage:
            last = network.reduction(last, channels)
            channels *= 2
        for _ in range(5):
            last = network.cell(last, channels, edges)
    if network.steps[last].kind not in ("convolution", "pointwise"):  # otherwise the last norm is folded into it
        for _ in range(2):
            last = network.add("elementwise", ((last, False),), channels)
    last = network.add("pool", ((last, True),), channels)
    network.side = 1
    network.add("dense", ((last, False),), 10, 10 * channels)
    return network


# ---------------------------------------------------------------------------------------- by name


@dataclass(frozen=True)
class Architecture:
    """The pattern of its names, the family it is left out with, and the function that counts it."""

    pattern: str
    family: str
    build: Callable[[re.Match[str]], Graph | Nats]


SIZE = r" (?P<h>\d+)x(?P<w>\d+)x(?P<c>\d)"


def _side(match: re.Match[str]) -> int:
    return int(match["h"])


ARCHITECTURES = (
    Architecture(
        rf"MobileNet v1 (?P<a>[\d.]+)(?: \w+)?{SIZE}",
        "MobileNetV1",
        lambda m: mobilenet_v1(float(m["a"]), _side(m), int(m["c"])),
    ),
    Architecture(r"MobileNetV1-0\.25 96 \(MLPerf Tiny\)", "MobileNetV1", lambda m: mobilenet_v1(0.25, 96, 3, 2)),
    Architecture(r"person_detect(ion 96x96x1|\.tflite)", "MobileNetV1", lambda m: mobilenet_v1(0.25, 96, 1, 2)),
    Architecture(
        rf"MobileNet v2 (?P<a>[\d.]+)(?: \w+)?{SIZE}",
        "MobileNetV2",
        lambda m: mobilenet_v2(float(m["a"]), _side(m)),
    ),
    Architecture(
        r"mbv2-w(?P<a>[\d.]+)-r(?P<h>\d+)",
        "MobileNetV2",
        lambda m: mobilenet_v2(float(m["a"]), _side(m), 1000, int(1280 * float(m["a"]))),
    ),
    Architecture(
        r"mobilenetv2 (?P<a>[\d.]+) (?P<h>\d+)",
        "MobileNetV2",
        lambda m: mobilenet_v2(float(m["a"]), _side(m), 1000),
    ),
    Architecture(r"ResNet v1 8.*|ResNet-8 \(MLPerf Tiny\)|pretrainedResnet.*", "ResNet", lambda m: resnet(1, 10)),
    Architecture(r"ResNet v1 32.*", "ResNet", lambda m: resnet(5, 100)),
    Architecture(rf"ST FdMobileNet v1(?: tfs)?{SIZE}", "FD-MobileNet", lambda m: fd_mobilenet(ST_FD_ALPHAS, _side(m))),
    Architecture(rf"FdMobileNet 0\.25(?: tfs)?{SIZE}", "FD-MobileNet", lambda m: fd_mobilenet([0.25] * 12, _side(m))),
    Architecture(rf"SqueezeNet v1\.1(?: tfs)?{SIZE}", "SqueezeNet", lambda m: squeezenet_1_1(_side(m))),
    Architecture(rf"ST EfficientNet LC v1(?: tfs)?{SIZE}", "EfficientNet", lambda m: st_efficientnet_lc(_side(m))),
    Architecture(rf"(?:st_yolo_lc_v1|ST Yolo LC v1){SIZE}", "YOLO-LC", lambda m: st_yolo_lc(_side(m))),
    Architecture(rf"tiny_yolo_v2{SIZE}", "Tiny YOLOv2", lambda m: tiny_yolo_v2(_side(m))),
    Architecture(rf"(?:ST )?SSD Mobilenet v1 0\.25{SIZE}", "SSD MobileNetV1", lambda m: ssd_mobilenet_v1(_side(m))),
    Architecture(
        rf"SSD Mobilenet v2 0\.35 FPN-lite{SIZE}",
        "SSD MobileNetV2",
        lambda m: ssd_mobilenet_v2_fpnlite(_side(m)),
    ),
    Architecture(r"FC autoencoder \(MLPerf Tiny\)|ad01_int8\.tflite", "autoencoder", lambda m: autoencoder()),
    Architecture(r"DS-CNN \(MLPerf Tiny\)|kws_ref_model\.tflite", "DS-CNN", lambda m: ds_cnn()),
    Architecture(r"Yamnet 256 64x96x1", "YAMNet", lambda m: yamnet_256()),
    Architecture(r"miniresnet v2 1stacks 64x50x1", "MiniResNet", lambda m: miniresnet_v2()),
    Architecture(r"NATS (?P<architecture>\|.*\|)", "NATS-Bench", lambda m: nats(m["architecture"])),
)


def find(name: str) -> tuple[str, Work] | None:
    """The family and the work of the network that a measurement names; None if it is unknown."""
    for architecture in ARCHITECTURES:
        if (match := re.fullmatch(architecture.pattern, name)) is not None:
            return architecture.family, architecture.build(match).work
    return None
