"""The one HTTP route of the pack against those whom it is not for: guessed ids, other clients, floods."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

import pytest


@pytest.fixture
def shelf(ours):
    return ours("nodes.host.snapshots").SnapshotShelf(max_snapshots=8, max_bytes=4096)


@pytest.fixture
def asked(ours, shelf):
    """Requests to the route on an application of its own: (method, path, headers) -> statuses, in order."""
    from aiohttp import ClientSession, web
    from aiohttp.test_utils import TestServer

    def ask(requests, at_once=1):
        async def all_of_them():
            host = type("Server", (), {"routes": web.RouteTableDef()})
            ours("nodes.host.snapshots").add_routes(host, shelf)
            app = web.Application()
            app.add_routes(host.routes)
            gate = asyncio.Semaphore(at_once)
            async with TestServer(app) as server, ClientSession() as session:

                async def one(method, path, headers):
                    async with gate, session.request(method, server.make_url(path), headers=headers) as reply:
                        return reply.status, await reply.read()

                return await asyncio.gather(*(one(*request) for request in requests))

        return asyncio.run(all_of_them())

    return ask


def path(id):
    return f"/dreamerxl/snapshots/{id}"


def client(name):
    return {"Dreamer-XL-Client": name}


def test_ids_cannot_be_guessed(shelf):
    """192 random bits each, and none follows from another."""
    ids = [shelf.put(f"client{i}", "p", "1", 1, b"x").id for i in range(500)]
    assert len(set(ids)) == 500
    assert {len(id) for id in ids} == {32}


def test_whoever_guesses_learns_nothing(asked, shelf):
    """A wrong id, a right one of another client and a path out of the folder are the same answer."""
    kept = shelf.put("anna", "p", "1", 1, b"secret")
    guesses = ["", "a", "..", "..%2f..%2fuser", "%00", "null", "*", kept.id[:-1], kept.id + "A", kept.id.swapcase()]
    requests = [("GET", path(g), client("anna")) for g in guesses]
    requests += [
        ("GET", path(kept.id), headers) for headers in ({}, client(""), client("bert"), client("anna "[:-1] + "x"))
    ]
    requests += [("DELETE", path(kept.id), client("bert")), ("DELETE", path("a"), client("anna"))]
    found = asked(requests)
    assert {status for status, _ in found} == {404}
    assert all(b"secret" not in body for _, body in found)
    assert len({body for _, body in found}) == 1
    assert asked([("GET", path(kept.id), client("anna"))]) == [(200, b"secret")]


def test_other_methods_and_odd_headers_are_refused(asked, shelf):
    kept = shelf.put("anna", "p", "1", 1, b"secret")
    found = asked([(method, path(kept.id), client("anna")) for method in ("POST", "PUT", "PATCH")])
    assert {status for status, _ in found} == {405}
    odd = [("GET", path(kept.id), client(name)) for name in ("änna", "a" * 4000, "\udcff")]
    assert {status for status, _ in asked(odd)} <= {400, 404}


def test_a_flood_of_requests_is_answered_and_changes_nothing(asked, shelf):
    kept = shelf.put("anna", "p", "1", 1, b"secret")
    flood = [("GET", path(f"guess{i}"), client("anna")) for i in range(300)]
    flood += [("DELETE", path(kept.id), client(f"other{i}")) for i in range(100)]
    flood.insert(200, ("GET", path(kept.id), client("anna")))
    found = asked(flood, at_once=50)
    assert found[200] == (200, b"secret")
    assert {status for i, (status, _) in enumerate(found) if i != 200} == {404}
    assert len(shelf) == 1


def test_a_flood_of_snapshots_stays_within_its_bounds(shelf):
    """From many threads and clients: never more than 8, nor than 4,096 bytes, and no error."""
    failed, most = [], []

    def write(name):
        try:
            for step in range(100):
                made = shelf.put(f"{name}{step % 7}", f"p{step % 3}", str(step % 5), step, b"x" * 700)
                shelf.get(made.id, made.client)
                shelf.remove(made.id, "somebody else")
                most.append(len(shelf))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert max(most) <= 8
    assert sum(len(s.data) for s in shelf._snapshots.values()) <= 4096


def test_a_client_that_removes_while_another_reads(shelf):
    """Both only ever see a whole snapshot or none."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        for _ in range(200):
            made = shelf.put("anna", "p", "1", 1, b"x")
            assert sorted(pool.map(shelf.remove, [made.id] * 2, ["anna"] * 2)) == [False, True]


OUTSIDE = ["../outside", "../../etc/outside", "/tmp/outside", "3d/../../outside", "..\\..\\outside"]


@pytest.mark.parametrize("prefix", OUTSIDE)
def test_export_writes_in_the_output_folder_alone(execute, host, prefix):
    splat = execute("DreamerXLInitialize", source={"source": "sphere", "count": 4}).args[0]
    before = {p for p in host.parent.rglob("*") if "output" not in p.parts}
    with suppress(Exception):  # ComfyUI refuses most of them; what matters is below
        execute("DreamerXLExport", splat=splat, filename_prefix=prefix)
    assert {p for p in host.parent.rglob("*") if "output" not in p.parts} == before


@pytest.mark.parametrize(
    "name", ["../secret.ply", "/etc/passwd", "a/../../secret.ply", "..\\secret.ply", "", "secret.ply\0"]
)
def test_initialize_reads_in_the_input_folder_alone(execute, host, name):
    (host / "secret.ply").write_bytes(b"ply\n")
    with pytest.raises(ValueError, match="Dreamer XL Initialize: "):
        execute("DreamerXLInitialize", source={"source": "file", "file": name})


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "..\\x.safetensors"])
def test_the_loader_reads_in_the_checkpoints_folder_alone(execute, host, name):
    with pytest.raises(Exception, match=r"(?i)not found|expected"):
        execute("DreamerXLLoader", checkpoint=name)


@pytest.mark.parametrize("model", ["../..", "/", "..", "none in models/diffusers"])
def test_shap_e_reads_below_its_folder_alone(execute, host, model):
    with pytest.raises(ValueError, match="model: expected a Shap-E folder under models/diffusers"):
        execute("DreamerXLInitialize", source={"source": "shap-e", "model": model, "prompt": "x"})
