"""Serving: the addresses for clients and for the administrator, over one engine, until the process is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import secrets
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import structlog
import uvicorn

from gnncompose.deployment.admin import admin_app
from gnncompose.deployment.batching import Batcher, Batching
from gnncompose.deployment.connections import connections, make_room
from gnncompose.deployment.engine import Engine
from gnncompose.deployment.grpc_server import grpc_server
from gnncompose.deployment.history import DeploymentError
from gnncompose.deployment.metrics import Metrics
from gnncompose.deployment.protocol import Signature
from gnncompose.deployment.server import Service, inference_app
from gnncompose.tasks.task import Task

TOKEN_FILE = "admin-token"
TOKEN_BYTES = 32
LOOPBACK = "127.0.0.1"
CHECK_EVERY_S = 1.0
IDLE_S = 75
SWITCH_S = 0.0005  # a thread that loads a deployment must not keep those who answer waiting


@dataclass(frozen=True)
class Addresses:
    """Where a server listens.

    Attributes:
        host: For clients.
        port: Of the REST address; 0 for a free one.
        grpc_port: Of the gRPC address; None for none.
        admin_port: Of the admin address, which lies on the loopback interface.
        certificate: File with the certificate for TLS at the clients' addresses; None without TLS.
        key: File with its key.
    """

    host: str = LOOPBACK
    port: int = 8080
    grpc_port: int | None = 8081
    admin_port: int = 8082
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True)
class Serving:
    """How a server serves.

    Attributes:
        addresses: Where.
        batching: How requests are put together.
        name: Of the model; None for the task's.
        token: What clients must show; None to serve everyone.
        admin_token: What the administrator must show.
        most_rows: Rows of a request, at most.
        most_bytes: Bytes of a request, at most.
        most_connections: Connections of clients, at most.
        arrival_s: How long a request's head, and its body, may take to come.
        patience_s: How long requests may take once the server is told to end.
    """

    admin_token: str
    addresses: Addresses = field(default_factory=Addresses)
    batching: Batching = field(default_factory=Batching)
    name: str | None = None
    token: str | None = None
    most_rows: int = 1024
    most_bytes: int = 64 << 20
    most_connections: int = 4096
    arrival_s: float = 10.0
    patience_s: float = 20.0


@dataclass(frozen=True)
class Listening:
    """Where a server listens now.

    Attributes:
        rest: URL for clients.
        grpc: HOST:PORT for clients, where there is gRPC.
        admin: URL for the administrator.
    """

    rest: str
    grpc: str | None
    admin: str


def check_free(addresses: Addresses) -> None:
    """Find out whether a server could listen, before anything is loaded and said to be live.

    Raises:
        DeploymentError: An address is taken, not this machine's, or wanted twice; it names the option.
    """
    wanted = {"--port": addresses.port, "--grpc-port": addresses.grpc_port, "--admin-port": addresses.admin_port}
    seen: dict[int, str] = {}
    for option, port in wanted.items():
        if not port:  # none, or a free one
            continue
        if port in seen:
            raise DeploymentError(f"{option}: {port} is that of {seen[port]}, too; choose another one")
        seen[port] = option
        host = LOOPBACK if option == "--admin-port" else addresses.host
        try:
            for family, kind, protocol, _, where in socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                with socket.socket(family, kind, protocol) as found:
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    found.bind(where)
        except OSError as problem:
            raise DeploymentError(_unbound(host, port, option, problem)) from None


def _unbound(host: str, port: int, option: str, problem: OSError) -> str:
    """Why an address cannot be listened at, and which option mends that."""
    if problem.errno == errno.EADDRINUSE:
        return f"{host}:{port} is taken; choose another {option}"
    if problem.errno == errno.EACCES:
        return f"{host}:{port} is not for this user; choose another {option}, from 1024 up"
    return f"{host}:{port}: {problem.strerror}; give an address of this machine as --host"


class _Server(uvicorn.Server):
    """One of several servers in a process: signals are told to all of them by who runs them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def admin_token_in(folder: Path) -> str:
    """The admin token of a folder, drawn when it is first asked for, in a file that only its owner may read."""
    path = folder / TOKEN_FILE
    with contextlib.suppress(FileNotFoundError):
        found = path.read_text(encoding="utf-8").strip()
        if found:
            return found
    token = secrets.token_urlsafe(TOKEN_BYTES)
    folder.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(token + "\n", encoding="utf-8")
    return token


def log_as_json() -> None:
    """Write every log line as one JSON object."""
    shared: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
        foreign_pre_chain=shared,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def event_loop() -> asyncio.Runner:
    """What runs a server: uvloop's event loop, where there is one for the system."""
    if sys.platform == "win32":
        return asyncio.Runner()
    import uvloop

    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def serve(engine: Engine, serving: Serving, listening: Callable[[Listening], None]) -> None:
    """Serve until SIGTERM or SIGINT, then answer what has begun.

    Args:
        engine: Has something to serve.
        serving: How.
        listening: Is told once clients are answered.

    Raises:
        DeploymentError: An address is taken, or the certificate cannot be read.
    """
    make_room(serving.most_connections)
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()  # what is there by now stays; to look through it again and again would take milliseconds
    metrics = Metrics()
    batcher = Batcher(engine.answer, serving.batching, metrics.requests.batch_rows.observe, engine.is_quick)
    service = Service(engine, batcher, _signature(engine.task, serving), metrics, serving.token, serving.arrival_s)
    addresses, ended = serving.addresses, asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    client, admin = _rest_server(service, serving), _admin_server(service, serving)
    calls, calls_port = _grpc(service, addresses)
    servers = {"--port": client, "--admin-port": admin}
    tasks = [asyncio.create_task(_run(server, option)) for option, server in servers.items()]
    try:
        await _started(client, admin, tasks)
        if calls is not None:
            await calls.start()
        scheme = "http" if addresses.certificate is None else "https"
        listening(
            Listening(
                f"{scheme}://{addresses.host}:{_port(client)}",
                None if calls is None else f"{addresses.host}:{calls_port}",
                f"http://{LOOPBACK}:{_port(admin)}",
            )
        )
        checking = asyncio.create_task(_check(service))
        await ended.wait()
        checking.cancel()
        await batcher.close(serving.patience_s)
    finally:
        if calls is not None:
            await calls.stop(serving.patience_s)
        for server in (client, admin):
            server.should_exit = True
        await asyncio.gather(*tasks, return_exceptions=True)
        service.changes.shutdown()
        await asyncio.to_thread(engine.close)


def _signature(task: Task, serving: Serving) -> Signature:
    name = serving.name or task.name
    return Signature(name, task.input, task.output, serving.most_rows, serving.most_bytes)


def _rest_server(service: Service, serving: Serving) -> _Server:
    addresses = serving.addresses
    return _Server(
        uvicorn.Config(
            inference_app(service),
            http=connections(serving.arrival_s),
            host=addresses.host,
            port=addresses.port,
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=serving.most_connections,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=int(serving.patience_s),
            ssl_certfile=addresses.certificate,
            ssl_keyfile=addresses.key,
        )
    )


def _admin_server(service: Service, serving: Serving) -> _Server:
    app = admin_app(service, serving.admin_token)
    port = serving.addresses.admin_port
    config = uvicorn.Config(app, host=LOOPBACK, port=port, log_config=None, access_log=False, server_header=False)
    return _Server(config)


def _grpc(service: Service, addresses: Addresses) -> tuple[grpc.aio.Server | None, int]:
    if addresses.grpc_port is None:
        return None, 0
    credentials = None
    try:
        if addresses.certificate is not None and addresses.key is not None:
            pair = (addresses.key.read_bytes(), addresses.certificate.read_bytes())
            credentials = grpc.ssl_server_credentials([pair])
        return grpc_server(service, f"{addresses.host}:{addresses.grpc_port}", credentials)
    except OSError as problem:
        raise DeploymentError(f"{problem.filename}: {problem.strerror}; give a certificate and its key") from None
    except RuntimeError:  # its text tells of settings of gRPC's own
        where = f"{addresses.host}:{addresses.grpc_port}"
        raise DeploymentError(f"{where} is taken, or not ours; choose another --grpc-port") from None


async def _run(server: _Server, option: str) -> None:
    try:
        await server.serve()
    except SystemExit:  # uvicorn's answer to an address that is taken
        config = server.config
        raise DeploymentError(f"{config.host}:{config.port} is taken, or not ours; choose another {option}") from None
    except ssl.SSLError as problem:
        raise DeploymentError(f"the certificate or its key cannot be used: {problem}") from None


async def _started(client: _Server, admin: _Server, tasks: list[asyncio.Task[None]]) -> None:
    while not (client.started and admin.started):
        for task in tasks:
            if task.done():
                task.result()
        await asyncio.sleep(0.01)


def _port(server: _Server) -> int:
    return server.servers[0].sockets[0].getsockname()[1]


async def _check(service: Service) -> None:
    """Hold deployments to their bounds, and count what came, now and then."""
    while True:
        await asyncio.sleep(CHECK_EVERY_S)
        service.settle()
        await asyncio.get_running_loop().run_in_executor(service.changes, service.engine.check)
