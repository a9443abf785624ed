import numpy as np
import pytest
import torch

from gnncompose.tasks.factory import networks
from gnncompose.tasks.factory.artifact import ExportError, run, verify


@pytest.fixture
def rows() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    images = generator.random((96, 1, 8, 8), dtype=np.float32)
    return images, (images[:, 0, :4].mean(axis=(1, 2)) > images[:, 0, 4:].mean(axis=(1, 2))).astype(np.int64)


BUILDERS = {
    "linear": lambda: networks.mlp(64, classes=2),
    "mlp": lambda: networks.mlp(64, 16, 8, classes=2),
    "pooled": lambda: networks.cnn(8, 4, 8, hidden=8, classes=2),
    "strided": lambda: networks.cnn(8, 4, 8, strided=2, classes=2),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_export_classifier__same_seed_same_bytes_as_exact_as_torch(name: str, rows: tuple) -> None:
    images, labels = rows
    made = [
        networks.export_classifier(
            name, name, networks.train_classifier(BUILDERS[name], images, labels, seed=3, epochs=2, batch=32),
            images, "test", "MIT",
        )
        for _ in range(2)
    ]  # fmt: skip
    assert made[0].model.SerializeToString() == made[1].model.SerializeToString()
    np.testing.assert_allclose(run(made[0], images).sum(axis=1), 1, atol=1e-5)


def test_train_classifier__learns(rows: tuple) -> None:
    images, labels = rows
    network = networks.train_classifier(BUILDERS["linear"], images, labels, seed=0, epochs=60, batch=16)
    with torch.no_grad():
        answers = network(torch.from_numpy(images)).argmax(1).numpy()
    assert (answers == labels).mean() > 0.9


def test_train_classifier__leaves_global_torch_state(rows: tuple) -> None:
    torch.manual_seed(7)
    threads, expected = torch.get_num_threads(), torch.rand(3)
    torch.manual_seed(7)
    networks.train_classifier(BUILDERS["linear"], *rows, seed=0, epochs=1, batch=32)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_denoiser__brings_noisy_images_nearer() -> None:
    generator = np.random.default_rng(0)
    images = np.repeat(generator.integers(0, 2, (400, 1, 1, 1)), 64, axis=1).reshape(-1, 1, 8, 8).astype(np.float32)

    def corrupt(x: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return np.clip(x + generator.normal(0, 0.3, x.shape), 0, 1).astype(np.float32)

    network = networks.train_denoiser(lambda: networks.residual_denoiser(4), images, corrupt, seed=0, epochs=60)
    noisy = corrupt(images, generator)
    artifact = networks.export_denoiser("denoiser", network, noisy, "test", "MIT")
    assert ((run(artifact, noisy) - images) ** 2).mean() < 0.5 * ((noisy - images) ** 2).mean()


def test_verify__refuses_an_export_that_answers_differently(rows: tuple) -> None:
    images, labels = rows
    network = networks.train_classifier(BUILDERS["linear"], images, labels, seed=0, epochs=1)
    artifact = networks.export_classifier("linear", "linear", network, images, "test", "MIT")
    with pytest.raises(ExportError, match="linear: deviates by"):
        verify(artifact, images, run(artifact, images) + 0.01)
