#!/usr/bin/env python3
"""Queue an API graph on a ComfyUI server, watch it, and download what it makes.

    python examples/queue_workflow.py example_workflows/api/text_to_3d_starter.json --prompt "a blue rocket" --seed 7
    python examples/queue_workflow.py GRAPH.json --checkpoint sdxl.safetensors --lora style.safetensors:0.8
    python examples/queue_workflow.py GRAPH.json --set Optimize.steps=80 --set Guidance.method.gamma=0.3
    python examples/queue_workflow.py GRAPH.json --list

ComfyUI's own Python has what this needs; any other from 3.10 on: pip install aiohttp tqdm
Exit codes: 0 done, 1 the run or the server failed, 2 the graph or an option is wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
try:
    from dreamer_core.client.errors import Failed, NoAnswer, Refused
    from dreamer_core.client.graph import Graph, changed, listing, read_graph
    from dreamer_core.client.node_types import NodeTypes
    from dreamer_core.client.run import execute, run_interruptible
    from dreamer_core.client.server import Server
except ModuleNotFoundError as missing:
    sys.exit(f"queue_workflow.py needs {missing.name}: run it with ComfyUI's Python, or: pip install aiohttp tqdm")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="\n".join(__doc__.splitlines()[2:]))
    result.formatter_class = argparse.RawDescriptionHelpFormatter
    add = result.add_argument
    add("graph", type=Path, help="an API graph, e.g. of example_workflows/api")
    add("--server", default="127.0.0.1:8188", metavar="HOST:PORT", help="default: %(default)s")
    add("--out", type=Path, default=Path("outputs"), metavar="FOLDER", help="where the files go (default: %(default)s)")
    add("--prompt", help="the object, e.g. 'a red mug'")
    add("--negative", help="what to steer away from")
    add("--seed", type=int, help="for every seed in the graph")
    add("--steps", type=int, help="optimisation steps; 0: the preset's")
    add("--checkpoint", metavar="NAME", help="a file of the server's checkpoints folder, or 'starter'")
    add("--lora", action="append", default=[], metavar="NAME[:STRENGTH]", help="a file of its loras folder; repeatable")
    add("--set", action="append", default=[], metavar="NODE.INPUT=VALUE", help="any input; NODE: id, title or type")
    add("--list", action="store_true", help="show the nodes and their inputs, with the other options applied, and end")
    add("--previews", action="store_true", help="download temporary pictures, too")
    add("--quiet", action="store_true", help="print the files only")
    return result


def with_options(graph: Graph, known: NodeTypes, options: argparse.Namespace) -> Graph:
    """The graph with the inputs that the command line sets."""
    values = {name: getattr(options, name) for name in ("prompt", "negative", "seed", "steps", "checkpoint")}
    return changed(graph, known, loras=options.lora, assignments=options.set, **values)


async def work(options: argparse.Namespace) -> list[object]:
    """What is to be printed: the files that were made, or the lines of the listing."""
    graph = read_graph(options.graph)
    async with Server(options.server) as server:
        try:
            known = await server.node_types()
        except NoAnswer:
            if not options.list or options.checkpoint or options.lora:
                raise
            known = {}
        graph = with_options(graph, known, options)
        if options.list:
            return [*listing(graph, known)]
        return [*await execute(server, graph, options.out, quiet=options.quiet, previews=options.previews)]


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a console that lacks a character shows its number
    try:
        for line in run_interruptible(work(options)):
            print(line)
    except (Refused, Failed) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, Refused) else 1
    except KeyboardInterrupt:
        print("interrupted; the server keeps what was done, and the same graph goes on from there", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
