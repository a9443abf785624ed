"""Writes, for a composition, the straight-line code that an engineer would write by hand with `session.run`.

Every distinct node runs once; a cascade at the root answers confident rows early and runs later stages on the
others only. This is the contender that plans and merged models are measured against.
"""

from collections.abc import Callable

import numpy as np

from gnncompose.composition.tree import Expression, Input, Node
from gnncompose.execution.sessions import SessionPool

Answer = Callable[[np.ndarray], np.ndarray]


def chained(root: Node, sessions: SessionPool) -> Answer:
    """Compile the hand-written chain of a composition whose only cascade, if any, is its root."""
    writer = _Writer(sessions)
    if root.operator.kind == "cascade":
        writer.cascade(root)
    else:
        writer.lines.append(f"return {writer.value(root, 0)}")
    source = "def answer(x):\n" + "\n".join(f"    {line}" for line in writer.lines)
    exec(compile(source, "<chained>", "exec"), writer.names)  # our own text: nothing in it comes from a file
    return writer.names["answer"]


class _Writer:
    def __init__(self, sessions: SessionPool) -> None:
        self.sessions = sessions
        self.lines: list[str] = []
        self.names: dict = {"np": np}
        self.known: dict[tuple[str, int], str] = {("input", 0): "x"}
        self.values = 0

    def line(self, text: str) -> None:
        self.lines.append(text)

    def value(self, expression: Expression, stage: int) -> str:
        """Name of the variable that holds a value on the rows that reach a stage."""
        key = expression.id, stage
        if key in self.known:
            return self.known[key]
        self.values += 1
        name = f"v{self.values}"
        if stage and any((expression.id, earlier) in self.known for earlier in range(stage)):
            self.line(f"{name} = {self.value(expression, stage - 1)}[rows{stage}]")
        else:
            assert not isinstance(expression, Input)
            inputs = [self.value(child, stage) for child in expression.inputs]
            self.line(f"{name} = {self.apply(expression, inputs)}")
        self.known[key] = name
        return name

    def apply(self, node: Node, inputs: list[str]) -> str:
        joined = ", ".join(inputs)
        match node.operator.builtin:
            case "mean":
                return f"({' + '.join(inputs)}) / np.float32({len(inputs)})"
            case "weighted_mean":
                weights = np.array(node.parameter("weights")) / sum(node.parameter("weights"))
                return " + ".join(f"{i} * np.float32({w})" for i, w in zip(inputs, weights, strict=True))
            case "vote":
                return f"np.mean([np.eye({node.type.axes[1]}, dtype=np.float32)[p.argmax(1)] for p in ({joined})], 0)"
            case "max_confidence":
                self.line(f"s = np.stack([{joined}])")
                return "s[s.max(2).argmax(0), np.arange(s.shape[1])]"
        operator = node.operator
        session = f"s{len(self.names)}"
        self.names[session] = self.sessions.session(operator)
        feed = [f"{port.name!r}: {value}" for port, value in zip(operator.inputs, inputs, strict=True)]
        for parameter, number in node.parameters:
            constant = f"c{len(self.names)}"
            self.names[constant] = np.array(number, dtype=np.float32)
            feed.append(f"{parameter!r}: {constant}")
        return f"{session}.run([{operator.outputs[0].name!r}], {{{', '.join(feed)}}})[0]"

    def cascade(self, root: Node) -> None:
        last = len(root.inputs) - 1
        threshold = float(np.float32(root.parameter("threshold")))
        self.line(f"answers = {self.value(root.inputs[0], 0)}")
        self.line("reached = np.arange(len(x))")
        for stage in range(1, last + 1):
            here = self.value(root.inputs[stage - 1], stage - 1)
            self.line(f"unsure = {here}.max(axis=1) < np.float32({threshold!r})")
            self.line("if not unsure.any(): return answers")
            self.line(f"rows{stage} = np.flatnonzero(unsure)")
            self.line(f"reached = reached[rows{stage}]")
            result = self.value(root.inputs[stage], stage)
            self.line("answers = answers.copy()")
            self.line(f"answers[reached] = {result}")
        self.line("return answers")
