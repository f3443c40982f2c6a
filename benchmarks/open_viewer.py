"""Whether viewers that stay open cost more and more: `python -m benchmarks.open_viewer --minutes 60`.

A live ComfyUI (COMFYUI_PATH, ComfyUI's Python) and headless Chromium (selenium): one page with the viewer of Optimize
and two of Preview. Every few minutes a small run with another seed is shown live and as a result, in between all is
idle. Each minute tells what the page holds after a garbage collection, and memory of the browser and of the server.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import sys
import tempfile
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import psutil

from benchmarks.endurance import MIB, ROOT, import_tests, start_server

OPTIMIZE, RESULT, FIGURE = "optimize", "result", "figure"


@dataclass(frozen=True)
class Sample:
    """Page, browser and server at one time."""

    minute: float
    runs: int
    """Finished so far."""
    heap_mib: float
    """JavaScript objects of the page, after a garbage collection."""
    dom_nodes: int
    listeners: int
    canvases: int
    browser_mib: float
    """All processes of the browser; memory that several share counts once."""
    browser_cpu: float
    """Processor seconds since the sample before."""
    server_mib: float
    server_threads: int
    server_files: int


def browser_processes(page: Any) -> list[psutil.Process]:
    """The driver's children: the browser, its renderer and its GPU process."""
    return psutil.Process(page.driver.service.process.pid).children(recursive=True)


def processor_seconds(processes: list[psutil.Process]) -> float:
    """Of all that still run."""
    return float(sum(p.cpu_times().user + p.cpu_times().system for p in processes))


def look(page: Any, server: psutil.Process, minute: float, runs: int, cpu_before: float) -> Sample:
    """One sample."""
    page.driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    found = page.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    metrics = {metric["name"]: metric["value"] for metric in found}
    processes = browser_processes(page)
    return Sample(
        round(minute, 1),
        runs,
        round(metrics["JSHeapUsedSize"] / MIB, 1),
        int(metrics["Nodes"]),
        int(metrics["JSEventListeners"]),
        page.run("return document.querySelectorAll('canvas').length"),
        round(sum(p.memory_full_info().pss for p in processes) / MIB, 1),
        round(processor_seconds(processes) - cpu_before, 1),
        round(server.memory_info().rss / MIB, 1),
        server.num_threads(),
        server.num_fds(),
    )


def graph(steps: int) -> dict[str, Any]:
    """A small run with its viewer, a viewer of its result, and one of a splat that stays."""
    server_tests = import_tests("test_server")
    found = copy.deepcopy(server_tests.graph(steps=steps))
    kept = {
        name: found[name] for name in ("model", "prompt", "init", "guidance", "clip", "cameras", "density", OPTIMIZE)
    }
    kept[RESULT] = {"class_type": "DreamerXLPreview", "inputs": {"splat": [OPTIMIZE, 0]}}
    kept[FIGURE] = {"class_type": "DreamerXLPreview", "inputs": {"splat": ["init", 0]}}
    ids = {name: str(i) for i, name in enumerate(kept, 1)}
    for node in kept.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                node["inputs"][name] = [ids[value[0]], value[1]]
    return {ids[name]: node for name, node in kept.items()}


def node_id(page: Any, kind: str) -> str:
    """Of the first node of a kind in the open graph."""
    return str(page.run("return app.canvas.graph.nodes.find(n => n.constructor.comfyClass === $[0]).id", kind))


def one_run(page: Any, node: str, seed: int) -> None:
    """Queue it with another seed, and wait until its result is in the viewer."""
    page.run(
        "window.__ended = 0; if (!window.__listens) { window.__listens = true;"
        " api.addEventListener('execution_success', () => window.__ended++); }"
        "app.canvas.graph.getNodeById($[0]).widgets.find(w => w.name === 'seed').value = $[1];",
        node, seed,
    )  # fmt: skip
    page.queue()
    page.wait("the end of the run", lambda: page.run("return window.__ended"))
    page.wait("its result", lambda: page.state(node) == "result")


def watch(page: Any, server: psutil.Process, minutes: float, every: float, steps: int) -> list[Sample]:
    """Samples of every minute, with a run every `every` minutes."""
    page.driver.execute_cdp_cmd("Performance.enable", {})
    page.open()
    page.load_api(graph(steps), "open")
    node = node_id(page, "DreamerXLOptimize")
    page.show(node, 0.6)
    one_run(page, node, 0)  # kernels are compiled, and the viewers loaded
    began, runs, cpu = time.monotonic(), 1, processor_seconds(browser_processes(page))
    samples: list[Sample] = []
    minute = 0
    while minute <= minutes:
        time.sleep(max(0.0, began + 60 * minute - time.monotonic()))
        if minute and minute % every == 0:
            one_run(page, node, runs)
            runs += 1
            time.sleep(5)  # what follows a result settles
        passed = (time.monotonic() - began) / 60
        samples.append(look(page, server, passed, runs, cpu))
        cpu = processor_seconds(browser_processes(page))
        print("".join(f"{value:>15}" for value in astuple(samples[-1])), flush=True)
        minute = max(minute + 1, int(passed) + 1)
    return samples


def main() -> None:
    """A table on standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=int, default=4, help="minutes from one run to the next (default: 4)")
    parser.add_argument("--steps", type=int, default=8, help="of each run (default: 8)")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests" / "e2e"))
    browser = importlib.import_module("browser")
    if isinstance(missing := browser.chromium(), str):
        sys.exit(missing)
    with tempfile.TemporaryDirectory(prefix="dreamer-xl-viewer-", ignore_cleanup_errors=True) as scratch:
        base = Path(scratch)
        with start_server(base / "server") as server:
            server.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.Workflow.Persist": True})
            page = browser.Browser(server.url, base / "profile", base / "artefacts")
            try:
                print("".join(f"{field.name:>15}" for field in fields(Sample)), flush=True)
                samples = watch(page, psutil.Process(server.pid), args.minutes, args.every, args.steps)
                wrong = [entry["message"] for entry in page.console() if "dreamer" in entry["message"].lower()]
            finally:
                page.close()
    print(f"{samples[-1].runs} runs in {samples[-1].minute:.0f} minutes; of our code in the console: {wrong or 'none'}")


if __name__ == "__main__":
    main()
