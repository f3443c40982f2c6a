"""`batch LIST`: a work list becomes a folder of objects with one index."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from filelock import FileLock, Timeout

from ..batch.index import INDEX, Index, foreign
from ..batch.store import Store
from ..batch.work_list import Item, list_path, read_work_list, write_list
from ..errors import InputError
from .board import Board
from .item_options import checked_items
from .options import check_writable
from .own_folder import OUTPUTS
from .ray_engine import Cluster, make_with_ray, waiting
from .session import Interrupt, interruptible
from .workshop import Workshop

LOCK = ".list.lock"


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("batch", help="make every object of a work list")
    parser.add_argument("list", metavar="LIST", help="objects in .jsonl or .csv, or a suite's name; see docs/scale.md")
    parser.add_argument(
        "--out",
        metavar="DIR|URL",
        help="a folder for every object; a URL of fsspec for object storage (default: outputs/<name of the list>)",
    )
    parser.add_argument(
        "--ray", nargs="?", const="", metavar="ADDRESS", help="make objects side by side: on this machine, or a cluster"
    )
    parser.add_argument("--workers", type=int, help="of --ray (default: one for each GPU, or else for each core)")
    parser.add_argument(
        "--gpus-per-worker", type=float, metavar="SHARE", help="0.5: two workers share a GPU (default: 1)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the objects, one JSON line each, and stop")
    parser.add_argument(
        "--each",
        dest="shared",
        nargs=argparse.REMAINDER,
        default=[],
        help="comes last: options of generate for every object, below those of its line; LoRAs add up",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 where every object is there, 1 where some failed, 130 after Ctrl-C; see `cli.main` for the rest."""
    path = list_path(args.list)
    items, repeated = read_work_list(path)
    checked_items(items, args.shared)
    if repeated:
        print(f"{repeated} objects are in the list more than once, and are made once", file=sys.stderr)
    if args.dry_run:
        print(write_list(items), end="")
        return 0
    store = Store(args.out or str(OUTPUTS / path.stem))
    if args.ray is None and (args.workers is not None or args.gpus_per_worker is not None):
        raise InputError("--workers", "--ray beside it", "none")
    if args.workers is not None and args.workers < 1:
        raise InputError("--workers", "at least 1", args.workers)
    if args.gpus_per_worker is not None and not 0 <= args.gpus_per_worker <= 64:  # NaN lies nowhere
        raise InputError("--gpus-per-worker", "a number from 0 to 64", args.gpus_per_worker)
    cluster = None if args.ray is None else Cluster(args.ray, args.workers, args.gpus_per_worker)
    with own_list(store):
        if foreign(store.read(INDEX)):
            got = f"{store.place}, whose {INDEX} is another program's"
            raise InputError("--out", "a folder of a work list, or a new one", got, "name another folder")
        return make_all(items, path.name, store, args.shared, cluster)


@contextmanager
def own_list(store: Store) -> Iterator[None]:
    """The list's folder, closed to other lists. Errors: InputError."""
    if store.local is None:
        yield
        return
    if store.local.is_file():
        raise InputError("--out", "a folder", f"{store.place}, which is a file")
    check_writable(store.local)
    store.local.mkdir(parents=True, exist_ok=True)
    lock = FileLock(store.local / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError("--out", "a folder that no other list is using", f"{store.place}, which one is") from error
    try:
        yield
    finally:
        with suppress(OSError):
            (store.local / LOCK).unlink()
        lock.release()


def make_all(items: list[Item], source: str, store: Store, shared: list[str], cluster: Cluster | None = None) -> int:
    """All objects, in this process or by the workers of a cluster; the exit code."""
    board = Board(Index(items, source), store)
    with interruptible(None) as interrupt:
        try:
            if cluster is not None:
                make_with_ray(items, board, store, shared, cluster, interrupt)
            else:
                make_here(items, board, store, shared, interrupt)
        finally:
            board.close()
    return board.tell(interrupted=interrupt.requested)


def make_here(items: list[Item], board: Board, store: Store, shared: list[str], interrupt: Interrupt) -> None:
    """One object after another in this process."""
    workshop = Workshop(shared, interrupt)
    todo = items if store.local is not None else waiting(items, board, store, shared)
    for item in todo:
        if interrupt.requested:
            return
        board.begin(item)
        if store.local is not None:
            outcome = workshop.make(item, store.local / item.name)
        else:
            outcome, files = workshop.make_files(item, store.read_folder(item.name))
            store.write_folder(item.name, files)
        board.end(item, outcome)
