import pytest
from synthetic import model, space_of

from gnncompose.errors import CatalogError
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.evaluation import Evaluation
from gnncompose.reward import ServiceLevel, WeightedSum
from gnncompose.tasks.task import World

PRICES = load_prices()
CATALOG = space_of([model("m")]).catalog


def evaluation(score: float, latency_ms: float, usd: float) -> Evaluation:
    figures = [score, score, latency_ms, 9.0, 9.0, 9.0, 9.0, 1000 / latency_ms, 9.0, usd]
    return Evaluation("id", World(), "validation", *figures, 0, 0, "onnx")


def test_weighted_sum__takes_scaled_latency_and_cost_off_the_score() -> None:
    reward = WeightedSum(2.0, 0.1, 0.3, latency_scale_ms=4.0, cost_scale_usd_per_million=0.5)
    found = reward.bind(CATALOG, PRICES, World())(evaluation(0.9, 2.0, 1.0))
    assert found == pytest.approx(2.0 * 0.9 - 0.1 * 2.0 / 4.0 - 0.3 * 1.0 / 0.5)


def test_weighted_sum__names_the_model_that_was_never_measured() -> None:
    catalog = space_of([model("m", profile={})]).catalog
    with pytest.raises(CatalogError, match='"m": profile is empty; run gnncompose catalog profile'):
        WeightedSum().bind(catalog, PRICES, World())


def test_service_level__penalises_only_what_exceeds_a_limit() -> None:
    reward = ServiceLevel(latency_limit_ms=2.0, cost_limit_usd_per_million=1.0, penalty=0.5)
    bound = reward.bind(CATALOG, PRICES, World())
    assert bound(evaluation(0.9, 2.0, 0.1)) == pytest.approx(0.9)
    assert bound(evaluation(0.9, 3.0, 1.2)) == pytest.approx(0.9 - 0.5 * (0.5 + 0.2))
