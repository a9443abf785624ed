"""Labels are of the kind that a task's rows have."""

import pytest

from gnncompose.catalog.operator import PortType
from gnncompose.deployment.labels import LabelError, check_labels

KINDS = {
    "classes": ("probs float32[N,3]", [0, 1, 2], [3, -1, "a", 1.0, True, None]),
    "any number of classes": ("probs float32[N,C]", [0, 99], [-1, "a", 1.5]),
    "text": ("text str[N]", ["", "a"], [1, 2.0, None, False]),
    "numbers": ("table float32[N,1]", [1, -2.5], ["1", None, True, float("nan")]),
}
WRONG = [(kind, good, label) for kind, good, wrong in KINDS.values() for label in wrong]


@pytest.mark.parametrize(("kind", "good"), [(kind, good) for kind, good, _ in KINDS.values()], ids=KINDS)
def test_check_labels__takes_those_of_the_task(kind: str, good: list[object]):
    check_labels(range(len(good)), good, PortType.parse(kind))


@pytest.mark.parametrize(("kind", "good", "label"), WRONG)
def test_check_labels__names_the_first_that_is_none(kind: str, good: list[object], label: object):
    with pytest.raises(LabelError, match="row 11 has") as problem:
        check_labels([10, 11, 12], [good[0], label, label], PortType.parse(kind))
    assert repr(label) in str(problem.value)
