"""The encoding and the policy: by features, of any catalog, of any size."""

from itertools import combinations

import numpy as np
import pytest
import torch
from synthetic import (
    CASCADE,
    MEAN,
    TINY_GAINS,
    WEIGHTED,
    FakeEvaluator,
    large_space,
    model,
    reward_of,
    space_of,
    tiny_space,
    transform,
)
from torch_geometric.data import Batch, Data

from gnncompose.agents.agent import search
from gnncompose.agents.dqn import DQN
from gnncompose.agents.exploration import EpsilonGreedy
from gnncompose.catalog.catalog import Catalog
from gnncompose.composition.edits import KINDS, Limits, SetParameter, Stop
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition, make_node
from gnncompose.encoding import NODE_DIM, OPERATOR_DIM, CatalogFeatures, encode, encode_all, operator_features
from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.evaluation import Budget
from gnncompose.packing import Context, Packer
from gnncompose.policies.checkpoints import load_policy, policy_from_checkpoint, policy_to_checkpoint
from gnncompose.policies.gatv2 import Gatv2
from gnncompose.policies.gine import Gine
from gnncompose.policies.gps import Gps
from gnncompose.policies.policy import Critic, EditPolicy, EncoderRecipe, log_probabilities, seeded
from gnncompose.policies.relational import Relational

CONTEXT = Context(0.5, 0.1)
ALL = [Gine(16, 2), Relational(16, 2), Gatv2(16, 2), Gps(16, 2)]
ENCODERS = pytest.mark.parametrize("encoder", ALL, ids=["gine", "relational", "gatv2", "gps"])


def policy(seed: int = 0, encoder: EncoderRecipe = Gine(16, 2)) -> EditPolicy:  # noqa: B008
    return seeded(lambda: EditPolicy(encoder), seed)


def packer_of(graphs) -> Packer:
    packer = Packer()
    for graph in graphs:
        packer.add(graph)
    return packer


def scores(space: Space, composition, scorer: EditPolicy, edits=None) -> torch.Tensor:
    features = CatalogFeatures.of(space.catalog)
    graph = encode(composition, edits or space.legal_edits(composition), features)
    with torch.no_grad():
        return scorer(packer_of([graph]).pack([0], [CONTEXT]), features.operators)


def test_encode__gives_a_graph_with_input_and_output_nodes():
    space = large_space()
    composition = space.random(np.random.default_rng(3), 8)
    edits = space.legal_edits(composition)
    data = encode(composition, edits, CatalogFeatures.of(space.catalog))
    assert isinstance(data, Data)
    assert data.validate()
    assert data.x.shape == (len(composition.nodes) + 2, NODE_DIM)
    assert data.edge_index.shape[1] == 2 * (len(list(composition.edges())) + 1)
    assert [KINDS[kind] for kind in data.edit_kind] == [type(edit) for edit in edits]
    assert data.x.isfinite().all()
    assert data.edit_source.max() < len(data.x)


def test_operator_features__know_what_was_not_measured():
    bare = model("bare", profile={})
    features = operator_features(Catalog("c", (bare, model("known"))))
    assert features.shape == (2, OPERATOR_DIM)
    assert features.isfinite().all()
    assert not torch.equal(features[0], features[1])


def test_policy__scores_do_not_depend_on_names_or_catalog_order():
    space = tiny_space()
    composition = space.random(np.random.default_rng(2), 4)
    renamed = {o.name: o.model_copy(update={"name": f"z_{o.name}"}) for o in space.catalog.operators}
    other = space_of(list(renamed.values())[::-1])
    scorer = policy()
    found = {
        c.id: s for (_, c), s in zip(space.successors(composition), scores(space, composition, scorer), strict=False)
    }
    twin = next(c for c in reachable(other) if c.id == composition.id)
    mirrored = {c.id: s for (_, c), s in zip(other.successors(twin), scores(other, twin, scorer), strict=False)}
    assert found.keys() & mirrored.keys()
    for key in found.keys() & mirrored.keys():
        assert found[key] == pytest.approx(float(mirrored[key]), abs=1e-5)


def reachable(space: Space):
    queue, seen = [space.start], {space.start.id}
    while queue:
        composition = queue.pop()
        yield composition
        for _, successor in space.successors(composition):
            if successor.id not in seen:
                seen.add(successor.id)
                queue.append(successor)


@pytest.mark.parametrize(("models", "transforms"), [(1, 0), (3, 2), (20, 10)])
def test_policy__same_weights_serve_catalogs_of_any_size(models, transforms):
    space = large_space(models, transforms)
    found = scores(space, space.start, policy())
    assert found.shape == (len(space.legal_edits(space.start)),)
    assert found.isfinite().all()


@ENCODERS
def test_policy__packed_scores_are_those_of_single_graphs(encoder):
    space, scorer = large_space(), policy(encoder=encoder)
    features = CatalogFeatures.of(space.catalog)
    generator = np.random.default_rng(1)
    compositions = [space.random(generator, 6) for _ in range(5)]
    graphs = [encode(c, space.legal_edits(c), features) for c in compositions]
    contexts = [Context(i / 5, -i / 5) for i in range(5)]
    packer, order = packer_of(graphs), [3, 0, 3, 4]
    with torch.no_grad():
        together = scorer(packer.pack(range(5), contexts), features.operators)
        alone = [
            scorer(packer_of([g]).pack([0], [c]), features.operators) for g, c in zip(graphs, contexts, strict=True)
        ]
        chosen = [[len(alone[number]) // 2, 0] for number in order]
        picked = scorer(packer.pack(order, [contexts[number] for number in order], chosen), features.operators)
    torch.testing.assert_close(together, torch.cat(alone))
    torch.testing.assert_close(picked, torch.cat([alone[n][edits] for n, edits in zip(order, chosen, strict=True)]))


def test_gine__gives_the_very_numbers_of_torch_geometric():
    space, encoder = large_space(), seeded(Gine(16, 2).build, 0)
    composition = space.random(np.random.default_rng(4), 8)
    data = encode(composition, [], CatalogFeatures.of(space.catalog))
    nodes = torch.relu(encoder.enter(data.x))
    for convolution, norm in zip(encoder.convolutions, encoder.norms, strict=True):
        nodes = nodes + torch.relu(norm(convolution(nodes, data.edge_index, data.edge_attr)))
    graph = torch.zeros(len(nodes), dtype=torch.long)
    assert torch.equal(encoder(data.x, data.edge_index, data.edge_attr, graph), nodes)


def test_dueling__scores_are_a_promise_and_advantages_of_mean_zero():
    space = large_space()
    features, generator = CatalogFeatures.of(space.catalog), np.random.default_rng(1)
    compositions = [space.random(generator, 6) for _ in range(3)]
    scorer = seeded(lambda: EditPolicy(Gine(16, 2), dueling=True), 0)
    packer = packer_of(encode(c, space.legal_edits(c), features) for c in compositions)
    packed = packer.pack(range(3), [CONTEXT] * 3)
    given = scorer(packed, features.operators).detach()
    parts = given.split(torch.bincount(packed.edit_graph).tolist())
    means = torch.stack([part.mean() for part in parts])
    assert max(float(part.std()) for part in parts) > 1e-3
    with torch.no_grad():
        scorer.promise[-1].bias += 2.0
    again = scorer(packed, features.operators)
    torch.testing.assert_close(again, given + 2.0)
    assert means.std() > 0
    known = policy_from_checkpoint(policy_to_checkpoint(scorer), Gine(16, 2), name="it")
    torch.testing.assert_close(known(packed, features.operators), again)


@ENCODERS
def test_encoder__heeds_what_stands_further_off(encoder):
    space = large_space()
    composition = space.random(np.random.default_rng(4), 8)
    graph = encode_all([composition], CatalogFeatures.of(space.catalog))
    built = seeded(encoder.build, 0)
    changed = graph.x.clone()
    changed[0] += 1.0
    given = [built(x, graph.edge_index, graph.edge_attr, graph.graph) for x in (graph.x, changed)]
    assert not torch.allclose(given[0][1], given[1][1])
    assert given[0].shape == (len(graph.x), 16)


def test_log_probabilities__are_those_of_a_softmax_over_each_composition():
    space = large_space()
    features, generator = CatalogFeatures.of(space.catalog), np.random.default_rng(5)
    graphs = [encode(c, space.legal_edits(c), features) for c in (space.random(generator, 6) for _ in range(3))]
    packed = packer_of(graphs).pack([2, 0, 1], [CONTEXT] * 3, [[0, 4, 2], [1], [3, 0]])
    values = torch.tensor([0.3, -200.0, 1.0, 7.0, 300.0, 299.0])
    expected = torch.cat([part.log_softmax(0) for part in values.split([3, 1, 2])])
    torch.testing.assert_close(log_probabilities(values, packed), expected)


@ENCODERS
def test_critic__values_each_composition_as_if_it_were_alone(encoder):
    space, critic = large_space(), seeded(lambda: Critic(encoder), 1)
    features, generator = CatalogFeatures.of(space.catalog), np.random.default_rng(6)
    packer = packer_of(encode(space.random(generator, 6), [Stop()], features) for _ in range(4))
    together = critic(packer.pack(range(4), [CONTEXT] * 4))
    torch.testing.assert_close(together, torch.cat([critic(packer.pack([n], [CONTEXT])) for n in range(4)]))
    assert not torch.allclose(critic(packer.pack([0], [CONTEXT])), critic(packer.pack([0], [Context(0.1, 0.9)])))


def test_relational__heeds_direction_and_port():
    encoder = seeded(Relational(16, 1).build, 0)
    x = torch.rand(2, NODE_DIM, generator=torch.Generator().manual_seed(0))
    edge = torch.tensor([[0], [1]])
    along, later, against = ([1.0, 0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.25, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0, 1.0])
    graph = torch.zeros(2, dtype=torch.long)
    heard = [encoder(x, edge, torch.tensor([features]), graph)[1] for features in (along, later, against)]
    silent = encoder(x, edge, torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.0]]), graph)[1]
    for one, other in combinations([*heard, silent], 2):
        assert not torch.allclose(one, other)
    torch.testing.assert_close(silent, encoder(x, edge[:, :0], torch.zeros(0, 5), graph)[1])


def test_packer__gives_what_a_batch_of_torch_geometric_gives():
    space = large_space()
    features, generator = CatalogFeatures.of(space.catalog), np.random.default_rng(2)
    graphs = [encode(c, space.legal_edits(c), features) for c in (space.random(generator, 6) for _ in range(6))]
    order = [5, 1, 1, 0]
    packed = packer_of(graphs).pack(order, [CONTEXT] * 4)
    batch = Batch.from_data_list([graphs[number] for number in order])
    for name in ("x", "edge_index", "edge_attr", "edit_kind", "edit_operator", "edit_values"):
        assert torch.equal(getattr(packed, name), batch[name])
    assert torch.equal(packed.graph, batch.batch)
    firsts = batch.ptr[:-1][packed.edit_graph]
    assert torch.equal(packed.edit_source - firsts, batch.edit_source)
    assert torch.equal(packed.edit_consumer - firsts, batch.edit_consumer)
    assert torch.equal(packed.context, torch.tensor([list(CONTEXT)] * 4))


@ENCODERS
def test_policy__tells_apart_values_and_places(encoder):
    space = space_of([transform("median"), model("a"), model("b"), MEAN, WEIGHTED, CASCADE], Limits())
    models = [make_node(operator, [space.start.input]) for operator in space.catalog.models]
    composition = Composition(make_node(WEIGHTED, models))
    edits = [e for e in space.legal_edits(composition) if isinstance(e, SetParameter)]
    assert len(edits) >= 4
    found = scores(space, composition, policy(encoder=encoder), edits)
    assert len(set(found.tolist())) == len(edits)


def small_dqn(**changes) -> DQN:
    return DQN(Gine(8, 1), EpsilonGreedy(1.0, 0.1, 0.3), batch_size=4, updates_per_evaluation=1, **changes)


def test_checkpoint__goes_on_where_training_ended_on_another_catalog(tmp_path):
    agent = small_dqn()
    assert agent.checkpoint() is None
    search(agent, tiny_space(), Budget(FakeEvaluator(TINY_GAINS), reward_of, 10), np.random.default_rng(0))
    path = tmp_path / "checkpoint.pt"
    torch.save(agent.checkpoint(), path)
    # The sizes come from the checkpoint, whatever the recipe says.
    heir = DQN(Gine(32, 3), EpsilonGreedy(), batch_size=4, updates_per_evaluation=1, checkpoint=str(path))
    for name, tensor in heir.checkpoint()["weights"].items():
        torch.testing.assert_close(tensor, agent.checkpoint()["weights"][name])
    assert heir.checkpoint()["architecture"] == {"dim": 8, "layers": 1}
    budget = Budget(FakeEvaluator({}), reward_of, 10)
    search(heir, large_space(), budget, np.random.default_rng(0))
    assert len(budget.trials) == 10


def test_load_policy__names_the_mistake(tmp_path):
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(GnncomposeError, match="no such checkpoint"):
        load_policy(str(path), Gine())
    path.write_bytes(b"no archive")
    with pytest.raises(GnncomposeError, match="is no checkpoint, or a damaged one"):
        load_policy(str(path), Gine())
    torch.save({**policy_to_checkpoint(policy()), "encoder": "theirs.Encoder"}, path)
    with pytest.raises(GnncomposeError, match=r"holds a theirs\.Encoder"):
        load_policy(str(path), Gine())
    torch.save({"anything": 1}, path)
    with pytest.raises(GnncomposeError, match=r"is no policy .* or a policy\.pt of experiments/train_policy\.py"):
        load_policy(str(path), Gine())
    torch.save(policy_to_checkpoint(policy()), path)
    with pytest.raises(GnncomposeError, match=r"agent\.history=32: .* was trained with history=0; give that"):
        load_policy(str(path), Gine(), history=32)
    with pytest.raises(GnncomposeError, match=r"agent\.continuous=true: .* was trained without"):
        load_policy(str(path), Gine(), continuous=True)


@pytest.mark.parametrize("recipe", [Gatv2, Gps])
def test_encoder__has_as_much_for_each_head(recipe):
    with pytest.raises(GnncomposeError, match=r"encoder\.dim=48: is no multiple of encoder\.heads=5; give one, or"):
        recipe(dim=48, heads=5)
