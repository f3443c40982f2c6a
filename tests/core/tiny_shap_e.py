"""A tiny ShapEPipeline whose decoder draws a known box, and the marching cubes table that real weights bring."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import torch

WIDTH = 16
LIMITS = ((-0.3, 0.3), (-0.3, 0.3), (-0.3, 0.8))
"""The box along Shap-E's axes: taller than wide."""


def save_tiny_shap_e(folder: Path, *, variation: float = 0.0, empty: bool = False) -> Path:
    """All of a ShapEPipeline's parts in small. The box is red towards +Z, green towards -Y and blue towards +X.

    `variation` lets the random prior change the decoder's weights; `empty` makes it draw nothing.
    """
    from diffusers import HeunDiscreteScheduler, PriorTransformer, ShapEPipeline
    from diffusers.pipelines.shap_e import ShapERenderer
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    from dreamer_core.teachers.quiet import quiet_loading
    from dreamer_core.teachers.sdxl.tiny_sdxl import _save_tokenizers, _text_config

    with torch.random.fork_rng(devices=[]), quiet_loading():
        torch.manual_seed(0)
        prior = PriorTransformer(
            num_attention_heads=2,
            attention_head_dim=8,
            embedding_dim=8,
            num_embeddings=WIDTH,
            embedding_proj_dim=32,
            time_embed_dim=8,
            num_layers=1,
            clip_embed_dim=16,
            additional_embeddings=0,
            time_embed_act_fn="gelu",
            norm_in_type="layer",
            encoder_hid_proj_type=None,
            added_emb_type=None,
        )
        renderer = ShapERenderer(
            param_names=("nerstf.mlp.0.weight",),
            param_shapes=((WIDTH, 93),),
            d_latent=8,
            d_hidden=WIDTH,
            n_hidden_layers=1,
            insert_direction_at=None,
        )
        _draw_box(renderer, variation, empty)
        _save_tokenizers(folder)
        pipeline = ShapEPipeline(
            prior=prior,
            text_encoder=CLIPTextModelWithProjection(_text_config(32, "quick_gelu")),
            tokenizer=CLIPTokenizer.from_pretrained(str(folder / "tokenizer")),
            scheduler=HeunDiscreteScheduler(
                beta_schedule="exp", num_train_timesteps=1024, prediction_type="sample", use_karras_sigmas=True
            ),
            shap_e_renderer=renderer,
        )
        pipeline.save_pretrained(folder)
    return folder


@torch.no_grad()
def _draw_box(renderer, variation: float, empty: bool) -> None:
    """Each side of the box is one hidden unit that grows outside of it; three more units carry the coordinates."""
    gain = 40.0
    first, last = renderer.mlp.mlp
    weight = torch.zeros(WIDTH, 93)
    for parameter in (first.bias, last.weight, last.bias):
        parameter.zero_()
    for axis, (low, high) in enumerate(LIMITS):
        for side, (sign, limit) in enumerate(((-1, -low), (1, high))):
            weight[2 * axis + side, axis] = sign * gain
            first.bias[2 * axis + side] = -gain * limit
        weight[6 + axis, axis] = 1.0
        first.bias[6 + axis] = 10.0  # silu is the identity there
    last.weight[0, :6] = -1.0
    last.bias[0] = -1.0 if empty else 0.02
    for channel, (axis, sign) in enumerate(((2, 1), (1, -1), (0, 1))):
        last.weight[3 + channel, 6 + axis] = 30.0 * sign
        last.bias[3 + channel] = -30.0 * sign * 10.0 - (4.5 if axis < 2 else 12.0)
    projection = renderer.params_proj.projections["nerstf__mlp__0__weight"]
    projection.norm.weight.fill_(variation)
    projection.norm.bias.zero_()
    projection.proj.bias.copy_(weight.flatten())
    cases, masks = marching_cubes_table()
    renderer.mesh_decoder.cases.copy_(cases)
    renderer.mesh_decoder.masks.copy_(masks)


def marching_cubes_table() -> tuple[torch.Tensor, torch.Tensor]:
    """Triangles between the crossed edges of a cube: the loops that the cube's faces cut, each as a fan.

    Corner x + 2 y + 4 z, edges in diffusers' order: along x, y and z, each over the four other corners.
    """
    edges = []
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        for second, first in product((0, 1), repeat=2):
            corner = [0, 0, 0]
            corner[others[0]], corner[others[1]] = first, second
            end = [*corner]
            end[axis] = 1
            edges.append(frozenset((_index(corner), _index(end))))
    cases, masks = torch.zeros(256, 5, 3, dtype=torch.long), torch.zeros(256, 5, dtype=torch.bool)
    for case in range(256):
        links: dict[int, list[int]] = {}
        for axis, level in product(range(3), (0, 1)):
            u, v = (a for a in range(3) if a != axis)
            ring = []
            for du, dv in ((0, 0), (1, 0), (1, 1), (0, 1)):
                corner = [0, 0, 0]
                corner[axis], corner[u], corner[v] = level, du, dv
                ring.append(_index(corner))
            inside = [bool(case >> c & 1) for c in ring]
            around = [edges.index(frozenset((ring[i], ring[(i + 1) % 4]))) for i in range(4)]
            crossed = [i for i in range(4) if inside[i] != inside[(i + 1) % 4]]
            pairs = [tuple(crossed)] if len(crossed) == 2 else [((i - 1) % 4, i) for i in range(4) if inside[i]]
            for a, b in pairs if crossed else []:
                links.setdefault(around[a], []).append(around[b])
                links.setdefault(around[b], []).append(around[a])
        triangles = []
        while links:
            loop = [next(iter(links))]
            while following := [e for e in links[loop[-1]] if e not in loop[1:]]:
                step = next((e for e in following if e != loop[0]), None)
                if step is None:
                    break
                loop.append(step)
            for edge in loop:
                del links[edge]
            triangles += [(loop[0], loop[i], loop[i + 1]) for i in range(1, len(loop) - 1)]
        for i, triangle in enumerate(triangles):
            cases[case, i], masks[case, i] = torch.tensor(triangle), True
    return cases, masks


def _index(corner: list[int]) -> int:
    return corner[0] + 2 * corner[1] + 4 * corner[2]
