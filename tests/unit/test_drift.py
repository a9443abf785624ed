import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnncompose.adaptation.detectors import BLOCK, Adwin, Detector, PageHinkley, PopulationStability, stability_index
from gnncompose.adaptation.drift import Alarm, DriftMonitor, Reference
from gnncompose.adaptation.statistics import Ranks, confidences, fit_inputs
from gnncompose.errors import GnncomposeError

Draw = Callable[[np.random.Generator, int], np.ndarray]


def table(generator: np.random.Generator, rows: int) -> np.ndarray:
    """Columns in units far apart, one of them constant, one of few values."""
    x = generator.normal([0, 1000, 0.001, 5], [1, 50, 0.0001, 2], size=(rows, 4)).astype(np.float32)
    x[:, 0] = 7
    x[:, 3] = x[:, 3].round()
    return x


def images(generator: np.random.Generator, rows: int) -> np.ndarray:
    """A bright square that moves a little, on a ground that is always 0."""
    x = np.zeros((rows, 1, 8, 8), dtype=np.float32)
    x[:, :, 2:6, 2:6] = generator.uniform(0.5, 1, size=(rows, 1, 4, 4))
    return x


def texts(generator: np.random.Generator, rows: int) -> np.ndarray:
    return np.array(["w" * length for length in generator.poisson(30, size=rows)])


def answers(generator: np.random.Generator, rows: int, concentration: float = 0.3) -> np.ndarray:
    return generator.dirichlet(np.full(5, concentration), size=rows).astype(np.float32)


def errors(generator: np.random.Generator, rows: int, rate: float = 0.05) -> np.ndarray:
    return (generator.random(rows) < rate).astype(float)


def reference(draw: Draw = table, rows: int = 1000, seed: int = 0) -> Reference:
    generator = np.random.default_rng(seed)
    return Reference(draw(generator, rows), answers(generator, rows), errors(generator, rows))


def watched(monitor: DriftMonitor, x: np.ndarray, given: np.ndarray, wrong: np.ndarray, portion: int) -> list[Alarm]:
    found = []
    for start in range(0, len(x), portion):
        before, part = monitor.rows, slice(start, start + portion)
        found += monitor.update(x[part], given[part])
        found += monitor.update_errors(np.arange(before, monitor.rows), wrong[part])
    return found


@pytest.mark.parametrize("draw", [table, images, texts])
def test_monitor__is_silent_where_nothing_changes(draw: Draw) -> None:
    generator, alarms, rows = np.random.default_rng(1), [], 4000
    for seed in range(5):
        monitor = DriftMonitor(reference(draw, seed=100 + seed))
        alarms += watched(monitor, draw(generator, rows), answers(generator, rows), errors(generator, rows), 500)
    assert alarms == []


def test_monitor__errs_more_often_where_it_is_allowed_to() -> None:
    def count(rows_between_false_alarms: int) -> int:
        generator, own = np.random.default_rng(2), reference()
        monitor, alarms = DriftMonitor(own, rows_between_false_alarms=rows_between_false_alarms), 0
        for _ in range(200):
            if monitor.update(table(generator, 100), answers(generator, 100)):
                alarms += 1
                monitor.rebase(own)
        return alarms

    # 20,000 rows: at most 40 alarms are allowed, or one in five such runs
    assert count(100_000) <= 1
    assert 2 <= count(500) <= 40


def _shifted(x: np.ndarray) -> np.ndarray:
    return x + np.array([0, 100, 0, 0], np.float32)


def _gone(x: np.ndarray) -> np.ndarray:
    return np.where(np.arange(4) == 2, np.nan, x)


def _moving_constant(x: np.ndarray) -> np.ndarray:
    return x + (np.arange(4) == 0)


@pytest.mark.parametrize("change", [_shifted, _gone, _moving_constant], ids=lambda change: change.__name__)
@pytest.mark.parametrize("detector", [Adwin(), PageHinkley(), PopulationStability()], ids=lambda d: d.name)
def test_detector__notices_a_table_that_changes(detector: Detector, change: Callable) -> None:
    generator = np.random.default_rng(3)
    monitor = DriftMonitor(reference(), [detector])
    assert monitor.update(table(generator, 800), answers(generator, 800)) == ()
    found = monitor.update(change(table(generator, 512)), answers(generator, 512))
    assert found
    assert all(alarm.detector == detector.name and 800 <= alarm.row < 800 + 512 for alarm in found)


@pytest.mark.parametrize(
    ("change", "signal"),
    [
        (lambda x, g: x + g.normal(0, 0.3, x.shape).astype(np.float32), "roughness"),
        (lambda x, g: np.roll(x, 2, axis=3), "extreme"),
        (lambda x, g: 0.5 * x, "mean"),
    ],
    ids=["noise", "moved", "dark"],
)
def test_monitor__notices_images_that_change(change: Callable, signal: str) -> None:
    generator = np.random.default_rng(4)
    monitor = DriftMonitor(reference(images))
    assert monitor.update(images(generator, 800), answers(generator, 800)) == ()
    found = monitor.update(change(images(generator, 100), generator), answers(generator, 100))
    assert signal in {alarm.signal for alarm in found}


def test_monitor__notices_texts_that_get_shorter() -> None:
    generator = np.random.default_rng(5)
    monitor = DriftMonitor(reference(texts))
    found = monitor.update(np.array([text[:20] for text in texts(generator, 100)]), answers(generator, 100))
    assert {alarm.signal for alarm in found} == {"length"}


def test_monitor__notices_answers_that_get_less_sure_and_nothing_else() -> None:
    generator = np.random.default_rng(6)
    monitor = DriftMonitor(reference())
    found = monitor.update(table(generator, 200), answers(generator, 200, concentration=3))
    assert {alarm.signal for alarm in found} == {"confidence"}
    assert all("confidence" in alarm.message and str(alarm.row) in alarm.message for alarm in found)


def test_monitor__notices_a_change_that_was_there_from_the_first_row() -> None:
    generator = np.random.default_rng(7)
    found = DriftMonitor(reference()).update(_shifted(table(generator, 96)), answers(generator, 96))
    assert "Page-Hinkley" in {alarm.detector for alarm in found}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 70), min_size=1, max_size=30), st.integers(0, 2**32 - 1))
def test_monitor__does_not_mind_the_portions_in_which_rows_come(portions: list[int], seed: int) -> None:
    generator, rows = np.random.default_rng(seed), 700
    x = np.concatenate([table(generator, 200), _shifted(table(generator, 500))])
    x[generator.random(x.shape) < 0.02] = np.nan
    given_, wrong = answers(generator, rows), errors(generator, rows, 0.5)
    whole = watched(DriftMonitor(reference()), x, given_, wrong, rows)
    alone = watched(DriftMonitor(reference()), x, given_, wrong, 1)
    monitor, mixed, start = DriftMonitor(reference()), [], 0
    for portion in [*portions, rows]:
        part = slice(start, start + portion)
        mixed += monitor.update(x[part], given_[part])
        start = min(start + portion, rows)
    assert sorted(map(repr, whole)) == sorted(map(repr, alone)) != []
    assert list(map(repr, mixed)) == [repr(alarm) for alarm in whole if alarm.signal != "error"]


def test_monitor__keeps_rows_though_the_caller_uses_its_buffers_again() -> None:
    generator = np.random.default_rng(8)
    x, given_ = _shifted(table(generator, 320)), answers(generator, 320)
    expected = DriftMonitor(reference()).update(x, given_)
    monitor, buffers, found = DriftMonitor(reference()), (np.empty_like(x[:1]), np.empty_like(given_[:1])), []
    for row in range(len(x)):
        buffers[0][:], buffers[1][:] = x[row], given_[row]
        found += monitor.update(*buffers)
    assert tuple(found) == expected != ()


def test_monitor__gives_each_alarm_once_until_it_is_rebased() -> None:
    generator = np.random.default_rng(9)
    monitor = DriftMonitor(reference())
    x, given_ = _shifted(table(generator, 3000)), answers(generator, 3000)
    first = monitor.update(x, given_)
    keys = [(alarm.signal, alarm.detector) for alarm in first]
    assert len(keys) == len(set(keys)) > 1
    monitor.rebase(reference())
    again = monitor.update(x, given_)
    assert [(alarm.signal, alarm.detector) for alarm in again] == keys
    assert [alarm.row - 3000 for alarm in again] == [alarm.row for alarm in first]


def test_rebase__makes_the_new_state_the_normal_one() -> None:
    generator = np.random.default_rng(10)
    monitor, new = DriftMonitor(reference()), reference(lambda g, rows: _shifted(table(g, rows)))
    monitor.update(_shifted(table(generator, 400)), answers(generator, 400))
    monitor.rebase(new)
    assert monitor.update(_shifted(table(generator, 4000)), answers(generator, 4000)) == ()
    assert monitor.update(table(generator, 200), answers(generator, 200))


def test_rebase__forgets_rows_and_errors_that_wait() -> None:
    def after(monitor: DriftMonitor) -> tuple[Alarm, ...]:
        generator, base = np.random.default_rng(11), monitor.rows
        monitor.update(table(generator, 320), answers(generator, 320))
        return monitor.update_errors(np.arange(base, base + 320), errors(generator, 320, 0.5))

    used, fresh, generator = DriftMonitor(reference()), DriftMonitor(reference()), np.random.default_rng(12)
    used.update(_shifted(table(generator, 64 + 31)), answers(generator, 64 + 31))
    used.update_errors(np.arange(31), np.ones(31))
    used.rebase(reference())
    assert used.update_errors(np.arange(31, 95), np.ones(64)) == ()  # of what the old composition answered
    expected = after(fresh)
    assert [(a.signal, a.detector, a.row - 95, a.value) for a in after(used)] == [
        (a.signal, a.detector, a.row, a.value) for a in expected
    ]
    assert {alarm.signal for alarm in expected} == {"error"}


def test_errors__may_come_late_and_out_of_order() -> None:
    generator, rows = np.random.default_rng(13), 1600
    wrong = np.concatenate([errors(generator, 800), errors(generator, 800, 0.6)])
    in_order, shuffled = DriftMonitor(reference()), DriftMonitor(reference())
    for monitor in (in_order, shuffled):
        assert monitor.update(table(generator, rows), answers(generator, rows)) == ()
    expected = in_order.update_errors(np.arange(rows), wrong)
    found = []
    for start in range(0, rows, BLOCK):
        order = start + generator.permutation(BLOCK)
        for part in np.split(order, [5, 6, 20]):
            found += shuffled.update_errors(part, wrong[part])
    assert tuple(found) == expected
    assert {alarm.signal for alarm in expected} == {"error"}
    assert all(800 <= alarm.row < 1000 for alarm in expected)


def test_errors__of_a_composition_that_never_erred_are_noticed() -> None:
    generator, own = np.random.default_rng(14), reference()
    monitor = DriftMonitor(Reference(own.x, own.answers, np.zeros(400)))
    monitor.update(table(generator, 640), answers(generator, 640))
    assert monitor.update_errors(np.arange(320), np.zeros(320)) == ()
    assert monitor.update_errors(np.arange(320, 640), errors(generator, 320, 0.3))


def test_update_errors__refuses_what_cannot_be() -> None:
    generator, own = np.random.default_rng(15), reference()
    monitor = DriftMonitor(own)
    monitor.update(table(generator, 10), answers(generator, 10))
    with pytest.raises(ValueError, match="among the 10"):
        monitor.update_errors(np.array([10]), np.array([1.0]))
    with pytest.raises(ValueError, match="between 0 and 1"):
        monitor.update_errors(np.array([3]), np.array([math.nan]))
    unlabelled = DriftMonitor(Reference(own.x, own.answers))
    unlabelled.update(table(generator, 10), answers(generator, 10))
    with pytest.raises(ValueError, match="no errors"):
        unlabelled.update_errors(np.array([3]), np.array([1.0]))


def test_update__refuses_rows_of_another_shape_and_stays_usable() -> None:
    generator = np.random.default_rng(16)
    monitor = DriftMonitor(reference())
    with pytest.raises(ValueError, match="inputs of a row"):
        monitor.update(np.zeros((3, 5), np.float32), answers(generator, 3))
    with pytest.raises(ValueError, match="answers of a row"):
        monitor.update(table(generator, 3), np.zeros((3, 6), np.float32))
    with pytest.raises(ValueError, match="3 rows"):
        monitor.update(table(generator, 3), answers(generator, 2))
    assert monitor.rows == 0
    assert monitor.update(_shifted(table(generator, 320)), answers(generator, 320))


def test_monitor__refuses_what_it_cannot_watch() -> None:
    with pytest.raises(GnncomposeError, match="x has 19 rows; give 20"):
        DriftMonitor(reference(rows=19))
    with pytest.raises(GnncomposeError, match="rows_between_false_alarms=3"):
        DriftMonitor(reference(), rows_between_false_alarms=3)


@pytest.mark.parametrize("rows", [20, 50, 100])
def test_monitor__watches_with_a_small_reference(rows: int) -> None:
    generator = np.random.default_rng(17)
    monitor = DriftMonitor(reference(images, rows))
    assert monitor.update(images(generator, 1000), answers(generator, 1000)) == ()
    assert monitor.update(3 * images(generator, 1000), answers(generator, 1000))


def test_stability_index__is_the_sum_worked_out_by_hand() -> None:
    # (.25 - .5) ln(.25 / .5) + (.75 - .5) ln(.75 / .5) = .25 ln 2 + .25 ln 1.5
    index = stability_index(np.array([0.5, 0.5]), np.array([0.25, 0.75]))
    assert index == pytest.approx(0.25 * math.log(3))
    both = stability_index(np.array([[0.5, 0.5], [0.2, 0.8]]), np.array([[0.25, 0.75], [0.2, 0.8]]))
    assert both == pytest.approx([0.25 * math.log(3), 0.0])


def test_stability_index__follows_the_distribution_that_sets_the_threshold() -> None:
    generator, rows, window, bins = np.random.default_rng(18), 2000, 512, 10
    shares = np.full(bins, 1 / bins)
    known, seen = (generator.multinomial(n, shares, size=20_000) / n for n in (rows, window))
    from scipy.stats import chi2

    for probability in (0.1, 0.01, 0.001):
        limit = chi2.ppf(1 - probability, bins - 1) * (1 / rows + 1 / window)
        assert (stability_index(known, seen) > limit).mean() == pytest.approx(probability, rel=0.5)


def test_page_hinkley__errs_about_as_seldom_as_asked_for() -> None:
    generator = np.random.default_rng(19)
    lengths = []
    for _ in range(60):
        # the true quantiles, so that the reference is no source of error
        watch = PageHinkley().watch((np.arange(1024)[:, None] + 0.5) / 1024, 1000)
        rows = 0
        while not watch.update(generator.random((BLOCK, 1))):
            rows += BLOCK
        lengths.append(rows)
    assert 700 <= np.mean(lengths) <= 3000


def test_page_hinkley__stays_as_silent_after_many_rows() -> None:
    generator = np.random.default_rng(22)
    watch = PageHinkley().watch((np.arange(1024)[:, None] + 0.5) / 1024, 2_000_000)
    # with river's forgetting, 0.9999, the first alarm comes within 10,000 rows
    assert not any(watch.update(generator.random((BLOCK, 1))) for _ in range(60_000 // BLOCK))
    assert watch.update(0.3 * generator.random((BLOCK, 1)))


def test_population_stability__forgets_what_lies_before_its_window() -> None:
    generator = np.random.default_rng(23)
    watch = PopulationStability(window=256).watch(generator.random((1000, 1)), 100_000)
    assert not any(watch.update(generator.random((BLOCK, 1))) for _ in range(10_000 // BLOCK))
    assert any(watch.update(0.7 * generator.random((BLOCK, 1))) for _ in range(256 // BLOCK))


def test_population_stability__tells_what_is_missing_from_what_is_small() -> None:
    generator = np.random.default_rng(24)
    watch = PopulationStability().watch(generator.random((1000, 2)), 100_000)
    found = []
    for _ in range(1024 // BLOCK):
        ranks = generator.random((BLOCK, 2))
        ranks[ranks[:, 1] < 0.1, 1] = np.nan
        found += watch.update(ranks)
    assert [finding.signal for finding in found] == [1]


def test_population_stability__does_not_mind_a_few_values_that_the_reference_missed_by_chance() -> None:
    generator = np.random.default_rng(25)
    watch = PopulationStability().watch(0.9 * generator.random((1000, 1)), 100_000)
    for _ in range(10_000 // BLOCK):
        ranks = 0.9 * generator.random((BLOCK, 1))
        ranks[generator.random((BLOCK, 1)) < 0.002] = 0.95
        assert not watch.update(ranks)


def test_page_hinkley__is_not_misled_by_errors_that_are_rare() -> None:
    generator, alarms, rare = np.random.default_rng(20), 0, (np.arange(1000) < 20).astype(float)[:, None]
    ranks = Ranks.among(rare)
    watch = PageHinkley().watch(ranks.of(rare), 20_000)
    for _ in range(20_000 // BLOCK):
        if watch.update(ranks.of((generator.random((BLOCK, 1)) < 0.02).astype(float))):
            alarms += 1
            watch = PageHinkley().watch(ranks.of(rare), 20_000)
    assert alarms <= 3


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.floats(0.001, 1000))
def test_ranks__know_no_unit(values: list[float], factor: float) -> None:
    column = np.array(values)[:, None]
    ranks = Ranks.among(column).of(column)
    assert ((ranks > 0) & (ranks < 1)).all()
    assert ranks.mean() == pytest.approx(0.5)
    scaled = np.float64(factor) * column
    if len(np.unique(scaled)) == len(np.unique(column)):  # tiny differences may be rounded away
        np.testing.assert_allclose(Ranks.among(scaled).of(scaled), ranks)


def test_ranks__share_ties_and_keep_what_is_missing() -> None:
    ranks = Ranks.among(np.array([[1.0, 5.0], [2.0, 5.0], [2.0, np.nan]]))
    found = ranks.of(np.array([[2.0, 5.0], [0.0, 4.0], [9.0, np.nan]]))
    # (below + below or equal + 1) / (2 rows + 2), of 3 rows and of 2
    np.testing.assert_allclose(found, [[5 / 8, 1 / 2], [1 / 8, 1 / 6], [7 / 8, np.nan]])


def test_confidences__are_of_probabilities_text_and_numbers() -> None:
    assert confidences(np.array([[0.2, 0.8], [np.nan, 0.5]])).tolist() == [0.8, 0.0]
    text = np.array([[[65, 0.5], [66, 1.0], [0, 0]]], dtype=np.float32)
    assert confidences(text).tolist() == [0.75]
    assert confidences(np.array([3.0, 4.0])).tolist() == [3.0, 4.0]


def test_inputs__without_any_value_have_no_mean_and_all_missing() -> None:
    for draw in (table, images):
        x = draw(np.random.default_rng(21), 200)
        signals = fit_inputs(x)
        names = [signal.name for signal in signals.signals]
        ranks = dict(zip(names, signals.ranks(np.full_like(x[:1], np.inf))[0], strict=True))
        assert np.isnan(ranks["mean"])
        assert ranks["missing"] > 0.99


def test_adaptation__imports_no_heavy_library() -> None:
    heavy = "{'torch', 'hydra', 'omegaconf', 'wandb', 'torch_geometric', 'river'}"
    code = f"import sys, gnncompose.adaptation.drift; sys.exit(str({heavy} & set(sys.modules) or '') or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_monitor__says_which_extra_brings_river() -> None:
    code = (
        "import sys; sys.modules['river'] = None\n"
        "import numpy as np\n"
        "from gnncompose.adaptation.drift import DriftMonitor, Reference\n"
        "DriftMonitor(Reference(np.random.default_rng(0).random((50, 2)), np.full((50, 2), 0.5)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "GnncomposeError: watching for drift needs river; run pip install 'gnncompose[adapt]'" in done.stderr
