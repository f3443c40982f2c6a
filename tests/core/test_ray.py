"""Work lists by Ray: two workers, a cluster of two nodes, and what happens when one of them dies."""

import json
import threading
import time

import psutil
import pytest

from dreamer_core.batch.index import INDEX
from dreamer_core.cli import main

ray = pytest.importorskip("ray", reason="needs ray: pip install 'dreamer-xl[ray]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of Ray's own sockets and files
]
SETTINGS = {"preset": "starter", "views": 1, "resolution": 64, "count": 150}


@pytest.fixture(scope="module")
def work(tiny_sdxl_dir, tmp_path_factory):
    """A list, and its objects made one after another in this process."""
    folder = tmp_path_factory.mktemp("ray")
    lines = [{"defaults": {**SETTINGS, "model": str(tiny_sdxl_dir)}}]
    lines += [
        {"prompt": "a red mug", "name": "first", "steps": 8},
        {"prompt": "a blue mug", "name": "second", "steps": 8},
        {"prompt": "a mug", "name": "third", "lora": ["gone.safetensors"]},
    ]
    path = folder / "list.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert main(["batch", str(path), "--out", str(folder / "serial")]) == 1
    return path, folder / "serial"


class Killer(threading.Thread):
    """Calls `kill` as soon as a worker is making an object, with the workers that are."""

    def __init__(self, kill):
        super().__init__(daemon=True)
        self.kill, self.over, self.killed = kill, threading.Event(), False

    def run(self):
        while not self.over.is_set() and not self.killed:
            busy = [p for p in psutil.Process().children(recursive=True) if name(p).startswith("ray::Worker.make")]
            if busy:
                self.killed = True
                self.kill(busy)
            time.sleep(0.1)


def name(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def check(out, serial):
    content = json.loads((out / INDEX).read_text())
    assert {row["name"]: row["state"] for row in content["objects"]} == {
        "first": "complete", "second": "complete", "third": "failed",
    }  # fmt: skip
    assert "--lora: expected a file or folder that exists" in content["objects"][2]["error"]
    for made in ("first", "second"):
        assert (out / made / "splat.ply").read_bytes() == (serial / made / "splat.ply").read_bytes()
        assert {p.name for p in (out / made).iterdir()} == {p.name for p in (serial / made).iterdir()}


def test_a_list_outlives_a_worker_that_is_killed(work, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    path, serial = work
    killer = Killer(lambda busy: busy[0].kill())
    killer.start()
    try:
        assert main(["batch", str(path), "--out", str(tmp_path / "made"), "--ray", "--workers", "2"]) == 1
    finally:
        killer.over.set()
    assert killer.killed
    assert "its worker is lost; once more" in capsys.readouterr().err
    check(tmp_path / "made", serial)


def test_a_list_outlives_a_node_of_its_cluster(work, tmp_path, monkeypatch, capsys):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    path, serial = work
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    killer = Killer(lambda busy: cluster.remove_node(node, allow_graceful=False) if len(busy) else None)
    killer.start()
    try:
        assert main(["batch", str(path), "--out", str(tmp_path / "made"), "--ray", cluster.address]) == 1
    finally:
        killer.over.set()
        cluster.shutdown()
    assert killer.killed
    check(tmp_path / "made", serial)
