"""What every test shares."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Networks of the tests' size are faster on one thread, and far faster where several workers share the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The commands of whole pages first: minutes each, and one that begins last leaves the other core idle."""
    items.sort(key=lambda item: "test_the_commands_of_a_page" not in item.name)
