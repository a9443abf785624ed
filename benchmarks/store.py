"""Writers that are killed while they write: is anything lost, double or half-written in the evaluation store?

    python benchmarks/store.py --url sqlite
    python benchmarks/store.py --url postgresql://user:password@host/database
    python benchmarks/store.py --postgres

8 processes write 1,000 evaluations each, while every second one of them, chosen at random, gets SIGKILL. It is
started again and goes on where its own log of acknowledged writes stopped: the last acknowledged one, which must
stay, and the one that was under way are written again, with other samples, so that an overwritten row or one made
of two attempts shows. Afterwards every row must be one attempt, whole and bit-equal, no later than the attempt that
was acknowledged, and all keys must be there once. `overwritten` are acknowledged writes that did not stay;
`unacknowledged` counts rows that were committed although the kill came before the writer learned of it, which is
no fault.
Samples are enlarged until a write takes milliseconds, so that the run lasts for many kills and most of them hit a
write. `--url sqlite` makes a file in a temporary folder, `--postgres` a server of its own on loopback, with its
default, durable settings. The last line is one JSON object; the exit code is 1 where something is amiss.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import numpy as np
import sqlalchemy as sql

from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.evaluation import Evaluation, Measurement
from gnncompose.evaluation.store import EvaluationStore, Key
from gnncompose.evaluation.store.schema import EVALUATIONS
from gnncompose.tasks.task import World

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # the server that the tests start

DATA = "stress"
FAULTS = ("lost", "double", "mixed", "overwritten", "stray", "damaged")
REPEATS = 5
SPAWN = multiprocessing.get_context("forkserver")


def evaluation_of(worker: int, number: int, attempt: int, samples: int) -> Evaluation:
    """The evaluation that an attempt writes; every figure follows from who, what and when."""
    samples_ms = np.random.default_rng([worker, number, attempt]).exponential(1.0, (samples // REPEATS, REPEATS))
    measurement = Measurement(
        samples_ms=samples_ms,
        cpu_ms=float(samples_ms.sum()),
        throughput_per_s=1 + float(samples_ms.max()),
        peak_memory_bytes=10_000_000 + attempt,
        artifact_bytes=number + 1,
        reference_ms=float(samples_ms.min()),
        noise=1.0 + attempt,
    )
    return Evaluation(
        composition_id=composition_id(worker, number),
        world=World(),
        split="validation",
        metric=number / 1000,
        score=number / 1000,
        latency_ms_mean=measurement.latency_ms_mean,
        latency_ms_p50=measurement.latency_ms_percentile(50),
        latency_ms_p90=measurement.latency_ms_percentile(90),
        latency_ms_p95=measurement.latency_ms_percentile(95),
        latency_ms_p99=None,
        throughput_per_s=measurement.throughput_per_s,
        cpu_ms=measurement.cpu_ms,
        cost_usd_per_million=0.0,
        peak_memory_bytes=measurement.peak_memory_bytes,
        artifact_bytes=measurement.artifact_bytes,
        evaluator="stress",
        wall_s=float(attempt),
        measurement=measurement,
    )


def composition_id(worker: int, number: int) -> str:
    return f"{worker:08x}{number:024x}"


def key_of(worker: int, number: int) -> Key:
    return Key(composition_id(worker, number), DATA, "cpu-1", "single_stream", 1, "stress")


def acknowledged(log: Path) -> dict[int, int]:
    """First attempt by number of every write that the log calls done; a last line that was cut off does not count."""
    whole, _, _ = log.read_text().rpartition("\n")
    lines = [line.split() for line in reversed(whole.splitlines())]
    return {int(number): int(attempt) for number, attempt in lines}


def write(url: str, log: Path, worker: int, attempt: int, writes: int, samples: int, writing: Synchronized) -> None:
    """Write what the log does not call done, and add to the log after each write.

    Args:
        url: Of the store.
        log: Of this worker, over all its attempts.
        worker: Which of the writers this is.
        attempt: How often it was started before.
        writes: How many evaluations it has to write in all.
        samples: How many latencies an evaluation has.
        writing: 1 while a write is under way.
    """
    first = max(acknowledged(log), default=0)
    with EvaluationStore(url) as store, log.open("ab", buffering=0) as lines:
        for number in range(first, writes):
            evaluation = evaluation_of(worker, number, attempt, samples)
            writing.value = 1
            store.put(key_of(worker, number), evaluation)
            writing.value = 0
            lines.write(f"{number} {attempt}\n".encode())


@dataclass
class Writer:
    """One writer: its process, its log, and how often it was started."""

    worker: int
    log: Path
    writing: Synchronized
    process: multiprocessing.process.BaseProcess | None = None
    attempt: int = -1

    def start(self, url: str, writes: int, samples: int) -> None:
        self.attempt += 1
        self.writing.value = 0
        log_end = self.log.read_bytes().rfind(b"\n") + 1
        os.truncate(self.log, log_end)
        arguments = (url, self.log, self.worker, self.attempt, writes, samples, self.writing)
        self.process = SPAWN.Process(target=write, args=arguments)
        self.process.start()


def stress(
    url: str, folder: Path, processes: int, writes: int, samples: int, every_s: float, generator: np.random.Generator
) -> tuple[list[Writer], dict[str, float]]:
    """Let writers write and kill one of them every so often; returns them and what happened."""
    writers = [Writer(worker, folder / f"{worker}.log", SPAWN.Value("i", 0, lock=False)) for worker in range(processes)]
    started = time.monotonic()
    counts = Counter()
    for writer in writers:
        writer.log.touch()
        writer.start(url, writes, samples)
    kill_at = started + every_s
    while alive := [writer for writer in writers if writer.process is not None]:
        time.sleep(max(0.0, min(0.05, kill_at - time.monotonic())))
        for writer in alive:
            assert writer.process is not None
            if writer.process.exitcode is not None:
                if writer.process.exitcode != 0:
                    raise SystemExit(f"writer {writer.worker} ended by itself with {writer.process.exitcode}")
                writer.process = None
        if time.monotonic() >= kill_at:
            kill_at += every_s
            alive = [writer for writer in writers if writer.process is not None]
            if alive:
                counts += kill(alive[generator.integers(len(alive))], url, writes, samples)
    return writers, {**counts, "seconds": time.monotonic() - started}


def kill(writer: Writer, url: str, writes: int, samples: int) -> Counter:
    """SIGKILL a writer and start it again; counts the kill, and whether it hit a write."""
    assert writer.process is not None
    assert writer.process.pid is not None
    os.kill(writer.process.pid, signal.SIGKILL)
    writer.process.join()
    if writer.process.exitcode == 0:
        return Counter()  # it had just ended
    hit = writer.writing.value
    writer.start(url, writes, samples)
    return Counter(kills=1, kills_during_a_write=hit)


def verify(url: str, writers: list[Writer], writes: int, samples: int) -> dict[str, int]:
    """Compare every row with the attempt that it says it is of; those of `FAULTS` must all be 0."""
    counts = Counter(rows=0, keys=0, unacknowledged=0, **dict.fromkeys(FAULTS, 0))
    world, prices = World(), load_prices()
    with EvaluationStore(url, create=False) as store:
        query = sql.select(EVALUATIONS.c.composition_id).where(EVALUATIONS.c.data_sha256 == DATA)
        with store.engine.connect() as connection:
            rows = Counter(connection.execute(query).scalars())
        counts.update(rows=rows.total(), keys=len(rows), double=rows.total() - len(rows))
        expected = {composition_id(writer.worker, number) for writer in writers for number in range(writes)}
        counts["stray"] += len(set(rows) - expected)
        for writer in writers:
            done = acknowledged(writer.log)
            for number in range(writes):
                found = store.get(key_of(writer.worker, number), world, "validation", prices)
                if found is None or number not in done:
                    counts["lost"] += 1
                    continue
                attempt = round(found.wall_s)
                counts["overwritten"] += attempt > done[number]
                counts["unacknowledged"] += attempt < done[number]
                counts["mixed"] += not same(found, evaluation_of(writer.worker, number, attempt, samples))
        if store.engine.dialect.name == "sqlite":
            with store.engine.connect() as connection:
                counts["damaged"] += connection.exec_driver_sql("PRAGMA integrity_check").scalar() != "ok"
    return dict(counts)


def same(found: Evaluation, wanted: Evaluation) -> bool:
    """Whether two evaluations agree in every figure and bit-equal samples."""
    ours, theirs = found.measurement, wanted.measurement
    assert ours is not None
    assert theirs is not None
    plain = replace(found, cached=False, cost_usd_per_million=0.0, measurement=None)
    return (
        vars(plain) == vars(replace(wanted, measurement=None))
        and np.array_equal(ours.samples_ms, theirs.samples_ms)
        and {**vars(ours), "samples_ms": None} == {**vars(theirs), "samples_ms": None}
    )


@contextlib.contextmanager
def database(url: str | None, folder: Path, durable: bool) -> Iterator[str]:
    """The URL to write to; None for a server that is started here, and waits for the disk only where `durable`."""
    if url is None:
        from postgres import PostgresServer

        with PostgresServer(durable) as server:
            yield server.url
    else:
        yield f"sqlite:///{folder}/evaluations.db" if url == "sqlite" else url


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--url", help="`sqlite` for a temporary file, else the URL of an empty database")
    place.add_argument("--postgres", action="store_true", help="start a PostgreSQL server for it")
    parser.add_argument("--without-fsync", action="store_true", help="the server of --postgres waits for no disk")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--writes", type=int, default=1000, help="of each process")
    parser.add_argument("--samples", type=int, default=5000, help="latencies of each evaluation, 8 bytes each")
    parser.add_argument("--kill-every", type=float, default=1.0, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=0, help="decides who is killed")
    given = parser.parse_args()
    SPAWN.set_forkserver_preload(["gnncompose.evaluation.store", "gnncompose.evaluation.cost"])
    generator = np.random.default_rng(given.seed)
    with tempfile.TemporaryDirectory() as name, database(given.url, Path(name), not given.without_fsync) as url:
        EvaluationStore(url).close()
        writers, happened = stress(
            url, Path(name), given.processes, given.writes, given.samples, given.kill_every, generator
        )
        counts = verify(url, writers, given.writes, given.samples)
    is_whole = not any(counts[name] for name in FAULTS) and counts["rows"] == given.processes * given.writes
    print(
        json.dumps(
            {
                "database": "sqlite" if url.startswith("sqlite") else "postgresql",
                "processes": given.processes,
                "writes": given.processes * given.writes,
                "bytes_per_write": 8 * given.samples,
                "kills": int(happened.get("kills", 0)),
                "kills_during_a_write": int(happened.get("kills_during_a_write", 0)),
                "seconds": round(happened["seconds"], 1),
                "writes_per_s": round(given.processes * given.writes / happened["seconds"], 1),
                **counts,
                "whole": is_whole,
            }
        )
    )
    return 0 if is_whole else 1


if __name__ == "__main__":
    sys.exit(main())
