"""Closed-loop load from a process of its own: every connection sends its next request once the last is answered.

    python benchmarks/speed/load.py HOST:PORT REQUESTS.npz SECONDS CONNECTIONS

REQUESTS.npz holds `bodies` (requests one behind the other, as bytes), `sizes` (of each) and `answers` (float32[request,
composition, rows, classes]: what may come back). The last line is one JSON object: `times_ms` and `ends_s` of the
answers, and how many were `failed` or `wrong`.
"""

import asyncio
import itertools
import json
import sys
import time

import numpy as np

CLOSE = 1e-5


class Client:
    """One connection."""

    def __init__(self, bodies: list[bytes], answers: np.ndarray) -> None:
        self.bodies = bodies
        self.answers = answers
        self.times_ms: list[float] = []
        self.ends_s: list[float] = []
        self.failed = self.wrong = 0

    async def run(self, address: str, until_s: float, first: int) -> None:
        host, port = address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        number = first
        while time.monotonic() < until_s:
            body = number % len(self.bodies)
            started = time.perf_counter()
            writer.write(self.bodies[body])
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
            content = await reader.readexactly(int(fields[b"content-length"]))
            self.times_ms.append(1e3 * (time.perf_counter() - started))
            self.ends_s.append(time.monotonic())
            if not head.startswith(b"HTTP/1.1 200"):
                self.failed += 1
            elif not self._is_right(_tensor(content, fields.get(b"inference-header-content-length")), body):
                self.wrong += 1
            number += 1
        writer.close()

    def _is_right(self, tensor: np.ndarray, body: int) -> bool:
        found = tensor.reshape(self.answers.shape[2:])
        return bool((np.abs(self.answers[body] - found) <= CLOSE).all(axis=(1, 2)).any())


def _tensor(content: bytes, length: bytes | None) -> np.ndarray:
    """What was answered: behind JSON of a length, or in it."""
    if length is not None:
        return np.frombuffer(content, dtype=np.float32, offset=int(length))
    (output,) = json.loads(content)["outputs"]
    return np.array(output["data"], dtype=np.float32)


async def main(address: str, path: str, seconds: float, connections: int) -> dict:
    with np.load(path, allow_pickle=False) as arrays:
        starts = np.concatenate([[0], np.cumsum(arrays["sizes"])])
        text = arrays["bodies"].tobytes()
        bodies = [text[a:b] for a, b in itertools.pairwise(starts.tolist())]
        answers = arrays["answers"]
    until_s = time.monotonic() + seconds
    clients = [Client(bodies, answers) for _ in range(connections)]
    await asyncio.gather(*(client.run(address, until_s, 7 * number) for number, client in enumerate(clients)))
    return {
        "times_ms": [round(t, 4) for client in clients for t in client.times_ms],
        "ends_s": [round(t, 4) for client in clients for t in client.ends_s],
        "failed": sum(client.failed for client in clients),
        "wrong": sum(client.wrong for client in clients),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))))
