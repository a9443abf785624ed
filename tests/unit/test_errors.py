"""Messages are one line that a terminal prints as it stands, whatever names stand in them."""

import pickle

import pytest

from gnncompose.errors import LONGEST_MESSAGE, CatalogError, EvaluationError, GnncomposeError


@pytest.mark.parametrize(
    "text", ["two\nlines", "a\x1b[31mred", "half \ud800", "a\u2028b", "nul\0", "x" * 10**7, "tab\tb"]
)
def test_error__is_one_printable_line(text: str) -> None:
    message = str(EvaluationError(text))
    assert message.isprintable()
    assert len(message) <= LONGEST_MESSAGE + 3
    message.encode()


def test_error__keeps_what_is_one_line_already() -> None:
    text = 'catalog.yaml: operators[3] "cnn_small": input type image[8,8,1] … ± 1e-3; fix the entry'
    assert str(CatalogError(text)) == text


def test_error__passes_between_processes() -> None:
    error = pickle.loads(pickle.dumps(CatalogError("what; mend")))
    assert type(error) is CatalogError
    assert str(error) == "what; mend"
    assert isinstance(error, GnncomposeError)
