"""Makes the seeds of the corpus: one small whole file of each kind. `python -m tools.fuzz.seeds`."""

from __future__ import annotations

import gzip
import shutil
import tempfile
from pathlib import Path

import torch
import trimesh
from safetensors.torch import save_file

from dreamer_core.formats import save_gaussians
from dreamer_core.formats.splat_files import sidecar
from dreamer_core.gaussians import Gaussians
from dreamer_core.initializers import initial_shape
from dreamer_core.optimize import LearningRates, OptimizationState, save_state
from tools.fuzz.__main__ import CORPUS

LIST = """{"defaults": {"preset": "fast", "draws": 2}}
{"prompt": "a {red|blue} mug", "seed": "0..2", "guidance.gamma": [0.3, 0.9]}
# a comment
{"prompt": "a chair", "loras": [["a:0.8"], ["b"]]}
"""
TABLE = 'prompt,seed,loras,name\n"a mug, red",0..1,a;b,\na chair,3,,chair\n'
MATERIALS = """newmtl a
Kd 0.8 0.1 0.1
Ks 1 1 1
d 0.5
map_Kd -s 2 2 1 -o 0.1 0 0 -clamp on missing.png
newmtl b
Kd 0 0 1
Tr 0.2
"""


def colourful(count: int, coefficients: int) -> Gaussians:
    """A few Gaussians with spherical harmonics."""
    g = initial_shape("sphere", 4, torch.Generator().manual_seed(0))[:count]
    return Gaussians(g.means, g.quats, g.log_scales, g.logit_opacities, g.sh0, torch.zeros(count, coefficients, 3))


def write_seeds(folder: Path) -> None:
    """All of them, in `folder`/READER."""
    kinds = {"ply": ".ply", "compressed_ply": ".compressed.ply", "splat": ".splat", "spz": ".spz"}
    for name, suffix in kinds.items():
        for count, coefficients in ((4, 0), (2, 8)):
            path = folder / name / f"whole{coefficients}{suffix}"
            save_gaussians(colourful(count, coefficients), path, metadata={"seed": 1})
            sidecar(path).unlink()
    (folder / "spz_body").mkdir()
    for whole in (folder / "spz").iterdir():
        (folder / "spz_body" / f"{whole.stem}.bin").write_bytes(gzip.decompress(whole.read_bytes()))
    box = trimesh.creation.box()
    box.visual.vertex_colors = [[200, 30, 30, 255]] * len(box.vertices)
    cloud = trimesh.PointCloud([[0, 0, 0], [1, 0, 0], [0, 1, 0]], colors=[[9, 9, 9, 255]] * 3)
    for name in ("obj", "glb", "stl", "off"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (box if name != "off" else trimesh.creation.box()).export(folder / name / f"whole.{name}")
    (folder / "points").mkdir(parents=True, exist_ok=True)
    cloud.export(folder / "points" / "cloud.ply")
    box.export(folder / "points" / "mesh.ply")
    (folder / "gltf").mkdir(exist_ok=True)
    gltf = trimesh.exchange.gltf.export_gltf(trimesh.Scene(box), embed_buffers=True)
    (folder / "gltf" / "whole.gltf").write_bytes(gltf["model.gltf"])
    state = OptimizationState.create(colourful(2, 0), LearningRates())
    save_state(state, folder / "state" / "whole.safetensors", {"identity": "{}", "memory": "{}"})
    (folder / "metrics").mkdir(exist_ok=True)
    (folder / "metrics" / "whole.csv").write_text("step,t\n0,5\n1,6\n")
    lora = {"lora_unet_a.lora_down.weight": torch.ones(1, 2), "lora_unet_a.lora_up.weight": torch.ones(2, 1)}
    lora |= {"lora_unet_a.alpha": torch.tensor(1.0), "text_encoder.b.lora_A.weight": torch.ones(1, 2)}
    for name in ("lora", "checkpoint"):
        (folder / name).mkdir(exist_ok=True)
        save_file(lora, folder / name / "lora.safetensors", metadata={"ss_network_args": "{}"})
    adapter = {"down_blocks.0.attn1.processor.to_q_mv.weight": torch.ones(1, 1)}
    (folder / "adapter").mkdir(exist_ok=True)
    save_file(adapter, folder / "adapter" / "whole.safetensors")
    lists = {"work_list/whole.jsonl": LIST, "work_list_csv/whole.csv": TABLE, "mtl/whole.mtl": MATERIALS}
    for name, text in lists.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    unet = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1, 4, 1, 1)}
    save_file(unet, folder / "checkpoint" / "unet.safetensors")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        write_seeds(Path(scratch))
        shutil.copytree(scratch, CORPUS, dirs_exist_ok=True)
