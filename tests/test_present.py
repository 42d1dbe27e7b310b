"""What is shown, on a terminal and in a pipe."""

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pretrim.present.text import show_line

WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=12), min_size=1, max_size=20)


@given(words=WORDS, width=st.integers(12, 60), is_terminal=st.booleans())
def test_sentences_break_between_words_and_only_on_a_terminal(words: list[str], width: int, is_terminal: bool) -> None:
    file = io.StringIO()
    show_line(Console(file=file, width=width, force_terminal=is_terminal), " ".join(words))
    lines = file.getvalue().splitlines()
    assert " ".join(lines).split() == words
    assert max(map(len, lines)) <= width if is_terminal else len(lines) == 1
