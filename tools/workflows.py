"""Writes example_workflows/*.json and their API copies from the descriptions below.

python -m tools.workflows                        # starts the prepared ComfyUI for its /object_info
python -m tools.workflows --server HOST:PORT     # asks a running one
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dreamer_core.optimize import PRESETS
from dreamer_core.optimize.presets import RELEASED_NEGATIVE, STARTER_SIDES
from dreamer_core.teachers.multiview.cameras import AZIMUTHS
from dreamer_core.teachers.multiview.files import PUBLISHED

from . import comfyui
from .graph_format import NOTE, Column, Group, Info, Link, Node, Workflow

FOLDER = comfyui.ROOT / "example_workflows"
STARTER = "starter (built in)"
CHECKPOINT = "YOUR-SDXL-CHECKPOINT.safetensors"
PICTURE = "YOUR-PICTURE.png"
LORA = "YOUR-SDXL-LORA.safetensors"
VIEWER = 480
"""Height of a 3D viewer."""
FOUR_SIDES = 260
"""Height that the editor gives the picture below an Export node."""
READ_ME = "#a1793d"

TRIPOSPLAT = {
    "triposplat_fp16.safetensors": "models/diffusion_models",
    "dino_v3_vit_h.safetensors": "models/clip_vision",
    "flux2-vae.safetensors": "models/vae",
    "triposplat_vae_decoder_fp16.safetensors": "models/vae",
    "birefnet.safetensors": "models/background_removal",
}


def note(title: str, text: str) -> Node:
    return Node(NOTE, title, {"text": text.strip()})


def read_me(text: str) -> Column:
    """The first column: what the graph does and what to fill in."""
    return Column(420, [Group("Read me", [note("Read me", text)], READ_ME)])


def loader(checkpoint: str) -> Node:
    return Node("DreamerXLLoader", "Loader", {"checkpoint": checkpoint})


def prompt(clip: Link, text: str, title: str = "Prompt", **inputs: Any) -> Node:
    return Node("DreamerXLPrompt", title, {"clip": clip, "prompt": text, **inputs})


def starter_prompt(clip: Link, text: str, title: str = "Prompt") -> Node:
    """With the words that the starter knows for its two sides."""
    return prompt(clip, text, title, **STARTER_SIDES)


def initialize(count: int, shape: str = "sphere") -> Node:
    return Node("DreamerXLInitialize", "Initialize", {"source": shape, "source.count": count, "source.size": 0.6})


def starter_start() -> Node:
    """As the preset `starter` begins."""
    preset = PRESETS["starter"]
    inputs = {"source.count": preset.count, "source.size": preset.size, "source.opacity": preset.opacity}
    return Node("DreamerXLInitialize", "Initialize", {"source": "sphere", **inputs})


def optimizer(model: Link, vae: Link, words: Link, splat: Link, preset: str, title: str = "Optimize", **i: Any) -> Node:
    inputs = {"model": model, "vae": vae, "prompt": words, "splat": splat, "preset": preset}
    return Node("DreamerXLOptimize", title, {**inputs, **i}, VIEWER)


def look(model: Link, vae: Link, words: Link, splat: Link, preset: str) -> Node:
    inputs = {"model": model, "vae": vae, "prompt": words, "preset": preset, "splat": splat}
    return Node("DreamerXLTeacherPreview", "Teacher Preview", inputs, FOUR_SIDES)


def export(splat: Link, name: str, title: str = "Export") -> Node:
    return Node("DreamerXLExport", title, {"splat": splat, "filename_prefix": f"3d/{name}"}, FOUR_SIDES)


def changed(kind: str, title: str, parts: tuple[Link, Link, Link], splat: Link, preset: str, **inputs: Any) -> Node:
    """Restyle or Edit: of MODEL, CLIP and VAE."""
    given = dict(zip(("model", "clip", "vae"), parts)) | {"splat": splat, "preset": preset}
    return Node(f"DreamerXL{kind}", title, {**given, **inputs}, VIEWER)


def region(splat: Link, shape: str, **numbers: float) -> Node:
    inputs = {"splat": splat, "shape": shape, **{f"shape.{name}": value for name, value in numbers.items()}}
    return Node("DreamerXLRegion", "Region", inputs, VIEWER)


def preview(splat: Link, title: str = "Preview") -> Node:
    return Node("DreamerXLPreview", title, {"splat": splat}, VIEWER)


def images(link: Link, title: str) -> Node:
    return Node("PreviewImage", title, {"images": link}, 240)


def text_to_3d(name: str, about: str, checkpoint: str, words: str, count: int, preset: str) -> Workflow:
    """Loader, prompt, sphere, optimiser, preview, files."""
    model = loader(checkpoint)
    starter = checkpoint == STARTER
    said = starter_prompt(model[1], words) if starter else prompt(model[1], words, negative=RELEASED_NEGATIVE)
    start = starter_start() if starter else initialize(count)
    made = optimizer(model[0], model[2], said[0], start[0], preset)
    return Workflow(
        name,
        [
            read_me(about),
            Column(360, [Group("1  Model", [model]), Group("2  What to make", [said, start])]),
            Column(
                420,
                [
                    Group("3  Look at the teacher", [look(model[0], model[2], said[0], start[0], preset)]),
                    Group("4  Optimise", [made]),
                ],
            ),
            Column(
                420,
                [
                    Group("5  Keep", [export(made[0], name)]),
                    Group("6  Look", [preview(made[0]), images(made[1], "Views")]),
                ],
            ),
        ],
        "run" if starter else "graph",
        {} if starter else {checkpoint: "an SDXL checkpoint of yours"},
    )


def starter() -> Workflow:
    return text_to_3d(
        "text_to_3d_starter",
        f"""
# Text to 3D in about two minutes, without a GPU

Press **Run**. *Teacher Preview* shows first what the checkpoint itself draws from four sides, and what the run costs.
Then the object appears in the viewer of *Optimize* while it grows; when it is done, *Preview* shows it and *Export* has
written it to `output/3d`.

This graph uses the checkpoint that comes with the pack (`{STARTER}`): a miniature of SDXL that knows sixteen things in
eight colours and three patterns, such as

- a red mushroom
- a blue striped rocket
- a yellow duck
- a green dotted tree

Change the words in *Prompt* and run again; its other inputs are behind *Show advanced inputs*. A LoRA goes between
*Loader* and the other nodes: **lora_swap** shows it, with a LoRA of gold that comes with the pack. *Export* writes
other files, too (`format`, `turntable`); **splat_to_mesh** makes a mesh for Blender and game engines.

With a GPU, open **text_to_3d_sdxl** and use your own SDXL checkpoint: any object, any style.

**Cancel** keeps what is done: the same graph goes on from there.
""",
        STARTER,
        "a red mushroom",
        4000,
        "starter",
    )


FILL_IN = f"""
## Fill in

1. *Loader*: `{CHECKPOINT}` is a placeholder. Choose **any SDXL checkpoint** from your `models/checkpoints` folder
   (a base model or a fine-tune; epsilon or v-prediction).
2. *Prompt*: **one object in plain words**, without a place or a camera.
"""


def sdxl() -> Workflow:
    return text_to_3d(
        "text_to_3d_sdxl",
        f"""
# Text to 3D with your SDXL checkpoint, published settings

{FILL_IN.strip()}

## What it does

Preset `official`: the released code's values, 2,500 steps of 4 views at 1024 x 1024; *Prompt* holds its negative
prompt. Change `preset` in *Optimize* to `paper` for what the paper's text says otherwise (its `gamma`, above all), or
to `fast` for a third of the steps at 768 x 768.

*Teacher Preview* runs first: cancel there if the pictures are not what you want; nothing long has begun yet.

It wants a GPU with 24 GB; with 12 GB open *text_to_3d_sdxl_low_vram*. A LoRA loader goes between *Loader* and
*Prompt* / *Optimize*, see *lora_swap*.

**Cancel** keeps what is done: the same graph goes on from there.
""",
        CHECKPOINT,
        "a DSLR photo of a corgi wearing a wizard hat",
        81_920,
        "official",
    )


def low_vram() -> Workflow:
    return text_to_3d(
        "text_to_3d_sdxl_low_vram",
        f"""
# Text to 3D with SDXL on 12 GB

{FILL_IN.strip()}

## What it does

Preset `low_vram`: the paper's steps at 768 x 768 with 2 views per step, at most 300,000 Gaussians, and parts of the
encoder computed twice instead of being kept.

Still out of memory? Set `views` in *Optimize* to 1, then `resolution` to 512; start ComfyUI with `--lowvram`; close
other programs that use the GPU.
""",
        CHECKPOINT,
        "a wooden rocking horse, highly detailed",
        40_000,
        "low_vram",
    )


def multiview() -> Workflow:
    """Six views by a sampler, Gaussians fitted to them, and the optimiser that asks the adapter, too."""
    preset = PRESETS["multiview"]
    words = "a DSLR photo of a corgi wearing a wizard hat"
    model = loader(CHECKPOINT)
    together = Node("DreamerXLMultiView", "Multi-View", {"model": model[0], "adapter": PUBLISHED})
    said = prompt(model[1], words, negative=RELEASED_NEGATIVE)
    wanted = Node("CLIPTextEncode", "Words for the views", {"clip": model[1], "text": words})
    unwanted = Node("CLIPTextEncode", "What to avoid", {"clip": model[1], "text": RELEASED_NEGATIVE})
    side = preset.config.resolution
    empty = Node("EmptyLatentImage", "Six views", {"width": side, "height": side, "batch_size": len(AZIMUTHS)})
    sampled = Node(
        "KSampler",
        "Sample",
        {"model": together[0], "positive": wanted[0], "negative": unwanted[0], "latent_image": empty[0], "seed": 0}
        | {"steps": 40, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0},
    )
    drawn = Node("VAEDecode", "Decode", {"samples": sampled[0], "vae": model[2]})
    pictures = {"source": "views", "source.images": drawn[0], "source.count": preset.count}
    start = Node("DreamerXLInitialize", "Initialize", pictures)
    made = optimizer(together[0], model[2], said[0], start[0], "multiview")
    about = f"""
# Text to 3D without a second face

A checkpoint that judges one picture at a time gives an object a second front. With MV-Adapter yours looks at six views
of one object together.

{FILL_IN.strip()}
3. *Words for the views*: **the same words**.
4. *Multi-View*: get `{PUBLISHED}` from Hugging Face, huanngzh/mv-adapter, into `models/model_patches`, and
   reload the page.

A LoRA loader goes between *Loader* and the nodes that take its MODEL and CLIP, see *lora_swap*: the views are drawn in
its style.

## What it does

1. *Sample* draws six views at once: front, 45, 90, 180, 270 and 315 degrees. `batch_size` of *Six views* is their
   number. Look at *The six views*: is one wrong, **Cancel** and give *Sample* another seed; *Optimize* takes long.
2. *Initialize*, source `views`, carves their outlines and fits Gaussians to them: a start with one front. It wants
   **one object on an even background, with a margin**, and says so where a picture has none.
3. *Optimize*, preset `multiview`: at first 70, at last 20 of 100 steps ask about all six views, the others about views
   from anywhere. `fast` does so less often.

**Not measured:** the published file was not at hand when this was made; `docs/multiview.md` says what was checked.
"""
    return Workflow(
        "text_to_3d_multiview",
        [
            read_me(about),
            Column(360, [Group("1  Model", [model, together]), Group("2  What to make", [said])]),
            Column(360, [Group("3  Draw six views", [wanted, unwanted, empty, sampled, drawn])]),
            Column(420, [Group("4  Look at them", [images(drawn[0], "The six views")]), Group("5  Start", [start])]),
            Column(420, [Group("6  Optimise", [made]), Group("7  Keep", [export(made[0], "text_to_3d_multiview")])]),
            Column(
                420, [Group("8  Before and after", [preview(start[0], "The start"), preview(made[0], "The object")])]
            ),
        ],
        "graph",
        {CHECKPOINT: "an SDXL checkpoint of yours"},
    )


def lora_swap() -> Workflow:
    model = loader(STARTER)
    strengths = {"strength_model": 1.0, "strength_clip": 1.0}
    lora = Node(
        "LoraLoader", "LoRA", {"model": model[0], "clip": model[1], "lora_name": "gold.safetensors", **strengths}
    )
    words = "a red rocket"
    plain, golden = starter_prompt(model[1], words, "Prompt without"), starter_prompt(lora[1], words, "Prompt with")
    start = starter_start()
    without = optimizer(model[0], model[2], plain[0], start[0], "starter", "Optimize without")
    with_it = optimizer(lora[0], model[2], golden[0], start[0], "starter", "Optimize with")
    about = """
# The same object without and with a LoRA

Press **Run**. Both branches have the same words, the same seed and the same start; only the lower one goes through the
LoRA loader.

`gold.safetensors` comes with the pack (it is offered beside the files of your `models/loras` folder) and makes
everything of gold. It fits the built-in starter only.

## With your own

Choose your SDXL checkpoint in *Loader*, your LoRA in *LoRA*, and the preset `official` or `low_vram` in both
*Optimize* nodes; empty `overhead` in both *Prompt* nodes (advanced), which holds the starter's words for the height.
Several LoRA loaders can follow one another; any node that patches a MODEL fits, too.
"""
    return Workflow(
        "lora_swap",
        [
            read_me(about),
            Column(360, [Group("1  Model and LoRA", [model, lora, start])]),
            Column(360, [Group("2  Words", [plain, golden])]),
            Column(420, [Group("3  Optimise", [without, with_it])]),
            Column(420, [Group("4  Look", [preview(without[0], "Without"), preview(with_it[0], "With")])]),
            Column(360, [Group("5  Keep", [export(without[0], "lora-without"), export(with_it[0], "lora-with")])]),
        ],
        "run",
    )


def restyle_and_edit() -> Workflow:
    model = loader(STARTER)
    strengths = {"strength_model": 1.0, "strength_clip": 1.0}
    lora = Node(
        "LoraLoader", "LoRA", {"model": model[0], "clip": model[1], "lora_name": "gold.safetensors", **strengths}
    )
    said, start = starter_prompt(model[1], "a red mushroom"), starter_start()
    made = optimizer(model[0], model[2], said[0], start[0], "starter", "Any splat")
    part = region(made[0], "box", x=0.0, y=0.3, z=0.0, width=2.0, height=0.7, depth=2.0)
    words = {"source": "a red mushroom", "prompt": "a blue mushroom"}
    edited = changed("Edit", "Edit", (model[0], model[1], model[2]), made[0], "starter", region=part[0], **words)
    golden = changed("Restyle", "Restyle", (lora[0], lora[1], model[2]), made[0], "starter", prompt="a red mushroom")
    about = """
# Change a splat that exists

Press **Run**. The first *Optimize* only stands for **any splat of yours**: replace it by *Dreamer XL Initialize* with a
file, by *File to Splat*, or by TripoSplat (see *triposplat_restyle*).

- **Edit** is told what the splat is and what it should be, and changes what both texts say differently. *Region* says
  where: queue once, then drag the handles of the box in its viewer, and queue again. Everything outside stays to the
  bit.
- **Restyle** makes the same object in the style of checkpoint, LoRA and prompt; here of gold, with the LoRA that comes
  with the pack.

`strength` is what `denoise` is for pictures: 0.3 refines, 0.6 restyles, 0.9 paints another pattern. `change` set to
`colours` leaves the shape to the bit.
"""
    return Workflow(
        "restyle_and_edit",
        [
            read_me(about),
            Column(360, [Group("1  Model and LoRA", [model, lora]), Group("2  Words and start", [said, start])]),
            Column(420, [Group("3  A splat to change", [made])]),
            Column(420, [Group("4  What may change", [part])]),
            Column(420, [Group("5  Edit a part", [edited]), Group("6  Keep", [export(edited[0], "edited")])]),
            Column(420, [Group("7  Restyle the whole", [golden]), Group("8  Keep", [export(golden[0], "restyled")])]),
        ],
        "graph",
    )


def triposplat() -> tuple[list[list[Node]], Node]:
    """The nodes from a picture to a splat, by column, and the last of them."""
    picture = Node("LoadImage", "Picture", {"image": PICTURE}, 240)
    remover = Node("LoadBackgroundRemovalModel", "Background model", {"bg_removal_name": "birefnet.safetensors"})
    mask = Node("RemoveBackground", "Remove background", {"image": picture[0], "bg_removal_model": remover[0]})
    ready = Node("TripoSplatPreprocessImage", "Crop", {"image": picture[0], "mask": mask[0]})
    unet = Node("UNETLoader", "TripoSplat model", {"unet_name": "triposplat_fp16.safetensors"})
    vision = Node("CLIPVisionLoader", "DINOv3", {"clip_name": "dino_v3_vit_h.safetensors"})
    flux = Node("VAELoader", "Flux2 VAE", {"vae_name": "flux2-vae.safetensors"})
    decoder = Node("VAELoader", "TripoSplat decoder", {"vae_name": "triposplat_vae_decoder_fp16.safetensors"})
    cond = Node("TripoSplatConditioning", "Conditioning", {"clip_vision": vision[0], "vae": flux[0], "image": ready[0]})
    sampled = Node(
        "KSampler",
        "Sample",
        {"model": unet[0], "positive": cond[0], "negative": cond[1], "latent_image": cond[2], "seed": 46, "steps": 20}
        | {"cfg": 3.0, "sampler_name": "dpmpp_2m", "scheduler": "simple", "denoise": 1.0},
    )
    decoded = Node("VAEDecodeTripoSplat", "Decode", {"samples": sampled[0], "vae": decoder[0], "num_gaussians": 65536})
    return [[picture, remover, mask, ready], [unet, vision, flux, decoder, cond, sampled, decoded]], decoded


def triposplat_restyle() -> Workflow:
    columns, decoded = triposplat()
    model = loader(CHECKPOINT)
    strengths = {"strength_model": 0.8, "strength_clip": 0.8}
    lora = Node("LoraLoader", "LoRA", {"model": model[0], "clip": model[1], "lora_name": LORA, **strengths})
    words = "a bronze owl figurine"
    made = changed("Restyle", "Restyle", (lora[0], lora[1], model[2]), decoded[0], "fast", prompt=words)
    files = "\n".join(f"- `{name}` -> `{folder}`" for name, folder in TRIPOSPLAT.items())
    about = f"""
# Picture to 3D, in the style of your LoRA

TripoSplat makes a splat from one picture in seconds, but takes neither your checkpoint nor your LoRA nor your words.
*Restyle* does: outline and surface stay, the look is theirs.

## Fill in

1. *Picture*: `{PICTURE}` is a placeholder. Choose a picture of one object.
2. *Loader*: `{CHECKPOINT}` is a placeholder. Choose **any SDXL checkpoint**.
3. *LoRA*: `{LORA}` is a placeholder. Choose a LoRA for SDXL, and write its trigger words into *Restyle*.
4. *Restyle*: say **what the object should be**. `strength` is what `denoise` is for pictures.
5. The files of TripoSplat, if you do not have them yet:

{files}

ComfyUI's own template *Image to Gaussian Splat (TripoSplat)*, under Templates, downloads them.
"""
    return Workflow(
        "triposplat_restyle",
        [
            read_me(about),
            Column(330, [Group("1  Picture", columns[0])]),
            Column(330, [Group("2  TripoSplat", columns[1])]),
            Column(360, [Group("3  Model and LoRA", [model, lora])]),
            Column(420, [Group("4  Restyle", [made])]),
            Column(420, [Group("5  Before", [preview(decoded[0], "TripoSplat")])]),
            Column(360, [Group("6  Keep", [export(made[0], "restyled")])]),
        ],
        "graph",
        {CHECKPOINT: "an SDXL checkpoint of yours", PICTURE: "a picture of yours", LORA: "a LoRA of yours"}
        | {name: f"a file of TripoSplat for {folder}" for name, folder in TRIPOSPLAT.items()},
    )


def image_to_3d() -> Workflow:
    columns, decoded = triposplat()
    start = Node(
        "DreamerXLInitialize",
        "Initialize",
        {"source": "splat", "source.splat": decoded[0], "source.radius": 0.8, "source.limit": 60_000},
    )
    model = loader(CHECKPOINT)
    said = prompt(model[1], "a ceramic owl figurine")
    guidance = Node(
        "DreamerXLTSMGuidance",
        "Guidance",
        {"method": "tsm", "method.gamma": 0.3, "t_max": 300, "warmup_steps": 0, "t_widening": 0},
    )
    made = optimizer(model[0], model[2], said[0], start[0], "fast", "Refine", steps=400, guidance=guidance[0])
    files = "\n".join(f"- `{name}` -> `{folder}`" for name, folder in TRIPOSPLAT.items())
    about = f"""
# Picture to 3D, refined by SDXL

TripoSplat makes a splat from one picture; trajectory score matching then sharpens it with your SDXL checkpoint. Low
timesteps (`t_max` 300, no warm-up) keep the shape and improve the surface.

## Fill in

1. *Picture*: `{PICTURE}` is a placeholder. Choose a picture of one object.
2. *Loader*: `{CHECKPOINT}` is a placeholder. Choose **any SDXL checkpoint**.
3. *Prompt*: say **what the picture shows**.
4. The files of TripoSplat, if you do not have them yet:

{files}

ComfyUI's own template *Image to Gaussian Splat (TripoSplat)*, under Templates, downloads them.
"""
    return Workflow(
        "image_to_3d_triposplat",
        [
            read_me(about),
            Column(330, [Group("1  Picture", columns[0])]),
            Column(330, [Group("2  TripoSplat", columns[1])]),
            Column(360, [Group("3  Where to start, what it is", [start, model, said, guidance])]),
            Column(420, [Group("4  Refine", [made])]),
            Column(
                420, [Group("5  Before and after", [preview(decoded[0], "TripoSplat"), preview(made[0], "Refined")])]
            ),
            Column(360, [Group("6  Keep", [export(made[0], "refined")])]),
        ],
        "graph",
        {CHECKPOINT: "an SDXL checkpoint of yours", PICTURE: "a picture of yours"}
        | {name: f"a file of TripoSplat for {folder}" for name, folder in TRIPOSPLAT.items()},
    )


def ism_against_tsm() -> Workflow:
    model = loader(STARTER)
    said = starter_prompt(model[1], "a green tree")
    start = starter_start()
    window = {"t_min": 21, "t_max": 500, "warmup_steps": 45, "t_widening": 480, "t_lift": 0, "cfg_fade": 0.0}
    ism = Node("DreamerXLTSMGuidance", "ISM", {"method": "ism", **window})
    tsm = Node("DreamerXLTSMGuidance", "TSM", {"method": "tsm", "method.gamma": 0.3, **window})
    length = {"steps": 150, "schedule_steps": 150}
    first = optimizer(model[0], model[2], said[0], start[0], "starter", "Optimize with ISM", guidance=ism[0], **length)
    second = optimizer(model[0], model[2], said[0], start[0], "starter", "Optimize with TSM", guidance=tsm[0], **length)
    left = Node("DreamerXLRender", "Render ISM", {"splat": first[0], "path": "turntable", "path.frames": 4})
    right = Node("DreamerXLRender", "Render TSM", {"splat": second[0], "path": "turntable", "path.frames": 4})
    both = Node("ImageStitch", "Side by side", {"image1": left[0], "image2": right[0], "direction": "right"})
    about = """
# ISM and TSM side by side

Press **Run**. Both branches have the same words, the same start and the same seed, and so the same cameras, timesteps
and noise; only the reference differs:

- **ISM** (LucidDreamer) compares with the noise at the start of the interval.
- **TSM** (Dreamer XL) follows a second path from the same point and compares with its end; `gamma` says how far it
  goes: 0 is ISM.

TSM costs one network evaluation more per step.

With the built-in starter the two look much alike. To see the difference that the paper is about, choose your SDXL
checkpoint in *Loader* and the preset `official` in both *Optimize* nodes, and empty `overhead` in *Prompt* (advanced),
which holds the starter's words for the height.
"""
    return Workflow(
        "ism_against_tsm",
        [
            read_me(about),
            Column(360, [Group("1  What to make", [model, said, start])]),
            Column(360, [Group("2  Method", [ism, tsm])]),
            Column(420, [Group("3  Optimise", [first, second])]),
            Column(
                420,
                [Group("4  Look: ISM left, TSM right", [left, right, both, images(both[0], "ISM left, TSM right")])],
            ),
            Column(360, [Group("5  Keep", [export(first[0], "ism"), export(second[0], "tsm")])]),
        ],
        "run",
    )


def splat_to_mesh() -> Workflow:
    model = loader(STARTER)
    said = starter_prompt(model[1], "a yellow duck")
    start = starter_start()
    made = optimizer(model[0], model[2], said[0], start[0], "starter")
    mesh = Node("DreamerXLMesh", "Mesh", {"splat": made[0]})
    glb = Node("SaveGLB", "Save GLB", {"mesh": mesh[0], "filename_prefix": "3d/mesh"}, 420)
    about = """
# Text to a textured mesh (GLB)

Press **Run**. *Mesh* makes a closed surface from the splat, lays it out, and paints its texture from pictures of the
splat; *Save GLB* keeps it for Blender, game engines and printers. ComfyUI's mesh nodes can follow *Mesh*.

- `triangles` and `texture` in *Mesh*: how much the file holds. 5,000 and 512 for a phone.
- `size`: the longest side in metres.
- Thin parts missing? Raise `surface detail` (advanced) to 256.

*Mesh* needs three small packages; where they are missing, it says how to install them.

Any splat can take this way: replace the first groups by *Dreamer XL Initialize* with a file, or by TripoSplat.
"""
    return Workflow(
        "splat_to_mesh",
        [
            read_me(about),
            Column(360, [Group("1  What to make", [model, said, start])]),
            Column(420, [Group("2  Optimise", [made])]),
            Column(420, [Group("3  Mesh", [mesh, glb])]),
            Column(420, [Group("4  The splat", [preview(made[0]), export(made[0], "splat")])]),
        ],
        "run",
    )


def splat_to_game_mesh() -> Workflow:
    """Our surface and colours; triangles, layout, normals and occlusion by ComfyUI's own nodes."""
    model = loader(STARTER)
    said = starter_prompt(model[1], "a white robot")
    start = starter_start()
    made = optimizer(model[0], model[2], said[0], start[0], "starter")
    in_place = {"triangles": 20_000, "texture": 256, "size": 0.0, "origin": "splat"}
    dense = Node("DreamerXLMesh", "Dense mesh", {"splat": made[0], **in_place})
    few = Node(
        "DecimateMesh",
        "Fewer triangles",
        {"mesh": dense[0], "target_face_count": 3000, "placement_mode": "midpoint"},
    )
    laid = Node("UnwrapMesh", "Unwrap", {"mesh": few[0], "segmenter": "pec", "resolution": 1024, "padding": 4})
    painted = Node("DreamerXLBakeTexture", "Bake Texture", {"mesh": laid[0], "splat": made[0]})
    both = {"low_poly": painted[0], "high_poly": dense[0]}
    bumps = Node("BakeNormalMapFromMesh", "Bake normals", {**both, "resolution": 1024})
    shade = Node("BakeAmbientOcclusion", "Bake occlusion", {**both, "resolution": 512, "samples": 32})
    colours = Node("MeshTextureToImage", "Its texture", {"mesh": painted[0]})
    maps = {"base_color": colours[0], "occlusion": shade[0], "normal_map": bumps[0]}
    done = Node("ApplyTextureToMesh", "Apply maps", {"mesh": painted[0], **maps})
    glb = Node("SaveGLB", "Save GLB", {"mesh": done[0], "filename_prefix": "3d/game-mesh"}, 420)
    about = """
# A light mesh for games: ComfyUI's unwrap and bake nodes

Press **Run**. *Dense mesh* is the surface of the splat, closed. ComfyUI's own nodes take triangles away and lay the
rest out; *Bake Texture* paints the splat onto that very layout; *Bake normals* and *Bake occlusion* keep what went
with the triangles.

- `target_face_count` in *Fewer triangles*: what the game can afford.
- `resolution` in *Unwrap*, *Bake normals* and *Bake occlusion*, `texture` in *Bake Texture*: pixels of the maps.
- *Dense mesh* keeps the splat's own place and size (`size` 0, `origin` splat), or its colours would not fit. Scale
  where you use the GLB.

One node for all of this, without normals and occlusion: **splat_to_mesh**.
"""
    return Workflow(
        "splat_to_game_mesh",
        [
            read_me(about),
            Column(360, [Group("1  What to make", [model, said, start])]),
            Column(420, [Group("2  Optimise", [made])]),
            Column(360, [Group("3  Mesh and layout", [dense, few, laid])]),
            Column(360, [Group("4  Colours", [painted, colours]), Group("5  Normals and occlusion", [bumps, shade])]),
            Column(420, [Group("6  Keep", [done, glb])]),
            Column(300, [Group("7  Maps", [images(colours[0], "Colours"), images(bumps[0], "Normals")])]),
        ],
        "run",
    )


def all_workflows() -> list[Workflow]:
    return [
        starter(), sdxl(), low_vram(), multiview(), lora_swap(), image_to_3d(), ism_against_tsm(), splat_to_mesh(),
        splat_to_game_mesh(), restyle_and_edit(), triposplat_restyle(),
    ]  # fmt: skip


def write(workflow: Workflow, info: Info, folder: Path = FOLDER) -> None:
    """The editor's file and the API's."""
    for path, data in (
        (folder / f"{workflow.name}.json", workflow.editor(info)),
        (folder / "api" / f"{workflow.name}.json", workflow.api(info)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def main() -> None:
    info = comfyui.described(__doc__)
    for workflow in all_workflows():
        write(workflow, info)
        print(workflow.name)


if __name__ == "__main__":
    main()
