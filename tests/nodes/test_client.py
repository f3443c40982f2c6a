"""examples/queue_workflow.py and dreamer_core.client against a live server, and on graphs of this pack."""

from __future__ import annotations

import asyncio
import copy
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import ExitStack
from pathlib import Path

import pytest

from dreamer_core.client import run as client_run
from dreamer_core.client.errors import Failed, Refused
from dreamer_core.client.graph import read_graph
from dreamer_core.client.progress import Display, Steps
from dreamer_core.client.server import Server

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "queue_workflow.py"
API = ROOT / "example_workflows" / "api"
STARTER = API / "text_to_3d_starter.json"
SMALL = ["--set", "Initialize.source.count=200", "--set", "Optimize.views=1", "--set", "Optimize.resolution=64"]
CHECKPOINTS = ["COMBO", {"options": ["starter (built in)", "a/x.safetensors"]}]
SPHERE = {"key": "sphere", "inputs": {"optional": {"count": ["INT", {}], "size": ["FLOAT", {}]}}}
KNOWN = {
    "DreamerXLLoader": {"input": {"required": {"checkpoint": CHECKPOINTS}}},
    "LoraLoader": {"input": {"required": {"lora_name": [["gold.safetensors", "sub/ink.safetensors"], {}]}}},
    "DreamerXLPrompt": {"input": {"required": {"prompt": ["STRING", {}]}, "optional": {"overhead_to": ["FLOAT", {}]}}},
    "DreamerXLInitialize": {"input": {"required": {"source": ["COMFY_DYNAMICCOMBO_V3", {"options": [SPHERE]}]}}},
}


@pytest.fixture(scope="module")
def client():
    spec = importlib.util.spec_from_file_location("queue_workflow", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def starter():
    return read_graph(STARTER)


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_queued(starter, tmp_path):
    class Untouched:
        def __getattr__(self, name):
            raise AssertionError(f"the server was asked to {name}")

    (tmp_path / "taken").write_text("a file")
    with pytest.raises(Refused, match="expected a folder for the files, got: File exists"):
        asyncio.run(client_run.execute(Untouched(), starter, tmp_path / "taken"))


def applied(client, graph, *arguments):
    return client.with_options(graph, KNOWN, client.parser().parse_args(["x.json", *arguments]))


def node(graph, kind):
    return next(data for data in graph.values() if data["class_type"] == kind)


def test_options_reach_their_inputs(client, starter):
    before = copy.deepcopy(starter)
    made = applied(
        client, starter, "--prompt", "a blue duck", "--negative", "blurry", "--seed", "7", "--steps", "12",
        "--checkpoint", "x", "--set", "Initialize.source.count=321", "--set", "DreamerXLPrompt.overhead_to=80.5",
        "--set", "prompt.overhead=12",
    )  # fmt: skip
    assert starter == before
    assert node(made, "DreamerXLPrompt")["inputs"]["prompt"] == "a blue duck"
    assert node(made, "DreamerXLPrompt")["inputs"]["negative"] == "blurry"
    assert node(made, "DreamerXLPrompt")["inputs"]["overhead_to"] == 80.5
    assert node(made, "DreamerXLLoader")["inputs"]["checkpoint"] == "a/x.safetensors"
    assert node(made, "DreamerXLInitialize")["inputs"]["source.count"] == 321
    assert node(made, "DreamerXLInitialize")["inputs"]["seed"] == 7
    assert node(made, "DreamerXLOptimize")["inputs"]["seed"] == 7
    assert node(made, "DreamerXLOptimize")["inputs"]["steps"] == 12
    assert node(applied(client, starter, "--checkpoint", "starter"), "DreamerXLLoader")["inputs"] == {
        "checkpoint": "starter (built in)"
    }


def test_text_stays_text(client, starter):
    made = applied(client, starter, "--set", "Prompt.prompt=42")
    assert node(made, "DreamerXLPrompt")["inputs"]["prompt"] == "42"


def test_loras_go_behind_the_loader(client, starter):
    made = applied(client, starter, "--lora", "ink:0.5", "--lora", "gold")
    first, second = [n for n, d in made.items() if d["class_type"] == "LoraLoader"]
    loader = next(n for n, d in made.items() if d["class_type"] == "DreamerXLLoader")
    chain = {made[n]["inputs"]["lora_name"]: made[n]["inputs"] for n in (first, second)}
    assert chain["sub/ink.safetensors"]["strength_model"] == chain["sub/ink.safetensors"]["strength_clip"] == 0.5
    assert chain["gold.safetensors"]["strength_model"] == 1.0
    # loader -> second -> first -> everything else; the VAE stays the loader's
    assert made[second]["inputs"]["model"] == [loader, 0]
    assert made[first]["inputs"]["model"] == [second, 0]
    assert made[first]["inputs"]["clip"] == [second, 1]
    assert node(made, "DreamerXLOptimize")["inputs"]["model"] == [first, 0]
    assert node(made, "DreamerXLPrompt")["inputs"]["clip"] == [first, 1]
    assert node(made, "DreamerXLOptimize")["inputs"]["vae"] == [loader, 2]


def test_a_lora_of_the_graph_is_replaced(client):
    graph = read_graph(API / "lora_swap.json")
    made = applied(client, graph, "--lora", "sub/ink.safetensors:-0.25")
    assert len(made) == len(graph)
    inputs = node(made, "LoraLoader")["inputs"]
    assert (inputs["lora_name"], inputs["strength_model"]) == ("sub/ink.safetensors", -0.25)


WRONG = {
    "no such node": (["--set", "Optimise.steps=3"], "did you mean Optimize"),
    "no such input": (["--set", "Prompt.promt=3"], "did you mean prompt"),
    "input of another choice": (["--set", "Initialize.source.file=a.ply"], "no input 'source.file'"),
    "no value": (["--set", "Prompt.prompt"], "expected NODE.input=value"),
    "no such lora": (["--lora", "silver"], "the server has no 'silver'; it has e.g."),
    "no such checkpoint": (["--checkpoint", "y.safetensors"], "a/x.safetensors"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_option_says_what_there_is(client, starter, name):
    arguments, text = WRONG[name]
    with pytest.raises(Refused) as error:
        applied(client, starter, *arguments)
    assert text in str(error.value)


def test_files_that_are_no_api_graph(client, tmp_path, capsys):
    for content, text in (
        ("{", "expected JSON"),
        ('{"a": 1}', "expected an API graph"),
        ('{"nodes": []}', "Export (API)"),
    ):
        path = tmp_path / "graph.json"
        path.write_text(content)
        assert client.main([str(path), "--list"]) == 2
        assert text in capsys.readouterr().err
    assert client.main([str(tmp_path / "none.json")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_nobody_answers(client, capsys):
    assert client.main([str(STARTER), "--server", "127.0.0.1:1"]) == 2
    assert "no ComfyUI answers at http://127.0.0.1:1" in capsys.readouterr().err


def test_list(client, server, capsys):
    assert client.main([str(STARTER), "--server", server.url, "--list", "--prompt", "a boat"]) == 0
    out = capsys.readouterr().out
    assert "Loader (DreamerXLLoader, node 1)" in out
    assert '    prompt = "a boat"' in out
    assert "    source.count = 4000   4 to 2000000" in out
    assert "    vae" not in out


def test_a_run_with_a_lora_is_watched_and_downloaded(client, server, tmp_path, capsys):
    arguments = [str(STARTER), "--server", server.url, "--out", str(tmp_path / "made"), "--steps", "2", *SMALL]
    assert client.main([*arguments, "--lora", "gold:0.7", "--prompt", "a blue rocket", "--seed", "5"]) == 0
    out, err = capsys.readouterr()
    made = [Path(line) for line in out.split()]
    assert sorted(p.suffix for p in made) == [".ply", ".png"]
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == sorted(p.name for p in made)
    ply = next(p for p in made if p.suffix == ".ply")
    assert b"element vertex 200" in ply.read_bytes()[:50_000]
    assert "running" in err or "Optimize" in err
    assert "lora key not loaded" not in server.log.read_text(errors="replace")
    before = ply.read_bytes()
    assert client.main([*arguments, "--quiet", "--prompt", "a blue rocket", "--seed", "5", "--previews"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    again = [Path(line) for line in out.split()]
    assert len(again) > 2
    other = next(p for p in again if p.name.startswith("text_to_3d") and p.suffix == ".ply")
    assert other.read_bytes() != before  # without the LoRA


def test_steps_are_heard_on_the_socket(client, server):
    heard = []

    class Recorder(Steps):
        def _event(self, event):
            super()._event(event)
            heard.append((self.node, self.done, self.total))

    graph = applied(client, read_graph(STARTER), "--steps", "5", "--set", "Initialize.source.count=201")
    node(graph, "DreamerXLOptimize")["inputs"] |= {"views": 1, "resolution": 64}
    run = str(uuid.uuid4())

    async def watched():
        async with Server(server.url) as talk, Recorder(talk, run) as steps:
            assert await talk.queue(graph, run) == run
            return await client_run.watch(talk, graph, run, steps, Display(quiet=True)), steps

    entry, steps = asyncio.run(watched())
    assert entry["status"]["status_str"] == "success"
    optimizer = next(n for n, d in graph.items() if d["class_type"] == "DreamerXLOptimize")
    assert max(done for n, done, total in heard if n == optimizer and total == 5) > 0
    assert "Gaussians" in steps.text  # the line of text on the node


def test_a_refused_graph_names_node_and_field(client, server, capsys):
    assert client.main([str(STARTER), "--server", server.url, "--set", "Optimize.resolution=100"]) == 2
    err = capsys.readouterr().err
    assert "Optimize (DreamerXLOptimize, node 4), resolution" in err
    assert "a multiple of 64" in err
    assert not server.get("/queue")["queue_pending"]


def test_a_failed_run_names_its_node(client, server, tmp_path, capsys):
    graph = read_graph(STARTER)
    arguments = ["--server", server.url, "--checkpoint", "not_sdxl", "--out", str(tmp_path)]
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(graph))
    assert client.main([str(path), *arguments, "--quiet"]) == 1
    assert "Loader (DreamerXLLoader, node 1) failed:\n  Dreamer XL Loader: checkpoint" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C cannot be sent to one process there")
def test_ctrl_c_stops_the_run_on_the_server(server, tmp_path):
    command = [sys.executable, SCRIPT, STARTER, "--server", server.url, "--out", tmp_path, "--steps", "100000", *SMALL]
    process = subprocess.Popen([str(c) for c in command], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not server.get("/queue")["queue_running"] and time.monotonic() < deadline:
            time.sleep(0.05)
        (running,) = server.get("/queue")["queue_running"]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "interrupted" in err
    entry = server.wait(running[1])
    assert "execution_interrupted" in [kind for kind, _ in entry["status"]["messages"]]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="needs the signals that stop and continue a process")
def test_ctrl_c_says_so_where_the_server_does_not_answer(client, server, tmp_path, monkeypatch):
    graph = applied(client, read_graph(STARTER), "--steps", "100000", *SMALL)
    watched, ended = [], []

    async def interrupted(server, graph, run, steps, display):
        watched.append(run)
        raise asyncio.CancelledError

    class Frozen(Server):
        """Neither works nor answers from the moment on at which it should stop."""

        async def stop(self, *arguments):
            freeze.enter_context(server.frozen())
            async with Server(server.url, patience=2.0) as impatient:
                await impatient.stop(*arguments)

    async def execute():
        async with Frozen(server.url) as talk:
            await client_run.execute(talk, graph, tmp_path, quiet=True)

    def in_thread():
        try:
            asyncio.run(execute())
        except BaseException as error:
            ended.append(error)

    monkeypatch.setattr(client_run, "watch", interrupted)
    with ExitStack() as freeze:
        thread = threading.Thread(target=in_thread, daemon=True)
        thread.start()
        thread.join(60)
        assert not thread.is_alive()
    (error,) = ended
    assert isinstance(error, Failed), error
    assert "does not answer: the run may go on there" in str(error)
    server.stop(watched[0])
