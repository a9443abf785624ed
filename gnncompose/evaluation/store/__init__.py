"""The evaluation store: what was measured once need not be measured again, in this run or another."""

from gnncompose.evaluation.store.key import Key
from gnncompose.evaluation.store.store import EvaluationStore

__all__ = ["EvaluationStore", "Key"]
