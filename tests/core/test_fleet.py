"""A work list over several servers: all busy, everything in one place, a dead one done without."""

import json
import threading

import pytest
from test_client import CONTENT, STARTER, Stub, client, hangs_up, says  # noqa: F401

from dreamer_core.client import fleet


@pytest.fixture
def stubs():
    servers = [Stub(), Stub()]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


def queued(stub):
    """Prompts of the graphs that a server was sent."""
    bodies = [body for path, body in stub.asked if path == "/prompt"]
    texts = [n["inputs"].get("prompt") for b in bodies for n in b["prompt"].values()]
    return [text for text in texts if isinstance(text, str)]


def work(client, stubs, folder, *lines, options=()):  # noqa: F811
    path = folder / "objects.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    servers = [word for stub in stubs for word in ("--server", stub.url)]
    return client.main([str(STARTER), "--work", str(path), "--out", str(folder / "out"), *servers, *options])


def states(folder):
    content = json.loads((folder / "out" / "index.json").read_text())
    return {row["name"]: row["state"] for row in content["objects"]}


def test_every_server_gets_work_and_all_files_come_to_one_place(client, stubs, tmp_path, capsys):  # noqa: F811
    lines = [{"prompt": f"mug {i}", "seed": i, "Optimize.steps": 7, "name": f"mug{i}"} for i in range(6)]
    assert work(client, stubs, tmp_path, *lines) == 0
    assert "6 of 6 complete" in capsys.readouterr().out
    assert sorted(queued(stubs[0]) + queued(stubs[1])) == [f"mug {i}" for i in range(6)]
    assert queued(stubs[0])
    assert queued(stubs[1])
    for i in range(6):
        assert (tmp_path / "out" / f"mug{i}" / "a.ply").read_bytes() == CONTENT
    (body,) = [b for s in stubs for p, b in s.asked if p == "/prompt" and "mug 3" in json.dumps(b)]
    optimiser = next(n for n in body["prompt"].values() if n["class_type"] == "DreamerXLOptimize")
    assert (optimiser["inputs"]["seed"], optimiser["inputs"]["steps"]) == (3, 7)
    before = len(stubs[0].asked) + len(stubs[1].asked)
    assert work(client, stubs, tmp_path, *lines) == 0
    assert len(stubs[0].asked) + len(stubs[1].asked) == before  # everything is there


def test_a_server_that_dies_is_done_without(client, stubs, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(fleet, "RETRY", 0.2)
    stubs[0].answers["/prompt"] = hangs_up
    assert work(client, stubs, tmp_path, *({"prompt": f"mug {i}"} for i in range(3))) == 0
    told = capsys.readouterr()
    assert f"{stubs[0].url} is gone" in told.err
    assert set(states(tmp_path).values()) == {"complete"}
    assert sorted(set(queued(stubs[1]))) == ["mug 0", "mug 1", "mug 2"]


def test_without_any_server_the_list_waits(client, stubs, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(fleet, "RETRY", 0.2)
    for stub in stubs:
        stub.answers["/object_info"] = hangs_up
    assert work(client, stubs, tmp_path, {"prompt": "a mug", "name": "mug"}) == 2
    assert "no server is left for 1 objects; start one, and run the same again" in capsys.readouterr().err
    assert states(tmp_path) == {"mug": "waiting"}
    stubs[1].answers.clear()
    assert work(client, stubs, tmp_path, {"prompt": "a mug", "name": "mug"}) == 0


def test_a_failure_stops_one_object(client, stubs, tmp_path, capsys):  # noqa: F811
    failed = {"status": {"status_str": "error", "messages": []}, "outputs": {}}

    def history(handler):
        run = handler.path.rpartition("/")[2]
        broken = "bad mug" in queued(handler.server)[-1:]
        done = {"status": {"status_str": "success"}, "outputs": handler.server.outputs}
        handler.reply({run: failed if broken else done})

    stubs[0].answers["/history"] = history
    lines = [{"prompt": p, "name": p.split()[0]} for p in ("good mug", "bad mug", "other mug")]
    assert work(client, stubs[:1], tmp_path, *lines) == 1
    assert states(tmp_path) == {"good": "complete", "bad": "failed", "other": "complete"}
    assert "2 of 3 complete, 1 failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "options", "message"),
    [
        ({"prompt": "a", "gamma": 1}, [], "line 1: gamma: expected prompt, negative, seed"),
        ({"prompt": "a", "Nothing.steps": 1}, [], "Nothing"),
        ({"prompt": "a"}, ["--seed", "0"], "--work: expected no options of one object beside it"),
        ({"seed": 1}, [], "line 1: prompt: expected what to make"),
    ],
)
def test_what_a_list_for_servers_may_not_say(client, stubs, tmp_path, capsys, line, options, message):  # noqa: F811
    assert work(client, stubs, tmp_path, line, options=options) == 2
    assert message in capsys.readouterr().err
    assert not stubs[0].asked
