"""What is tuned of an agent, and how far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gnncompose.errors import GnncomposeError

if TYPE_CHECKING:
    from optuna.trial import Trial

Value = float | int | str | bool | None
Settings = Mapping[str, Value]


@dataclass(frozen=True)
class Dial:
    """One setting that is tuned.

    Attributes:
        name: Its name below `agent`.
        low: Its least value.
        high: Its greatest; both whole make it a whole number.
        log: Whether it is drawn by its logarithm.
        choices: Its values, in place of a range.
    """

    name: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Value, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether it is a whole number."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: Value) -> bool:
        """Whether a value is one of its own."""
        if self.choices:
            return value in self.choices
        return isinstance(value, (int, float)) and not isinstance(value, bool) and self.low <= value <= self.high

    def ask(self, trial: Trial) -> Value:
        """Its value in a trial."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if self.is_whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


def read_space(document: Mapping[str, Any], above: str = "") -> list[Dial]:
    """The settings that a leaf of `conf/space/` names: ranges as `{low, high, log}`, or `{choices}`.

    Raises:
        GnncomposeError: An entry is neither.
    """
    dials: list[Dial] = []
    for key, entry in document.items():
        name = f"{above}{key}"
        if not isinstance(entry, Mapping):
            raise GnncomposeError(f"space.{name}: is no range; write {{low: 1, high: 8}} or {{choices: [1, 2]}}")
        if "choices" in entry:
            dial = Dial(name, choices=tuple(entry["choices"]))
            rest, is_sound = set(entry) - {"choices"}, len(dial.choices) > 0
        elif "low" in entry or "high" in entry:
            low, high, log = entry.get("low"), entry.get("high"), bool(entry.get("log", False))
            rest, dial, is_sound = set(entry) - {"low", "high", "log"}, Dial(name), False
            if isinstance(low, (int, float)) and isinstance(high, (int, float)):
                dial, is_sound = Dial(name, low, high, log), low < high and (low > 0 or not log)
        else:
            dials += read_space(entry, f"{name}.")
            continue
        if rest or not is_sound:
            raise GnncomposeError(
                f"space.{name}: is no range; write {{low: 1, high: 8}}, with log: true where low is over 0, "
                f"or {{choices: [1, 2]}}"
            )
        dials.append(dial)
    if not dials and not above:
        raise GnncomposeError("space: names no setting; write one or more into conf/space/AGENT.yaml")
    return dials
