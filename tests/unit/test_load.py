"""How requests arrive: the text form, what is sampled, the queue, and that timing opens no file."""

import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnncompose.errors import EvaluationError
from gnncompose.execution import latency
from gnncompose.execution.latency import Effort, Rounds, sample_rows, time_rounds
from gnncompose.execution.load import (
    Load,
    Offline,
    Server,
    SingleStream,
    parse_load,
    poisson_arrivals_ns,
    queue_completions_ns,
)

BASELINE_NS = 10_000.0
QUICK = Effort(rows=6, repeats=3, seconds=0.0)
X = np.arange(40, dtype=np.float32).reshape(20, 2)


class FakeRun:
    """FAKE: answers rows with themselves and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[np.ndarray] = []

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.asked.append(x)
        return x


@pytest.mark.parametrize(
    ("text", "name", "batch"),
    [
        ("single_stream", "single_stream", 1),
        (" offline:064 ", "offline:64", 64),
        ("server:200", "server:200", 1),
        ("server:2e2", "server:200", 1),
        ("server:0.10", "server:0.1", 1),
    ],
)
def test_parse_load__gives_one_name_to_equal_loads(text: str, name: str, batch: int) -> None:
    load = parse_load(text)
    assert (load.name, load.batch) == (name, batch)
    assert parse_load(load.name) == load


@given(st.one_of(st.builds(Offline, st.integers(1, 65536)), st.builds(Server, st.floats(1e-6, 1e8))))
def test_parse_load__reads_every_name_back(load: Load) -> None:
    assert parse_load(load.name) == load


@pytest.mark.parametrize(
    "text",
    [
        "",
        "stream",
        "single_stream:1",
        "offline",
        "offline:",
        "offline:0",
        "offline:1.5",
        "offline:-3",
        "offline:99999",
        "server",
        "server:",
        "server:0",
        "server:-1",
        "server:nan",
        "server:inf",
        "server:fast",
        "Server:1",
    ],
)
def test_parse_load__nonsense_is_one_clear_line(text: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        parse_load(text)
    assert "\n" not in str(caught.value)
    assert f'"{text}"' in str(caught.value)


def test_single_stream__runs_the_sampled_rows_one_by_one() -> None:
    run = FakeRun()
    timing = SingleStream().time(run, X, QUICK, 1, BASELINE_NS)
    assert timing.samples_ms.shape == (6, 3)
    assert {len(x) for x in run.asked} == {1}
    assert {float(x[0, 0]) for x in run.asked} == set(X[sample_rows(20, 6), 0].tolist())
    assert timing.throughput_per_s == pytest.approx(1000 / np.median(timing.samples_ms, axis=1).mean())


@pytest.mark.parametrize(("batch", "batches"), [(2, 4), (8, 4), (1, 6)])
def test_offline__runs_whole_batches_and_counts_rows(batch: int, batches: int) -> None:
    run = FakeRun()
    timing = Offline(batch).time(run, X, QUICK, 1, BASELINE_NS)
    assert timing.samples_ms.shape == (batches, 3)
    assert {len(x) for x in run.asked} == {batch}
    assert timing.throughput_per_s == pytest.approx(1000 * batch / np.median(timing.samples_ms, axis=1).mean())


@pytest.mark.parametrize("load", [SingleStream(), Offline(4), Server(10.0)], ids=lambda load: load.name)
def test_load__times_the_same_rows_of_a_sample_as_of_all(load: Load) -> None:
    some, every = FakeRun(), FakeRun()
    load.time(every, X, QUICK, 1, BASELINE_NS)
    load.time(some, X[sample_rows(len(X), load.rows(QUICK))], QUICK, 1, BASELINE_NS)
    assert {x.tobytes() for x in some.asked} == {x.tobytes() for x in every.asked}


def test_server__gives_a_latency_per_arrival_and_the_offered_throughput() -> None:
    timing = Server(50.0).time(FakeRun(), X, Effort(rows=6, repeats=20, seconds=0.0), 1, BASELINE_NS)
    assert timing.samples_ms.shape == (120, 1)
    arrivals_ns = poisson_arrivals_ns(50.0, 120)
    assert timing.throughput_per_s == pytest.approx(120 / (arrivals_ns[-1] / 1e9), rel=0.05)


def test_server__load_that_cannot_be_sustained_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"server:500000000: a row takes .* give a rate of at most \d+"):
        Server(5e8).time(FakeRun(), X, QUICK, 1, BASELINE_NS)


def test_poisson_arrivals__are_the_same_for_all_and_scale_with_the_rate() -> None:
    slow, fast = poisson_arrivals_ns(10.0, 20_000), poisson_arrivals_ns(1000.0, 20_000)
    np.testing.assert_allclose(slow, fast * 100)
    gaps_s = np.diff(slow) / 1e9
    assert gaps_s.mean() == pytest.approx(0.1, rel=0.03)
    assert gaps_s.std() == pytest.approx(0.1, rel=0.05)  # an exponential's deviation is its mean


def test_queue__hand_computed() -> None:
    arrivals, service = np.array([0.0, 1, 2, 10, 10]), np.array([3.0, 1, 1, 2, 2])
    np.testing.assert_array_equal(queue_completions_ns(arrivals, service), [3, 4, 5, 12, 14])


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.1, 10)), min_size=1, max_size=40))
def test_queue__serves_in_order_and_never_idles_while_one_waits(requests: list[tuple[float, float]]) -> None:
    arrivals = np.cumsum([gap for gap, _ in requests])
    service = np.array([time for _, time in requests])
    done = queue_completions_ns(arrivals, service)
    begun = done - service
    before = np.concatenate([[0.0], done[:-1]])
    np.testing.assert_allclose(begun, np.maximum(arrivals, before), atol=1e-9)


@pytest.mark.parametrize("utilisation", [0.3, 0.7])
def test_queue__mean_wait_is_that_of_theory(utilisation: float) -> None:
    arrivals = poisson_arrivals_ns(1e9, 400_000)
    service = np.full(len(arrivals), utilisation)
    wait = (queue_completions_ns(arrivals, service) - arrivals - service).mean()
    assert wait == pytest.approx(utilisation * utilisation / (2 * (1 - utilisation)), rel=0.05)  # Pollaczek-Khinchine


def test_rounds__effort_says_how_many() -> None:
    requests = list(range(4))
    least = time_rounds(lambda request: request, requests, Effort(repeats=3, seconds=0.0), 1, BASELINE_NS)
    assert least.wall_ns.shape == least.cpu_ns.shape == (3, 4)
    enough = time_rounds(lambda request: request, requests, Effort(repeats=3, seconds=60.0), 1, BASELINE_NS)
    assert enough.wall_ns.shape == (166, 4)  # 664 samples tell a p99


def test_rounds__one_in_which_the_core_was_taken_is_run_again() -> None:
    calls: list[int] = []

    def run(request: int) -> None:
        calls.append(request)
        if 12 < len(calls) <= 16:  # the first round, after ten runs to warm up: the process does not have the core
            time.sleep(0.2)

    rounds = time_rounds(run, [0, 1, 2, 3], Effort(repeats=3, seconds=0.0), 1, BASELINE_NS)
    assert rounds.wall_ns.shape == (3, 4)
    assert rounds.wall_ns.max() < 0.15e9 * BASELINE_NS / rounds.reference_ns.min()


def test_rounds__a_machine_that_is_never_steady_is_waited_for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(latency.time, "sleep", pauses.append)
    rounds = time_rounds(lambda request: request, [0], Effort(repeats=400, seconds=0.0), 1, BASELINE_NS / 1e6)
    assert rounds.wall_ns.shape == (400, 1)
    assert sum(pauses) == pytest.approx(1.0)


def some_rounds(wall: np.ndarray, cpu: np.ndarray | None = None, reference: np.ndarray | None = None) -> Rounds:
    return Rounds(wall, wall if cpu is None else cpu, np.full((4, 3), 9.0) if reference is None else reference)


def test_rounds__noise_is_one_on_a_steady_machine_however_rows_differ() -> None:
    rows = np.random.default_rng(0).uniform(1, 50, size=70)
    assert some_rounds(np.tile(rows, (10, 1))).noise == pytest.approx(1.0)


def test_rounds__noise_tells_interrupted_requests_and_a_slow_reference() -> None:
    steady = np.full((10, 70), 10.0)
    interrupted = steady.copy()
    interrupted.flat[::50] = 400.0  # 2 % of the requests
    assert some_rounds(interrupted).noise == pytest.approx(40.0)
    reference = np.full(100, 10.0)
    reference[:10] = 25.0
    assert some_rounds(steady, reference=reference).noise == pytest.approx(2.5)


def test_rounds__cpu_time_is_the_mean_of_lower_quartiles() -> None:
    cpu = np.array([[1.0, 10], [2, 20], [3, 30], [4, 40], [500, 5000]])
    assert some_rounds(cpu * 2, cpu).mean_cpu_ns == pytest.approx((2 + 20) / 2)


NO_FILES = """
import sys
import numpy as np
from gnncompose.execution import latency
from gnncompose.execution.latency import Effort
from gnncompose.execution.load import parse_load
from gnncompose.execution.reference import reference
reference()

def forbid(event, arguments):
    if event in ("open", "os.open", "os.listdir", "os.scandir", "subprocess.Popen", "socket.connect"):
        raise SystemExit(f"timing touched the outside: {event} {arguments}")

sys.addaudithook(forbid)
x = np.ones((20, 2), dtype=np.float32)
for name in ("single_stream", "offline:4", "server:1000"):
    parse_load(name).time(lambda rows: rows + 1, x, Effort(rows=4, repeats=3, seconds=0.05), 1, 1e4)
print("done")
"""


def test_load__timing_opens_no_file() -> None:
    done = subprocess.run([sys.executable, "-c", NO_FILES], capture_output=True, text=True, check=False)
    assert done.stdout == "done\n", done.stderr
