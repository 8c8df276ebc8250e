"""Load of the example service on two cores: requests a second, and how long they take.

    pip install "prunefair[serve]"
    python benchmarks/service_load.py [--results FILE]

The service runs on one core, some callers on another; each draws a visit in one of
10 000 segments and rewards it, over a connection that stays open.  "durable" waits for
the disk with every visit and every reward, "quick" survives a kill, but not a loss of
power.  Other load on the machine stretches what a clock says; the CPU time of the
service for a request is told apart.

Not in pieces: what is measured is time, which workers would lengthen.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from storing import Table, cpu, options_of

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "book" / "results" / "service_load.json"
CONFIGURATION = {
    "arms": 40,
    "segments": 10_000,
    "callers": 4,
    "seconds": 5.0,
    "runs": {"durable": [], "quick": ["--quick"]},
}


def pinned(core: int) -> None:
    """Keep this process on one of the cores that it may use, where that is known."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[core % len(cores)]})


def answered(connection, way: str, body: dict) -> dict:
    """The answer to a request."""
    head = {"content-type": "application/json"}
    connection.request("POST", way, json.dumps(body), head)
    response = connection.getresponse()
    answer = json.loads(response.read())
    assert response.status == 200, answer
    return answer


def call(port: int, caller: int, until: float, took: list[float]) -> None:
    """Visits and rewards of one caller, one after the other."""
    rng = np.random.default_rng(caller)
    connection, number = http.client.HTTPConnection("127.0.0.1", port), 0
    while (now := time.perf_counter()) < until:
        visit, number = f"{caller}-{number}", number + 1
        segment = f"segment {rng.integers(CONFIGURATION['segments'])}"
        answered(connection, f"/visits/{visit}", {"context": segment})
        between = time.perf_counter()
        reward = {"reward": float(rng.random() < 0.5)}
        assert answered(connection, f"/visits/{visit}/reward", reward)["counted"]
        took += [between - now, time.perf_counter() - between]


def cpu_seconds(process: int) -> float:
    """CPU time that a process has taken so far (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def measure(options: list[str]) -> dict:
    """One run against a new database."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, ROOT / "examples" / "service.py"]
        command += [Path(folder) / "service.db", "--port", str(port), *options]
        command += ["--arms", str(CONFIGURATION["arms"])]
        server = subprocess.Popen(command, preexec_fn=lambda: pinned(0))
        try:
            for _ in range(300):
                with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.1)
            call(port, 99, time.perf_counter() + 0.5, [])  # compiles the first step
            took: list[float] = []
            start, used = time.perf_counter(), cpu_seconds(server.pid)
            callers = [
                threading.Thread(
                    target=call, args=(port, k, start + CONFIGURATION["seconds"], took)
                )
                for k in range(CONFIGURATION["callers"])
            ]
            for caller in callers:
                caller.start()
            for caller in callers:
                caller.join()
            seconds = time.perf_counter() - start
            used = cpu_seconds(server.pid) - used
        finally:
            server.terminate()
            server.wait()
    return {
        "requests": len(took),
        "requests_per_second": len(took) / seconds,
        "cpu_ms": 1e3 * used / len(took),
        "median_ms": 1e3 * float(np.median(took)),
        "p99_ms": 1e3 * float(np.quantile(took, 0.99)),
    }


def main() -> None:
    """Measure and store the table."""
    options = options_of(__doc__, RESULT).parse_args()
    pinned(1)
    names = ("numpy", "numba", "fastapi", "uvicorn")
    table = Table(options.results, CONFIGURATION, *names, device=cpu(2))
    runs = {name: measure(given) for name, given in CONFIGURATION["runs"].items()}
    print(json.dumps(runs, indent=1))
    table.replace({"runs": runs})


if __name__ == "__main__":
    main()
