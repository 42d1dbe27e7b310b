"""Errors of converters are reduced to one line with the operator and, if it is known, the line of the model."""

import pytest

from pretrim.deploy.vendor_errors import export_error

MLIR = (
    "Failed to run converter passes: /home/me/site-packages/timm/layers/eca.py:105:0: error: 'tfl.mul' op operands "
    "don't have broadcast-compatible shapes\n"
)
EXPORTED = """Failed to decompose the FX graph with ONNX decompositions.

While executing %pool : [num_users=1] = call_function[target=torch.ops.aten.adaptive_max_pool2d.default](args = (%x,))
Original traceback:
  File "net.py", line 3, in forward
No decomposition for it
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MLIR, "ValueError: 'tfl.mul' op operands don't have broadcast-compatible shapes (eca.py, line 105)"),
        (EXPORTED, "ValueError (operator aten.adaptive_max_pool2d.default): No decomposition for it"),
        ("", "ValueError"),
        ("plain words", "ValueError: plain words"),
    ],
    ids=["LiteRT's passes", "torch.export", "nothing", "plain"],
)
def test_the_error_of_a_converter_is_reduced_to_one_line(text: str, message: str) -> None:
    error = export_error("LiteRT", ValueError(text))
    assert str(error) == f"LiteRT did not take the network ({message}). Another runtime may."
