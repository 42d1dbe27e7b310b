"""Records from files are read as written, or refused with one line that names the file and the entry."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrim import records
from pretrim.errors import ArtifactError, CheckpointError, PretrimError


@dataclass(frozen=True)
class Layer:
    name: str
    width: Annotated[int, msgspec.Meta(ge=1)]


@dataclass(frozen=True)
class Example:
    kind: Literal["a", "b"]
    share: float
    shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    path: Path
    trained: bool
    extra: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.share > 1:
            raise ValueError(f"share is {self.share}, more than the whole")


GOOD: dict[str, Any] = {
    "kind": "a",
    "share": 0.5,
    "shape": [1, 2],
    "layers": [{"name": "one", "width": 3}],
    "path": "somewhere/file",
    "trained": True,
    "extra": {"anything": [1, None, {"x": 0.25}]},
}


def parse(data: Any) -> Example:
    text = data if isinstance(data, bytes | str) else json.dumps(data)
    return records.parse(text, Example, source="file.json", error=ArtifactError, remedy="export again")


def test_a_record_comes_back_typed() -> None:
    example = parse(GOOD)
    assert example == Example("a", 0.5, (1, 2), (Layer("one", 3),), Path("somewhere/file"), True, GOOD["extra"])
    assert type(example.share) is float
    assert parse(GOOD | {"path": "not\udcffutf8"}).path == Path("not\udcffutf8")
    assert parse({**GOOD, "of_a_newer_version": 1}) == example
    assert parse({name: value for name, value in GOOD.items() if name != "extra"}).extra is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "c"}, "at $.kind, invalid enum value 'c'"),
        ({"kind": "\x1b[31m"}, r"at $.kind, invalid enum value '\x1b[31m'"),
        ({"extra": {"\x1b[31m": 10**30}}, "at $.extra. [31m, expected an integer"),
        ({"share": True}, "at $.share, expected `float`, got `bool`"),
        ({"share": "0.5"}, "at $.share, expected `float`, got `str`"),
        ({"share": 2.0}, "damaged: share is 2.0, more than the whole"),
        ({"shape": [1, True]}, "at $.shape[1], expected `int`, got `bool`"),
        ({"shape": [1, 2.5]}, "at $.shape[1], expected `int`, got `float`"),
        ({"shape": None}, "at $.shape, expected `array`, got `null`"),
        ({"shape": [1, 2**63]}, "at $.shape[1], expected an integer of at most 64 bits, got a larger one"),
        ({"layers": [{"name": "one"}]}, "at $.layers[0], object missing required field `width`"),
        ({"layers": [{"name": "one", "width": 0}]}, "at $.layers[0].width, expected `int` >= 1"),
        ({"path": 3}, "at $.path, expected `Path`, got `int`"),
        ({"extra": {"deep": [float("nan")]}}, "NaN is not a number that JSON can hold"),
        ({"extra": {"big": [10**30]}}, "at $.extra.big[0], expected an integer of at most 64 bits"),
    ],
    ids=str,
)
def test_a_wrong_entry_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        parse(GOOD | change)
    text = str(caught.value)
    assert message in text and text.startswith("file.json is ") and text.endswith(" Export again.") and "\n" not in text


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff",
        b'{"share": 1e999}',
        b'{"a": ' + b"[" * 100_000,
        b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"a": ' + b"1" * 5000 + b"}",
        b'{"a": -Infinity}',
        b"[]",
        b"null",
        b'{"kind": "a"} x',
        b'"text\nof two lines"',
    ],
    ids=lambda text: str(text[:20]),
)
def test_text_that_is_not_a_record_gives_a_one_line_error(text: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"^file\.json is (not valid JSON \(.*\)|damaged: .*)\. Export again\.$"):
        parse(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(GOOD)), json_values)
def test_any_value_in_any_field_has_the_declared_type_or_is_refused(name: str, value: Any) -> None:
    """Only a PretrimError is raised, and accepted values have the declared types."""
    try:
        example = parse(GOOD | {name: value})
    except PretrimError as error:
        assert "\n" not in str(error) and str(error).startswith("file.json is ")
        return
    assert type(example.share) is float and type(example.trained) is bool and example.kind in ("a", "b")
    assert all(type(size) is int for size in example.shape) and isinstance(example.path, Path)
    assert parse(json.dumps(asdict(example), default=str)) == example


def test_nan_is_refused_in_records_that_are_already_decoded() -> None:
    with pytest.raises(
        CheckpointError, match=r"^state is damaged: at \$\.share, expected a finite number, got nan\. Start"
    ):
        records.convert(
            GOOD | {"share": float("nan")}, Example, source="state", error=CheckpointError, remedy="start again"
        )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "file.json is not a pretrim-x record: check the path."),
        ({"format": "other", "version": 1}, "file.json is not a pretrim-x record: check the path."),
        ({"format": "pretrim-x"}, "file.json is damaged: at $.version, expected a version from 1 to 2, got None."),
        ({"format": "pretrim-x", "version": True}, "file.json is damaged: at $.version, expected a version"),
        ({"format": "pretrim-x", "version": 3}, "file.json is of version 3, and this pretrim reads up to 2: update"),
    ],
)
def test_the_header_distinguishes_foreign_files_from_newer_versions(data: Any, message: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        records.check_header(data, "pretrim-x", 2, source="file.json", error=ArtifactError)
    assert str(caught.value).startswith(message)
    records.check_header({"format": "pretrim-x", "version": 2}, "pretrim-x", 2, source="x", error=ArtifactError)
