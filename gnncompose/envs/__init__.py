"""Environments; importing this package registers them with Gymnasium."""

from gymnasium.envs.registration import register

register(
    id="gnncompose/Compose-v0",
    entry_point="gnncompose.envs.compose:ComposeEnv",
    nondeterministic=True,  # real execution varies; an env with a deterministic evaluator says so in its own spec
)
