"""examples/queue_workflow.py and dreamer_core.client against a small server that misbehaves; no ComfyUI."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dreamer_core.client.errors import Failed, NoAnswer, Refused, WrongAnswer
from dreamer_core.client.graph import changed, listing, read_graph
from dreamer_core.client.progress import Display, Steps
from dreamer_core.client.run import execute, files, finished, safe_name
from dreamer_core.client.server import Server

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "queue_workflow.py"
STARTER = ROOT / "example_workflows" / "api" / "text_to_3d_starter.json"
LOGIN = b"<!doctype html>\n<html><head><title>Sign in</title></head>\n<body>Password</body></html>"
FILE = {"filename": "a.ply", "subfolder": "", "type": "output"}
CONTENT = b"ply" * 1000


class Stub(ThreadingHTTPServer):
    """A ComfyUI that runs every graph at once; `answers` holds what it says instead, by the beginning of a path."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.answers, self.asked, self.run = {}, [], None
        self.outputs = {"5": {"3d": [FILE]}}


class Handler(BaseHTTPRequestHandler):
    """Answers as its Stub says."""

    def log_message(self, *_):
        pass

    def reply(self, body, status=200, kind="application/json", length=None, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.answer({})

    def do_POST(self):
        self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def answer(self, body):
        self.server.asked.append((self.path, body))
        for path, answer in self.server.answers.items():
            if self.path.startswith(path):
                return answer(self)
        if self.path == "/prompt":
            self.server.run = body["prompt_id"]
            return self.reply({"prompt_id": self.server.run, "node_errors": {}})
        if self.path.startswith("/history"):
            done = {"status": {"status_str": "success"}, "outputs": self.server.outputs}
            return self.reply({self.server.run: done} if self.server.run else {})
        if self.path.startswith("/view"):
            return self.reply(CONTENT, kind="application/octet-stream")
        if self.path.startswith("/ws"):
            return self.reply(b"", 404)
        return self.reply({"queue_running": [], "queue_pending": []} if self.path == "/queue" else {})


@pytest.fixture
def stub():
    with Stub() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def client():
    spec = importlib.util.spec_from_file_location("queue_workflow", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def says(*arguments, **options):
    return lambda handler: handler.reply(*arguments, **options)


def hangs_up(handler):
    handler.close_connection = True
    handler.connection.close()


def no_http(handler):
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")


def run(client, stub, folder, *options):
    return client.main([str(STARTER), "--server", stub.url, "--out", str(folder), *options])


def one_line(capsys):
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("0:0")]  # without the progress
    assert len(lines) == 1, err
    return lines[0]


# Replies that are not ComfyUI's
def test_a_well_behaved_server(client, stub, tmp_path, capsys):
    assert run(client, stub, tmp_path / "out", "--prompt", "a blue rocket", "--seed", "3", "--quiet") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out' / 'a.ply'}\n"
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.ply"]
    assert (tmp_path / "out" / "a.ply").read_bytes() == CONTENT
    (body,) = [body for path, body in stub.asked if path == "/prompt"]
    inputs = [data["inputs"] for data in body["prompt"].values()]
    assert "a blue rocket" in [i.get("prompt") for i in inputs]
    assert {i["seed"] for i in inputs if "seed" in i} == {3}


REPLIES = {
    "a login page": (says(LOGIN, kind="text/html"), 1, ["an HTML page (Sign in) (200 OK)", "--server should name"]),
    "a proxy's error page": (says(LOGIN, 502, "text/html"), 1, ["an HTML page (Sign in) (502 Bad Gateway)"]),
    "not found": (says(b"404: Not Found", 404, "text/plain"), 1, ["got '404: Not Found' (404 Not Found)"]),
    "a JSON error": (says({"detail": "no"}, 403), 1, ["""'{"detail": "no"}' (403 Forbidden)"""]),
    "cut JSON": (says(b'{"queue_running": ['), 1, ["""got '{"queue_running": ['"""]),
    "bytes": (says(bytes(range(128, 256))), 1, ["expected an answer of ComfyUI"]),
    "deep JSON": (says(b"[" * 100_000), 1, ["expected an answer of ComfyUI"]),
    "a shortened reply": (says(b'{"a":', length=500), 1, ["broke off (it ended too early)"]),
    "nothing": (says(b""), 1, ["got null"]),
    "a list": (says([1]), 1, ["got [1]"]),
    "a number": (says(7), 1, ["got 7"]),
    "a closed connection": (hangs_up, 2, ["no ComfyUI answers at", "start it, or name another"]),
    "no HTTP": (no_http, 2, ["no ComfyUI answers at"]),
}


@pytest.mark.parametrize("path", ["/object_info", "/prompt"])
@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_that_is_not_comfyuis_is_one_line(client, stub, tmp_path, capsys, name, path):
    answer, code, texts = REPLIES[name]
    stub.answers[path] = answer
    assert run(client, stub, tmp_path) == code
    line = one_line(capsys)
    assert all(text in line for text in [*texts, stub.url]), line
    cancelled = [path for path, _ in stub.asked if path.endswith("/cancel")]
    assert len(cancelled) == (path == "/prompt" and code == 1)  # it may have been queued all the same


@pytest.mark.parametrize("path", ["/history", "/queue"])
@pytest.mark.parametrize("name", ["a proxy's error page", "a closed connection"])
def test_a_run_is_watched_through_bad_replies_until_patience_ends(stub, tmp_path, name, path):
    answer, code, texts = REPLIES[name]
    stub.answers = {"/history": says({})} | {path: answer}

    async def work(patience):
        async with Server(stub.url, patience=patience) as server:
            await execute(server, read_graph(STARTER), tmp_path, quiet=True)

    with pytest.raises(WrongAnswer if code == 1 else NoAnswer) as error:
        asyncio.run(work(1.5))
    assert all(text in str(error.value) for text in texts)
    assert len([p for p, _ in stub.asked if p.startswith(path)]) >= 2
    stub.answers.clear()
    asyncio.run(work(30))
    assert (tmp_path / "a.ply").read_bytes() == CONTENT


WRONG_SHAPES = {
    "/object_info": [None, [], "x"],
    "/prompt": [None, [], {}, {"prompt_id": 3}, {"prompt_id": None, "node_errors": {}}],
    "/history": [None, [], "x"],
    "/queue": [None, [], {}, {"queue_running": [], "queue_pending": 3}, {"queue_running": [[]], "queue_pending": []}],
}


@pytest.mark.parametrize("path", WRONG_SHAPES)
def test_json_of_another_form_is_named(stub, path):
    async def ask(server):
        return await {
            "/object_info": server.node_types,
            "/prompt": lambda: server.queue({}, "r"),
            "/history": lambda: server.history("r"),
            "/queue": lambda: server.place("r"),
        }[path]()

    async def work():
        async with Server(stub.url) as server:
            for shape in WRONG_SHAPES[path]:
                stub.answers[path] = says(shape)
                with pytest.raises(WrongAnswer, match=f"{path}.*expected what ComfyUI says there, got"):
                    await ask(server)

    asyncio.run(work())


REFUSALS = [
    ({"error": {"message": "Prompt has no outputs", "details": "x"}, "node_errors": []}, "Prompt has no outputs (x)"),
    ({"error": "no prompt"}, "no prompt"),
    ({"error": None, "node_errors": {"1": 3, "2": {"errors": ["odd", {"message": "bad"}]}}}, "bad"),
    ({"node_errors": {"1": {"errors": [{"extra_info": [], "details": 4, "message": None}]}}}, "node 1"),
]


@pytest.mark.parametrize(("reply", "text"), REFUSALS)
def test_a_refusal_of_any_form_is_told(client, stub, tmp_path, capsys, reply, text):
    stub.answers["/prompt"] = says(reply, 400)
    assert run(client, stub, tmp_path, "--quiet") == 2
    err = capsys.readouterr().err
    assert err.startswith("ComfyUI refused the graph")
    assert text in err


def test_a_redirect_to_a_login_names_its_address(client, stub, tmp_path, capsys):
    stub.answers["/object_info"] = says(b"", 302, Location="/login?next=x")
    stub.answers["/login"] = says(LOGIN, kind="text/html")
    assert run(client, stub, tmp_path) == 1
    assert f"{stub.url}/login: expected an answer of ComfyUI, got an HTML page (Sign in)" in one_line(capsys)


@pytest.mark.parametrize("address", ["", "http://", "ftp://x", "localhost:port", "127.0.0.1:99999", "http://[::1"])
def test_an_address_that_is_none(client, capsys, address):
    assert client.main([str(STARTER), "--server", address]) == 2
    assert one_line(capsys).startswith("--server: expected HOST:PORT or http://HOST:PORT, got ")


@pytest.mark.parametrize("path", ["/object_info", "/prompt", "/view"])
def test_a_silent_server_is_said_to_be(stub, tmp_path, path):
    silence = threading.Event()
    stub.answers[path] = lambda _: silence.wait(20)

    async def work():
        async with Server(stub.url, patience=0.5) as server:
            await server.node_types()
            await execute(server, read_graph(STARTER), tmp_path, quiet=True)

    began = time.monotonic()
    with pytest.raises(NoAnswer, match=r"no ComfyUI answers at http.*silent for 0\.5 s"):
        asyncio.run(work())
    assert time.monotonic() - began < 20
    assert list(tmp_path.iterdir()) == []
    silence.set()


# Downloads
def chunked(handler):
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"64\r\n" + b"x" * 50)


def reset(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "3000")
    handler.end_headers()
    handler.wfile.write(b"ply")
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" + bytes(4))
    handler.connection.close()


DOWNLOADS = {
    "cut": (says(CONTENT[:1000], length=3000), "a.ply: the reply of"),
    "cut in a chunk": (chunked, "a.ply: the reply of"),
    "reset": (reset, "a.ply: the reply of"),
    "a login page": (says(LOGIN, kind="text/html; charset=utf-8"), "/view: expected an answer of ComfyUI, got an HTML"),
    "gone": (says(b"", 404), "/view: expected an answer of ComfyUI, got nothing (404 Not Found)"),
    "a cut error page": (says(LOGIN, 502, "text/html", length=5000), "a.ply: the reply of"),
}


@pytest.mark.parametrize("name", DOWNLOADS)
def test_a_file_comes_whole_or_not_at_all(client, stub, tmp_path, capsys, name):
    stub.answers["/view"], text = DOWNLOADS[name]
    (tmp_path / "a.ply").write_bytes(b"older")
    assert run(client, stub, tmp_path, "--quiet") == 1
    assert text in one_line(capsys)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a.ply": b"older"}


def test_a_file_that_cannot_be_written(client, stub, tmp_path, capsys):
    (tmp_path / "a.ply").mkdir()
    assert run(client, stub, tmp_path, "--quiet") == 1
    assert "a.ply: expected to write a file there, got: " in one_line(capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]


def test_names_of_files_stay_in_the_folder(client, stub, tmp_path, capsys):
    names = ["../../up.ply", "C:\\x\\b.ply", "..", "q?:\0.ply", "a.ply"]
    stub.outputs = {"1": [{"filename": n, "type": "output"} for n in names], "2": [FILE | {"subfolder": "s/t"}]}
    assert run(client, stub, tmp_path / "out", "--quiet") == 0
    made = {"up.ply", "b.ply", "file", "q___.ply", "a.ply", "s_t_a.ply"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == made
    assert len(capsys.readouterr().out.splitlines()) == len(made)
    assert safe_name("") == "file"


def test_outputs_of_any_form_are_searched():
    odd = {"a": [FILE, {"filename": 3, "type": "output"}, None, {"b": [{"filename": "x", "type": []}]}], "c": "x"}
    assert list(files(odd)) == [FILE]
    assert list(files(FILE | {"subfolder": None})) == [FILE]


@pytest.mark.parametrize("status", [None, [], {"messages": 3}, {"messages": [[], "x", ["execution_error", None]]}])
def test_an_end_of_any_form_is_a_failure(status):
    with pytest.raises(Failed, match="the run ended as unknown"):
        finished({}, {"status": status})


# Graphs
GRAPHS = {
    "the editor's": ('{"nodes": [], "links": []}', "expected API format, got the editor's"),
    "a list": ("[1, 2]", "got a list"),
    "a string": ('"graph"', "got a string"),
    "a number": ("3", "got a number"),
    "null": ("null", "got nothing"),
    "empty": ("{}", "got an empty object"),
    "no text": ("", "expected JSON, got"),
    "a request": ('{"prompt": {"1": {"class_type": "A", "inputs": {}}}}', "got a request to the server"),
    "another object": ('{"a": 1}', "got a number as 'a'"),
    "no type": ('{"1": {"inputs": {}}}', "got nothing as class_type of '1'"),
    "a type that is a list": ('{"1": {"class_type": [], "inputs": {}}}', "got a list as class_type of '1'"),
    "no inputs": ('{"1": {"class_type": "A"}}', "got nothing as inputs of '1'"),
    "inputs in a list": ('{"1": {"class_type": "A", "inputs": [1]}}', "got a list as inputs of '1'"),
    "Latin-1": ('{"é": 1}'.encode("latin-1"), "expected JSON in UTF-8"),
    "UTF-16": ('{"1": {}}'.encode("utf-16"), "expected JSON in UTF-8"),
    "a picture": (b"\x89PNG\r\n\x1a\n", "expected JSON in UTF-8"),
    "deep": ("[" * 100_000, "nested too deeply"),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_file_that_is_no_api_graph_is_one_line(client, tmp_path, capsys, name):
    content, text = GRAPHS[name]
    path = tmp_path / "graph.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert client.main([str(path), "--list"]) == 2
    line = one_line(capsys)
    assert line.startswith(f"{path}: expected")
    assert text in line


def test_the_byte_order_mark_of_windows_editors_is_read_over(tmp_path):
    path = tmp_path / "graph.json"
    path.write_bytes(b"\xef\xbb\xbf" + STARTER.read_bytes())
    assert read_graph(path) == read_graph(STARTER)


def test_titles_of_any_form(tmp_path):
    path = tmp_path / "graph.json"
    odd = [None, [], {"title": None}, {"title": 3}, {"title": ""}]
    path.write_text(
        json.dumps({str(i): {"class_type": "A", "inputs": {"x": 1}, "_meta": m} for i, m in enumerate(odd)})
    )
    made = changed(read_graph(path), {}, assignments=["A.x=2"])
    assert [data["inputs"] for data in made.values()] == [{"x": 2}] * len(odd)
    with pytest.raises(Refused, match="did you mean A"):
        changed(read_graph(path), {}, assignments=["B.x=2"])


def test_node_types_of_any_form(tmp_path):
    graph = {"1": {"class_type": "A", "inputs": {"x": 1}}}
    dynamic = ["COMFY_DYNAMICCOMBO_V3", {"options": [3, {"key": "k", "inputs": []}]}]
    inputs = {"required": {"a": [], "b": "INT", "c": [3], "d": [["u", 1]], "e": ["COMBO", []], "f": dynamic}}
    for known in ({"A": None}, {"A": {"input": []}}, {"A": {"input": {"required": None}}}, {"A": {"input": inputs}}):
        assert "    x = 1" in list(listing(graph, known))
    shown = list(listing(graph, {"A": {"input": inputs}}))
    assert "    d = (default)   [u, 1]" in shown
    assert "    f = (default)   [k]" in shown


def test_messages_of_any_form_are_heard():
    steps = Steps(None, "r")
    state = {"type": "progress_state", "data": {"prompt_id": "r", "nodes": {}}}
    odd = ["", "{", "3", "[]", '{"data": 3, "type": "progress_state"}', b"", b"\0\0\0\3\0\0\0\xffx", None]
    for nodes in (None, [], {"1": None}, {"1": {"state": "running"}}, {"1": {"state": "running", "value": "x"}}):
        odd.append(json.dumps(state | {"data": {"prompt_id": "r", "nodes": nodes}}))
    for message in odd:
        steps._hear(message)
    assert steps.node == ""
    steps._hear(
        json.dumps(state | {"data": {"prompt_id": "r", "nodes": {"4": {"state": "running", "value": 2, "max": 5}}}})
    )
    steps._hear(b"\0\0\0\3\0\0\0\0014" + b"20 Gaussians")
    assert (steps.node, steps.done, steps.total, steps.text_node, steps.text) == ("4", 2, 5, "4", "20 Gaussians")


def shown(monkeypatch, terminal):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", stream)
    with Display() as display:
        display.show("waiting, number 2 in the queue")
        for done in range(0, 101):
            display.show("Optimize, 20\nGaussians", done, 100)
        display.show("Export", 0, 1)
    return stream.getvalue()


def test_progress_in_a_file_is_a_line_now_and_then(monkeypatch):
    lines = shown(monkeypatch, terminal=False).splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [
        "waiting, number 2 in the queue",
        *(f"Optimize, 20 Gaussians {done}/100" for done in range(0, 101, 10)),
        "Export",
    ]


def test_progress_on_a_terminal_is_a_bar(monkeypatch):
    text = shown(monkeypatch, terminal=True)
    assert text.count("\n") == 1
    parts = [part.strip() for part in text.split("\r")]
    assert any(p.startswith("Optimize, 20 Gaussians |") and "| 50/100 [" in p for p in parts)
    assert any(p.startswith("waiting, number 2 in the queue [") for p in parts)
    assert parts[-1].startswith("Export [")


# Ctrl-C
@contextmanager
def started(stub, folder):
    command = [sys.executable, SCRIPT, STARTER, "--server", stub.url, "--out", folder]
    process = subprocess.Popen([str(c) for c in command], stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition, timeout=30):
    deadline = time.monotonic() + timeout
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def asked(stub, path):
    return [p for p, _ in stub.asked if path in p]


signals = pytest.mark.skipif(os.name == "nt", reason="Ctrl-C cannot be sent to one process there")


@signals
def test_ctrl_c_while_the_graph_is_being_queued_stops_it_afterwards(stub, tmp_path):
    """The server checks the graph for a second and queues it then, though nobody waits for the reply any more."""
    queue = {"queue_running": [], "queue_pending": []}

    def slow(handler):
        time.sleep(1.5)
        queue["queue_pending"] = [[1, stub.asked[-1][1].get("prompt_id") or identity(), {}, {}, []]]
        handler.reply({"prompt_id": identity(), "node_errors": {}})

    def identity():
        return next(body["prompt_id"] for path, body in stub.asked if path == "/prompt")

    def cancel(handler):
        queue["queue_pending"] = []
        handler.reply({"cancelled": True})

    stub.answers = {
        "/prompt": slow,
        "/api/jobs/": cancel,
        "/queue": lambda handler: handler.reply(queue),
        "/history": says({}),
    }
    with started(stub, tmp_path) as process:
        wait_for(lambda: asked(stub, "/prompt"))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, queue["queue_pending"]) == (130, [])
    assert err.splitlines()[-1].startswith("interrupted; the server keeps what was done")
    assert "Traceback" not in err
    assert len(asked(stub, "/cancel")) >= 2
    assert list(tmp_path.iterdir()) == []


@signals
def test_a_second_ctrl_c_ends_at_once(stub, tmp_path):
    silence = threading.Event()
    stub.answers = {"/history": says({}), "/api/jobs/": lambda _: silence.wait(60)}
    stub.answers["/queue"] = lambda handler: handler.reply({"queue_running": [[1, stub.run]], "queue_pending": []})
    with started(stub, tmp_path) as process:
        wait_for(lambda: asked(stub, "/queue"))
        process.send_signal(signal.SIGINT)
        wait_for(lambda: asked(stub, "/cancel"))
        assert process.poll() is None
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    silence.set()
    assert process.returncode == 130
    assert time.monotonic() - began < 15
    assert err.splitlines()[-1].startswith("interrupted")
    assert "Traceback" not in err
    assert "never retrieved" not in err


@signals
def test_ctrl_c_in_a_download_leaves_nothing(stub, tmp_path):
    silence = threading.Event()

    def slow(handler):
        handler.reply(CONTENT, length=10 * len(CONTENT))
        handler.wfile.flush()
        silence.wait(60)

    stub.answers["/view"] = slow
    with started(stub, tmp_path) as process:
        wait_for(lambda: [p for p in tmp_path.iterdir() if p.suffix == ".part"])
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    silence.set()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


# The environment
def test_without_the_library_one_line_says_what_to_install():
    for missing in ("aiohttp", "tqdm"):
        code = (
            f"import runpy, sys; sys.modules[{missing!r}] = None; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 1
        line = f"queue_workflow.py needs {missing}: run it with ComfyUI's Python, or: pip install aiohttp tqdm\n"
        assert done.stderr == line


def test_the_client_is_light_and_alone():
    code = (
        "import sys, dreamer_core.client.run\n"
        "heavy = {'torch', 'numpy', 'PIL', 'comfy'} & sys.modules.keys()\n"
        "own = [m for m in sys.modules if m.startswith('dreamer_core.') and not m.startswith('dreamer_core.client')]\n"
        "print(sorted(heavy), own)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "[] []\n"
