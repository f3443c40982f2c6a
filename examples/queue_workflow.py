#!/usr/bin/env python3
"""Queue an API graph on a ComfyUI server, watch it, and download what it makes.

    python examples/queue_workflow.py example_workflows/api/text_to_3d_starter.json --prompt "a blue rocket" --seed 7
    python examples/queue_workflow.py GRAPH.json --checkpoint sdxl.safetensors --lora style.safetensors:0.8
    python examples/queue_workflow.py GRAPH.json --set Optimize.steps=80 --set Guidance.method.gamma=0.3
    python examples/queue_workflow.py GRAPH.json --list
    python examples/queue_workflow.py GRAPH.json --work objects.jsonl --server one:8188 --server two:8188

A work list has an object a line: prompt, negative, seed, steps, checkpoint, loras, and NODE.INPUT for anything else.
Its objects get a folder each under --out; the same command again makes what is not there.

ComfyUI's own Python has what this needs; any other from 3.10 on: pip install aiohttp tqdm
Exit codes: 0 done, 1 the run or the server failed, 2 the graph or an option is wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
try:
    from dreamer_core.batch.index import Index
    from dreamer_core.batch.work_list import list_path, read_work_list
    from dreamer_core.client.errors import Failed, NoAnswer, Refused
    from dreamer_core.client.fleet import Fleet, graph_of, make_list
    from dreamer_core.client.graph import Graph, changed, listing, read_graph
    from dreamer_core.client.node_types import NodeTypes
    from dreamer_core.client.run import execute, run_interruptible
    from dreamer_core.client.server import Server
    from dreamer_core.errors import InputError
except ModuleNotFoundError as missing:
    sys.exit(f"queue_workflow.py needs {missing.name}: run it with ComfyUI's Python, or: pip install aiohttp tqdm")


SERVER = "127.0.0.1:8188"


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="\n".join(__doc__.splitlines()[2:]))
    result.formatter_class = argparse.RawDescriptionHelpFormatter
    add = result.add_argument
    add("graph", type=Path, help="an API graph, e.g. of example_workflows/api")
    add("--server", action="append", metavar="HOST:PORT", help=f"repeatable with --work (default: {SERVER})")
    add("--work", metavar="LIST", help="a work list (.jsonl, .csv) in place of the options for one object")
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
    servers = options.server or [SERVER]
    if options.work is not None:
        return [await work_list(options, graph, servers)]
    if len(servers) > 1:
        raise Refused("--server: expected one, for several share a list: --work LIST")
    async with Server(servers[0]) as server:
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


async def work_list(options: argparse.Namespace, graph: Graph, servers: list[str]) -> str:
    """Make a list on all servers; what has become of it. Errors: Refused, Failed where an object failed."""
    if options.list or any(value not in (None, []) for value in own_values(options)):
        raise Refused("--work: expected no options of one object beside it; write them into the list")
    try:
        path = list_path(options.work)
        items, _ = read_work_list(path)
    except InputError as error:
        raise Refused(str(error)) from error
    for item in items:
        graph_of(item, graph, {})  # before anything is made
    fleet = Fleet(graph, Index(items, path.name), options.out, previews=options.previews)
    if options.quiet:
        fleet.tell = lambda text: None
    async with contextlib.AsyncExitStack() as stack:
        await make_list([await stack.enter_async_context(Server(address)) for address in servers], items, fleet)
    if fleet.index.count("failed"):
        raise Failed(f"{options.out}: {fleet.index.summary()}")
    return f"{options.out}: {fleet.index.summary()}"


def own_values(options: argparse.Namespace) -> list[object]:
    """What the command line sets for one object."""
    return [getattr(options, name) for name in ("prompt", "negative", "seed", "steps", "checkpoint", "lora", "set")]


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
