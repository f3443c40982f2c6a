"""The live view's server side: packing, who may see a snapshot, when it goes; what a node with a viewer leaves."""

from __future__ import annotations

import asyncio
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from live import Listener
from test_server import graph

from dreamer_core.formats import read_ply
from dreamer_core.formats.splat import read_splat
from dreamer_core.gaussians import Gaussians


def cloud(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Gaussians.from_activated(
        means=torch.randn(count, 3, generator=generator),
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=-1),
        scales=torch.rand(count, 3, generator=generator) * 0.05 + 0.01,
        opacities=torch.rand(count, generator=generator) * 0.8 + 0.1,
        rgb=torch.rand(count, 3, generator=generator),
    )


@pytest.fixture(scope="module")
def snapshots(ours):
    return ours("nodes.host.snapshots")


class TestPacking:
    def test_an_independent_reader_gets_the_same_gaussians(self, snapshots, tmp_path):
        given = cloud(300)
        path = tmp_path / "a.splat"
        path.write_bytes(snapshots.pack_splat(given))
        read = read_splat(path)
        order = (given.opacities * given.scales.sort(-1).values[:, 1:].prod(-1)).argsort(descending=True)
        given = given[order]
        assert torch.equal(read.means, given.means)
        assert torch.allclose(read.scales, given.scales, rtol=1e-5)
        assert (read.rgb - given.rgb).abs().max() < 0.51 / 255
        assert (read.opacities - given.opacities).abs().max() < 0.51 / 255
        same = (torch.nn.functional.normalize(read.quats, dim=-1) * given.quats).sum(-1).abs()
        assert same.min() > 0.9995

    def test_only_the_largest_in_opacity_times_area(self, snapshots, tmp_path):
        given = cloud(1000)
        importance = given.opacities * given.scales.sort(-1).values[:, 1:].prod(-1)
        path = tmp_path / "a.splat"
        path.write_bytes(snapshots.pack_splat(given, limit=50))
        kept = {tuple(row) for row in read_splat(path).means.tolist()}
        assert kept == {tuple(row) for row in given.means[importance.topk(50).indices].tolist()}

    def test_gradients_of_a_running_optimisation_are_left_alone(self, snapshots):
        given = cloud(10).map(lambda x: x.requires_grad_())
        assert len(snapshots.pack_splat(given)) == 10 * 32

    def test_fifty_thousand_cost_little(self, snapshots):
        given = cloud(60_000)
        snapshots.pack_splat(given)
        began = time.process_time()
        assert len(snapshots.pack_splat(given)) == 50_000 * 32
        assert time.process_time() - began < 0.25  # measured: 0.014 s


class TestShelf:
    def test_only_the_client_that_queued_gets_it(self, snapshots):
        shelf = snapshots.SnapshotShelf()
        one = shelf.put("anna", "p", "4", 1, b"a")
        assert shelf.get(one.id, "anna").data == b"a"
        assert shelf.get(one.id, "bert") is None
        assert shelf.get("no such id", "anna") is None
        assert not shelf.remove(one.id, "bert")
        assert shelf.remove(one.id, "anna")
        assert len(shelf) == 0

    def test_a_node_keeps_its_id_and_only_its_latest(self, snapshots):
        shelf = snapshots.SnapshotShelf()
        first = shelf.put("anna", "p", "4", 1, b"a")
        other = shelf.put("anna", "p", "5", 1, b"b")
        second = shelf.put("anna", "p", "4", 2, b"c")
        assert (second.id, other.id != first.id, len(shelf)) == (first.id, True, 2)
        assert shelf.get(first.id, "anna").step == 2

    def test_the_next_prompt_drops_the_last_ones_snapshots(self, snapshots):
        shelf = snapshots.SnapshotShelf()
        old = shelf.put("anna", "p", "4", 1, b"a")
        others = shelf.put("bert", "q", "4", 1, b"b")
        new = shelf.put("anna", "r", "9", 1, b"c")
        assert shelf.get(old.id, "anna") is None
        assert shelf.get(others.id, "bert") is not None
        assert shelf.get(new.id, "anna") is not None

    def test_limits_drop_the_oldest_and_never_the_newest(self, snapshots):
        shelf = snapshots.SnapshotShelf(max_snapshots=3, max_bytes=100)
        made = [shelf.put(f"client{i}", "p", "4", 1, b"x" * 10) for i in range(5)]
        assert [shelf.get(s.id, s.client) is not None for s in made] == [False, False, True, True, True]
        large = shelf.put("large", "p", "4", 1, b"x" * 1000)
        assert len(shelf) == 1
        assert shelf.get(large.id, "large") is not None


class TestLiveView:
    @pytest.fixture
    def sent(self, snapshots, monkeypatch):
        """A server with one client; the messages it was told to send."""
        messages = []
        fake = SimpleNamespace(
            client_id="anna", sockets={"anna": None}, send_sync=lambda *message: messages.append(message)
        )
        monkeypatch.setattr(snapshots, "_server", lambda: fake)
        return SimpleNamespace(messages=messages, server=fake)

    def test_at_most_every_two_seconds(self, snapshots, sent, monkeypatch):
        now = SimpleNamespace(time=100.0)
        monkeypatch.setattr(snapshots.time, "monotonic", lambda: now.time)
        shelf = snapshots.SnapshotShelf()
        live = snapshots.LiveView("12:4", "w", shelf)
        for step in range(1, 18):
            live.update(step, 17, cloud(5))
            now.time += 0.25
        assert [message[1]["step"] for message in sent.messages] == [1, 9, 17]
        event, data, client = sent.messages[-1]
        assert (event, client) == ("dreamerxl.snapshot", "anna")
        assert (data["node"], data["workflow"], data["steps"], data["count"], data["shown"]) == ("12:4", "w", 17, 5, 5)
        assert shelf.get(data["id"], "anna").step == 17
        live.close()
        assert len(shelf) == 0

    def test_nothing_is_made_where_nobody_looks(self, snapshots, sent, monkeypatch):
        monkeypatch.setattr(snapshots, "pack_splat", lambda _: pytest.fail("packed for nobody"))
        shelf = snapshots.SnapshotShelf()
        sent.server.sockets = {}
        snapshots.LiveView("4", None, shelf).update(1, 9, cloud(5))
        sent.server.client_id = None
        snapshots.LiveView("4", None, shelf).update(1, 9, cloud(5))
        assert len(shelf) == 0

    def test_a_failure_ends_the_view_and_not_the_run(self, snapshots, sent, monkeypatch, caplog):
        def broken(_):
            raise RuntimeError("no memory")

        monkeypatch.setattr(snapshots, "pack_splat", broken)
        live = snapshots.LiveView("4", None, snapshots.SnapshotShelf())
        live.update(1, 9, cloud(5))
        live.update(2, 9, cloud(5))
        assert sent.messages == []
        assert len(caplog.records) == 1


class TestPreviewNode:
    def test_passes_the_splat_on_and_leaves_a_file_for_each_object(self, execute, ours, host):
        import folder_paths

        parts = [cloud(40, seed=1), cloud(30, seed=2)]
        adapter = ours("nodes.host.splat")
        mine = ours("dreamer_core.gaussians").Gaussians
        splat = adapter.pack([ours("dreamer_core.frames").flip_frame(mine(**dict(g.tensors()))) for g in parts])
        output = execute("DreamerXLPreview", splat=splat)
        assert output.result[0] is splat
        entries = output.ui["dreamer_xl_view"]
        assert [entry["count"] for entry in entries] == [40, 30]
        for entry, part in zip(entries, parts):
            path = Path(folder_paths.get_temp_directory(), entry["file"]["subfolder"], entry["file"]["filename"])
            assert entry["file"]["type"] == entry["pictures"]["type"] == "temp"
            assert torch.allclose(read_ply(path).means, part.means, atol=1e-6)

    def test_an_empty_splat_is_refused(self, execute, ours):
        empty = ours("nodes.host.splat").pack([ours("dreamer_core.gaussians").Gaussians(**dict(cloud(0).tensors()))])
        with pytest.raises(ValueError, match="Dreamer XL Preview: splat: expected at least one Gaussian"):
            execute("DreamerXLPreview", splat=empty)


def ask(server, path, client, method="GET", **headers):
    """Status, headers and body of a request to the snapshots' route."""
    headers = {"Dreamer-XL-Client": client, **headers}
    request = urllib.request.Request(f"{server.url}{path}", headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, reply.headers, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


PATIENCE = 600
"""Seconds: the first step may have to compile the renderer."""


class TestOnAServer:
    @pytest.fixture
    def endless(self, server):
        """A client, and the first snapshot of a run that goes on until the test is over.

        Queued again where none comes: a socket that fell silent would otherwise use up the whole suite's time.
        """
        for attempt in range(4):
            with Listener(server) as listener:
                prompt = server.queue(graph(steps=100_000, seed=77 + attempt), listener.client)
                try:
                    message = listener.wait_for("dreamerxl.snapshot", timeout=60 if attempt < 3 else PATIENCE)
                except AssertionError:
                    if attempt == 3:
                        raise
                    continue
                else:
                    yield listener.client, message
                    return
                finally:
                    server.stop(prompt)

    def test_only_the_browser_that_queued_gets_the_snapshots(self, server, endless):
        client, message = endless
        assert (message["node"], message["steps"], message["count"]) == ("optimize", 100_000, 200)
        path = f"/dreamerxl/snapshots/{message['id']}"
        status, headers, data = ask(server, path, client)
        assert (status, len(data)) == (200, 200 * 32)
        assert headers["Cache-Control"] == "no-store"
        for _ in range(20):  # a newer one may come in between
            etag = ask(server, path, client)[1]["ETag"]
            status = ask(server, path, client, **{"If-None-Match": etag})[0]
            if status == 304:
                break
        assert status == 304
        for stranger in ("", "another", client[:-1]):
            assert ask(server, path, stranger)[0] == 404
            assert ask(server, path, stranger, "DELETE")[0] == 404
        for other in ("..%2f..%2fserver.log", "%2e%2e", "x" * 32):
            assert ask(server, f"/dreamerxl/snapshots/{other}", client)[0] == 404
        assert ask(server, path, client, "DELETE")[0] == 204

    def test_snapshots_go_when_the_node_is_done_and_the_result_is_in_the_history(self, server):
        with Listener(server) as listener:
            entry = server.wait(server.queue(graph(steps=2, seed=78), listener.client), PATIENCE)
            message = listener.wait_for("dreamerxl.snapshot")
            assert ask(server, f"/dreamerxl/snapshots/{message['id']}", listener.client)[0] == 404
        (shown,) = entry["outputs"]["optimize"]["dreamer_xl_view"]
        assert shown["count"] == 200
        assert server.view(shown["file"]).startswith(b"ply\n")
        assert server.view(shown["pictures"]).startswith(b"\x89PNG")


def test_the_route_is_there_without_a_server_object(snapshots):
    """`add_routes` registers exactly two handlers, both on the snapshots' path."""
    from aiohttp import web

    routes = web.RouteTableDef()
    snapshots.add_routes(SimpleNamespace(routes=routes), snapshots.SnapshotShelf())
    assert sorted((r.method, r.path) for r in routes) == [("DELETE", snapshots.ROUTE), ("GET", snapshots.ROUTE)]
    assert asyncio.iscoroutinefunction(next(iter(routes)).handler)
