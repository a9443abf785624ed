"""The command that serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gnncompose.cli.arguments import SETTINGS, TaskOption, open_bundle, open_composition, show_json

serves = typer.Typer(**SETTINGS)
Port = Annotated[int, typer.Option(min=0, max=65535)]


@serves.command()
def serve(
    task: TaskOption,
    composition: Annotated[
        Path | None,
        typer.Argument(
            metavar="[COMPOSITION]",
            help="A *.composition.json, or a run folder for the best one in it; left out, what was live last goes on.",
        ),
    ] = None,
    state: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the history of deployments and the admin token lie.")
    ] = Path("deployment"),
    host: Annotated[str, typer.Option(help="The interface for clients; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="REST; 0 for a free one.")] = 8080,
    grpc_port: Annotated[int, typer.Option(min=-1, max=65535, help="gRPC; 0 for a free one, -1 for none.")] = 8081,
    admin_port: Annotated[int, typer.Option(min=0, max=65535, help="The admin address, on loopback only.")] = 8082,
    name: Annotated[str | None, typer.Option(help="The model's name in addresses; the task's if left out.")] = None,
    certificate: Annotated[Path | None, typer.Option(help="Serve clients by TLS, with this certificate.")] = None,
    key: Annotated[Path | None, typer.Option(help="The certificate's key.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="Serve only clients that show the token in this file.")
    ] = None,
    latency_ms: Annotated[
        float | None, typer.Option(min=0.0, help="Refuse, or roll back, what takes longer than this for a row.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Rows that are answered together, at most.")] = 64,
    wait_ms: Annotated[float, typer.Option(min=0.0, help="How long a request waits for others, at most.")] = 0.0,
    queue: Annotated[int, typer.Option(min=1, help="Rows that may wait; more are turned away.")] = 4096,
    workers: Annotated[int, typer.Option(min=1, help="Batches that are answered at once.")] = 2,
    arrival_s: Annotated[
        float, typer.Option(min=0.1, help="How long a request's head, and its body, may take to come.")
    ] = 10.0,
    isolate: Annotated[str, typer.Option(help="untrusted or all: what runs in a limited process.")] = "untrusted",
    engine: Annotated[str, typer.Option(help="local, or ray: replicas on Ray Serve (extra ray).")] = "local",
    replicas: Annotated[
        str, typer.Option(metavar="N|MIN:MAX", help="Of --engine ray; MIN:MAX for as many as the load takes.")
    ] = "1",
) -> None:
    """Serve a composition by the Open Inference Protocol, and swap it live.

    Example: gnncompose serve best.composition.json --task digits --state my-deployment --latency-ms 5
    """
    from gnncompose.deployment.engine import Engine, Settings
    from gnncompose.deployment.history import DeploymentError, History
    from gnncompose.deployment.served import Bounds

    try:
        from gnncompose.deployment.batching import Batching
        from gnncompose.deployment.ray import Front
        from gnncompose.deployment.replicas import Scale
        from gnncompose.deployment.serving import (
            TOKEN_FILE,
            Addresses,
            Listening,
            Serving,
            admin_token_in,
            check_free,
            event_loop,
            log_as_json,
        )
        from gnncompose.deployment.serving import serve as serve_engine
    except ModuleNotFoundError as problem:
        raise DeploymentError(f"serving needs {problem.name}; run pip install 'gnncompose[serve]'") from None
    if engine not in ("local", "ray"):
        raise DeploymentError(f"--engine: there is no engine {engine!r}; choose local or ray")
    scale = Scale.read(replicas, workers) if engine == "ray" else None
    if scale is None and replicas != "1":
        raise DeploymentError("--replicas goes with --engine ray; give both or neither")
    _check_files(certificate, key)
    token = None if token_file is None else _token(token_file)
    bundle = open_bundle(task)
    first = None if composition is None else open_composition(composition, bundle)
    settings = Settings(bounds=Bounds(latency_ms=latency_ms), isolate=isolate)  # type: ignore[arg-type]
    addresses = Addresses(host, port, None if grpc_port < 0 else grpc_port, admin_port, certificate, key)
    check_free(addresses)
    log_as_json()
    history = History(state)
    served = Engine(bundle, history, settings) if scale is None else Front(bundle, history, settings, scale)
    served.start(first)
    serving = Serving(
        admin_token=admin_token_in(state),
        addresses=addresses,
        batching=Batching(batch, wait_ms, queue, workers if scale is None else workers * scale.most),
        name=name,
        token=token,
        arrival_s=arrival_s,
    )

    def tell(listening: Listening) -> None:
        show_json(
            {
                "model": serving.name or bundle.name,
                "version": served.live.version,
                "rest": listening.rest,
                "grpc": listening.grpc,
                "admin": listening.admin,
                "admin_token_file": str(state / TOKEN_FILE),
            }
        )

    with event_loop() as loop:
        loop.run(serve_engine(served, serving, tell))


def _check_files(certificate: Path | None, key: Path | None) -> None:
    from gnncompose.deployment.history import DeploymentError

    if (certificate is None) != (key is None):
        raise DeploymentError("--certificate and --key go together; give both or neither")


def _token(path: Path) -> str:
    from gnncompose.deployment.history import DeploymentError

    token = path.read_text(encoding="utf-8").strip()
    if not token:
        raise DeploymentError(f"{path}: is empty; write a token into it")
    return token
