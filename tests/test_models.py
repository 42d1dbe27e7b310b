"""The built-in networks: sizes against hand-made sums and published figures, shapes, values at the start."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pretrim.models import BUILTIN

# One layer, by hand: in channels, filters, kernel side, output side, groups, has a bias, has a norm.
Layer = tuple[int, int, int, int, int, bool, bool]


def _alexnet_layers() -> Iterator[Layer]:
    # 32 -> (32 + 2*5 - 11) // 4 + 1 = 8 -> pool 4 -> pool 2 -> pool 1
    for in_channels, filters, kernel, side in [
        (3, 64, 11, 8),
        (64, 192, 5, 4),
        (192, 384, 3, 2),
        (384, 256, 3, 2),
        (256, 256, 3, 2),
    ]:
        yield in_channels, filters, kernel, side, 1, True, False
    yield 256, 10, 1, 1, 1, True, False


def _vgg16_layers() -> Iterator[Layer]:
    in_channels = 3
    for filters, count, side in [(64, 2, 32), (128, 2, 16), (256, 3, 8), (512, 3, 4), (512, 3, 2)]:
        for _ in range(count):
            yield in_channels, filters, 3, side, 1, True, True
            in_channels = filters
    yield 512, 10, 1, 1, 1, True, False


def _cifar_resnet_layers(blocks: int) -> Iterator[Layer]:
    yield 3, 16, 3, 32, 1, False, True
    in_channels = 16
    for filters, side in [(16, 32), (32, 16), (64, 8)]:
        yield in_channels, filters, 3, side, 1, False, True
        for _ in range(2 * blocks - 1):
            yield filters, filters, 3, side, 1, False, True
        if in_channels != filters:
            yield in_channels, filters, 1, side, 1, False, True  # projection shortcut
        in_channels = filters
    yield 64, 10, 1, 1, 1, True, False


def _resnet50_layers() -> Iterator[Layer]:
    yield 3, 64, 3, 32, 1, False, True
    in_channels, in_side = 64, 32
    for width, blocks, side in [(64, 3, 32), (128, 4, 16), (256, 6, 8), (512, 3, 4)]:
        yield in_channels, 4 * width, 1, side, 1, False, True  # projection shortcut
        for _ in range(blocks):
            yield in_channels, width, 1, in_side, 1, False, True  # the stride comes after it, at the 3x3
            yield width, width, 3, side, 1, False, True
            yield width, 4 * width, 1, side, 1, False, True
            in_channels, in_side = 4 * width, side
    yield 2048, 10, 1, 1, 1, True, False


def _mobilenetv2_layers() -> Iterator[Layer]:
    yield 3, 32, 3, 32, 1, False, True
    in_channels, in_side = 32, 32
    for expansion, filters, blocks, side in [
        (1, 16, 1, 32),
        (6, 24, 2, 32),
        (6, 32, 3, 16),
        (6, 64, 4, 8),
        (6, 96, 3, 8),
        (6, 160, 3, 4),
        (6, 320, 1, 4),
    ]:
        if in_side == side:
            yield in_channels, filters, 1, side, 1, False, True  # shortcut where the channels change
        for _ in range(blocks):
            hidden = expansion * in_channels
            yield in_channels, hidden, 1, in_side, 1, False, True
            yield hidden, hidden, 3, side, hidden, False, True
            yield hidden, filters, 1, side, 1, False, True
            in_channels, in_side = filters, side
    yield 320, 1280, 1, 4, 1, False, True
    yield 1280, 10, 1, 1, 1, True, False


LAYERS = {
    "alexnet": list(_alexnet_layers()),
    "vgg16": list(_vgg16_layers()),
    "resnet20": list(_cifar_resnet_layers(3)),
    "resnet56": list(_cifar_resnet_layers(9)),
    "resnet110": list(_cifar_resnet_layers(18)),
    "resnet50": list(_resnet50_layers()),
    "mobilenetv2": list(_mobilenetv2_layers()),
}

# name: exact parameters, exact MACs, published parameters, published MACs (None: in no source known to us).
# thop adds two for each value that a norm puts out, which is taken off here.
COUNTS = {
    # bearpaw/pytorch-classification, README: 2.47 M
    "alexnet": (2_472_266, 14_957_056, 2.47e6, None),
    # kuangliu/pytorch-cifar: 14,728,266; Li et al., arXiv 1608.08710, table 1: 3.13e8 MACs
    "vgg16": (14_728_266, 313_201_664, 14_728_266, 3.13e8),
    # He et al., arXiv 1512.03385, table 6: 0.27 M
    "resnet20": (272_474, 40_813_184, 0.27e6, None),
    # He et al., table 6: 0.85 M; Li et al., table 1: 1.25e8 MACs
    "resnet56": (855_770, 125_747_840, 0.85e6, 1.25e8),
    # He et al., table 6: 1.7 M; Li et al., table 1: 2.53e8 MACs
    "resnet110": (1_730_714, 253_149_824, 1.7e6, 2.53e8),
    # kuangliu/pytorch-cifar: 23,520,842; thop: 1,304.71 M MACs
    "resnet50": (23_520_842, 1_297_829_888, 23_520_842, 1304.71e6 - 2 * 3_432_448),
    # kuangliu/pytorch-cifar: 2,296,922; thop: 94.61 M MACs
    "mobilenetv2": (2_296_922, 91_154_944, 2_296_922, 94.61e6 - 2 * 1_724_928),
}


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_builtin_names() -> None:
    assert set(BUILTIN) == set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_parameters(name: str) -> None:
    by_hand = sum(
        filters * (in_channels // groups * kernel**2 + bias + 2 * norm)
        for in_channels, filters, kernel, _, groups, bias, norm in LAYERS[name]
    )
    exact, _, published, _ = COUNTS[name]
    assert _parameters(BUILTIN[name]()) == exact == by_hand
    assert exact == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize("name", COUNTS)
def test_macs(name: str) -> None:
    by_hand = sum(
        filters * in_channels // groups * kernel**2 * side**2
        for in_channels, filters, kernel, side, groups, _, _ in LAYERS[name]
    )
    _, exact, _, published = COUNTS[name]
    with torch.device("meta"):
        network, image = BUILTIN[name]().eval(), torch.empty(1, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        network(image)
    assert counter.get_total_flops() // 2 == exact == by_hand
    if published is not None:
        assert exact == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize("num_classes", [10, 100])
@pytest.mark.parametrize("name", COUNTS)
def test_forward_and_backward(name: str, num_classes: int) -> None:
    torch.manual_seed(0)
    network = BUILTIN[name](num_classes=num_classes)
    logits = network(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, num_classes)
    logits.square().sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize("name", COUNTS)
def test_one_channel_of_input(name: str) -> None:
    in_channels, filters, kernel, *_ = LAYERS[name][0]
    with torch.device("meta"):
        network = BUILTIN[name](in_channels=1)
        assert network(torch.empty(2, 1, 32, 32)).shape == (2, 10)
    assert _parameters(network) == COUNTS[name][0] - (in_channels - 1) * filters * kernel**2


@pytest.mark.parametrize("name", COUNTS)
def test_larger_images(name: str) -> None:
    with torch.device("meta"):
        assert BUILTIN[name]()(torch.empty(2, 3, 64, 64)).shape == (2, 10)


def _weight(network: nn.Module, kind: type[nn.Module], index: int) -> torch.Tensor:
    layer = [module for module in network.modules() if isinstance(module, kind)][index]
    assert isinstance(layer.weight, torch.Tensor)
    return layer.weight.detach()


@pytest.mark.parametrize(
    ("name", "index", "fan_out"),
    [
        ("vgg16", -1, 512 * 9),
        ("resnet20", -1, 64 * 9),
        ("resnet50", 0, 64 * 9),
        # the last depthwise convolution: groups do not shrink the fan-out that PyTorch computes
        ("mobilenetv2", -4, 960 * 9),
        ("mobilenetv2", -1, 1280),
    ],
)
def test_convolutions_start_normal_by_fan_out(name: str, index: int, fan_out: int) -> None:
    torch.manual_seed(0)
    weight = _weight(BUILTIN[name](), nn.Conv2d, index)
    # the standard error of an estimated standard deviation of n normal values is std / sqrt(2 n)
    tolerance = 4 / math.sqrt(2 * weight.numel())
    assert weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=tolerance)
    assert abs(weight.mean().item()) < 4 * math.sqrt(2 / fan_out / weight.numel())


def test_alexnet_starts_as_pytorch_makes_it() -> None:
    torch.manual_seed(0)
    weight = _weight(BUILTIN["alexnet"](), nn.Conv2d, 1)
    bound = 1 / math.sqrt(64 * 5 * 5)
    assert weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)


@pytest.mark.parametrize("name", ["vgg16", "mobilenetv2"])
def test_linear_layers_start_with_std_one_hundredth(name: str) -> None:
    torch.manual_seed(0)
    network = BUILTIN[name](num_classes=100)
    assert _weight(network, nn.Linear, 0).std().item() == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize("name", ["vgg16", "resnet56", "mobilenetv2"])
def test_signals_neither_die_nor_explode_at_the_start(name: str) -> None:
    torch.manual_seed(0)
    logits = BUILTIN[name]()(torch.randn(8, 3, 32, 32))
    assert 0.01 < logits.std().item() < 10
