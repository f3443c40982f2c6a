"""Where the Gaussians start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
from comfy_api.latest import Types, io

from ..dreamer_core.errors import InputError
from ..dreamer_core.gaussians import Gaussians
from ..dreamer_core.initializers import (
    FITTED_SIZE,
    SHAPES,
    START_FILES,
    UPS,
    fitted,
    gaussians_from_cloud,
    gaussians_from_file,
    initial_shape,
    oriented,
    subset,
    upright,
)
from ..dreamer_core.initializers.model_files import sample_meshes
from ..dreamer_core.initializers.references import references
from ..dreamer_core.optimize.randomness import step_generator
from ..dreamer_core.teachers.safetensors_header import content_key
from .host.mesh import one_from_mesh
from .host.splat import one_from_splat, to_splat
from .shap_e import NONE_FOUND, make_shape, shap_e_folders
from .sockets import CATEGORY, chosen, errors_named, wrong_choice
from .views import fit_pictures, view_inputs
from .widgets import seed_widget

SOURCES = (*SHAPES, "file", "splat", "mesh", "shap-e", "views")
COUNT = 40_000
MESH_UP = "+y"


def input_files() -> list[str]:
    """The splats, point clouds and meshes under ComfyUI's input folder, relative to it."""
    root = Path(folder_paths.get_input_directory())
    found = (p for p in root.rglob("*") if p.suffix.lower() in START_FILES and p.is_file())
    return sorted(p.relative_to(root).as_posix() for p in found)


def input_file(name: str) -> Path | None:
    """A file by its path in ComfyUI's input folder, whether it exists or not; None outside."""
    # Without following links: those that the user put into the folder are offered, too.
    root = Path(os.path.abspath(folder_paths.get_input_directory()))
    path = Path(os.path.abspath(root / name))
    return path if name and path.is_relative_to(root) else None


def _count(default: int = COUNT) -> io.Input:
    return io.Int.Input(
        "count",
        default=default,
        min=4,
        max=2_000_000,
        optional=True,
        tooltip="Number of Gaussians. 4,000 for the starter, 20,000 to 100,000 for SDXL.",
    )


def _shape_inputs(size_tip: str) -> list[io.Input]:
    return [
        _count(),
        io.Float.Input(
            "size",
            default=0.6,
            min=0.01,
            max=10.0,
            step=0.05,
            optional=True,
            tooltip=f"{size_tip}, in world units; the finished object should fit a ball of radius 1.",
        ),
        io.Float.Input(
            "opacity",
            default=0.1,
            min=0.001,
            max=0.999,
            step=0.01,
            optional=True,
            advanced=True,
            tooltip="Opacity of each Gaussian, 0 to 1. Published: 0.1.",
        ),
    ]


def _existing_inputs(source: io.Input, radius_tip: str, limit_tip: str) -> list[io.Input]:
    return [
        source,
        io.Float.Input("radius", default=0.0, min=0.0, max=10.0, step=0.05, optional=True, tooltip=radius_tip),
        io.Int.Input("limit", default=0, min=0, max=5_000_000, optional=True, advanced=True, tooltip=limit_tip),
    ]


def _new_points_inputs() -> list[io.Input]:
    return [
        _count(),
        io.Float.Input(
            "radius",
            default=FITTED_SIZE,
            min=0.01,
            max=10.0,
            step=0.05,
            optional=True,
            tooltip="Radius that 98 % of it is fitted to, in world units; the finished object should fit 1.",
        ),
    ]


def _shap_e_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "model",
            options=list(shap_e_folders()) or [NONE_FOUND],
            tooltip="Shap-E as a diffusers folder under models/diffusers. Nothing is downloaded.",
        ),
        io.String.Input(
            "prompt",
            default="",
            tooltip="A few words for the rough shape, without style or view: 'a mug'. At most 77 tokens.",
        ),
        *_new_points_inputs(),
        io.Float.Input(
            "guidance_scale",
            default=15.0,
            min=1.0,
            max=100.0,
            step=0.5,
            optional=True,
            advanced=True,
            tooltip="How strongly Shap-E follows its prompt. 1 is off. Good: 15.",
        ),
        io.Int.Input(
            "steps",
            default=64,
            min=2,
            max=1024,
            optional=True,
            advanced=True,
            tooltip="Shap-E's diffusion steps, two evaluations each. Good: 32 to 64.",
        ),
    ]


def _options() -> list[io.DynamicCombo.Option]:
    file = io.Combo.Input(
        "file",
        options=input_files(),
        extra_dict={"mesh_upload": True, "upload_subfolder": "3d"},
        tooltip="In ComfyUI's input folder: a splat, a point cloud or a mesh (" + ", ".join(START_FILES) + ").",
    )
    splat = io.Splat.Input("splat", tooltip="From TripoSplat, Get Splat, or any other node.")
    mesh = io.Mesh.Input("mesh", tooltip="From Hunyuan3D, Trellis or any other node that makes a mesh.")
    fit = "Centre and scale it to this radius in world units. Good: 0.8. 0 keeps "
    keep = "Keep at most this many Gaussians, drawn at random. 0 keeps all."
    return [
        io.DynamicCombo.Option("sphere", _shape_inputs("Radius of the sphere")),
        io.DynamicCombo.Option("box", _shape_inputs("Half side of the cube")),
        io.DynamicCombo.Option("ball", _shape_inputs("Two standard deviations of the cloud")),
        io.DynamicCombo.Option(
            "file",
            _existing_inputs(
                file,
                f"{fit}a splat as it is and fits points and meshes to {FITTED_SIZE}.",
                f"Splats: {keep[0].lower()}{keep[1:]} Points and meshes: make this many; 0 makes {COUNT:,}.",
            ),
        ),
        io.DynamicCombo.Option("splat", _existing_inputs(splat, f"{fit}it as it is.", keep)),
        io.DynamicCombo.Option("mesh", [mesh, *_new_points_inputs()]),
        io.DynamicCombo.Option("shap-e", _shap_e_inputs()),
        io.DynamicCombo.Option("views", view_inputs(_count())),
    ]


class DreamerXLInitialize(io.ComfyNode):
    """SPLAT to start from."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamerXLInitialize",
            display_name="Dreamer XL Initialize",
            category=CATEGORY,
            description="The Gaussians that the optimisation starts from: a plain shape, a file (splat, points or "
            "mesh), another node's splat or mesh, Shap-E's shape of a few words, or what pictures of its sides show.",
            search_aliases=[
                "initial splat",
                "point cloud",
                "sphere of gaussians",
                "load ply",
                "start from splat",
                "mesh to splat",
                "shap-e",
                "text to shape",
                "images to splat",
                "multi view to splat",
            ],
            inputs=[
                io.DynamicCombo.Input(
                    "source",
                    options=_options(),
                    tooltip="A plain shape of grey Gaussians, a file of the input folder, another node's splat or "
                    "mesh, Shap-E's shape of a few words, or what pictures from known sides show.",
                ),
                seed_widget("Seed of the random positions. Any whole number."),
                io.Combo.Input(
                    "up",
                    options=list(UPS),
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="Axis that points up in the file, splat or mesh. auto: Y in GLB, OBJ and MESH, Z in PLY, "
                    "STL and OFF, -Y in splats. Plain shapes have no up.",
                ),
                io.Float.Input(
                    "yaw",
                    default=0.0,
                    min=-360.0,
                    max=360.0,
                    step=15.0,
                    optional=True,
                    advanced=True,
                    tooltip="Degrees. The side seen from this azimuth becomes the front: 90 for what faces +X.",
                ),
                io.Float.Input(
                    "point_opacity",
                    default=0.1,
                    min=0.001,
                    max=0.999,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="Opacity of Gaussians made from points, a mesh or Shap-E, 0 to 1. Published: 0.1.",
                ),
            ],
            outputs=[io.Splat.Output(display_name="splat", tooltip="For Dreamer XL Optimize.")],
            accept_all_inputs=True,  # an unknown choice, so that it is refused by its name
        )

    @classmethod
    def validate_inputs(cls, source: dict | str | None = None) -> bool | str:
        return wrong_choice(source, "source", SOURCES) or True

    @classmethod
    def fingerprint_inputs(cls, source: dict | None = None, **_: object) -> str:
        """Changes when the chosen file does, or a buffer, material or texture that is read along with it."""
        path = input_file((source or {}).get("file") or "")
        if path is None or not path.is_file():
            return ""
        return " ".join(f"{file.stat().st_mtime_ns}-{content_key(file)}" for file in (path, *references(path)))

    @classmethod
    def execute(
        cls,
        source: dict | None = None,
        seed: int = 0,
        up: str = "auto",
        yaw: float = 0.0,
        point_opacity: float = 0.1,
        **_: Any,
    ) -> io.NodeOutput:
        with errors_named("Dreamer XL Initialize"):
            if seed < 0:  # a linked one
                raise InputError("seed", "a whole number from 0", seed)
            inner = chosen(source, "source", SOURCES)
            kind = inner["source"]
            if kind in SHAPES:
                return io.NodeOutput(cls._shape(kind, inner, seed))
            placed: dict[str, Any] = {"up": up or "auto", "yaw": yaw or 0.0}
            if kind == "views":
                return io.NodeOutput(to_splat(fit_pictures(inner, inner.get("count") or COUNT, seed, **placed)))
            make = {"file": cls._file, "splat": cls._splat, "mesh": cls._mesh, "shap-e": cls._shap_e}[kind]
            return io.NodeOutput(to_splat(make(inner, seed, point_opacity or 0.1, **placed)))

    @classmethod
    def _shape(cls, kind: str, inner: dict[str, Any], seed: int) -> Types.SPLAT:
        generator = step_generator(seed, 0, "init")
        count = inner.get("count") or COUNT
        size, opacity = inner.get("size") or 0.6, inner.get("opacity") or 0.1
        return to_splat(initial_shape(kind, count, generator, size=size, opacity=opacity))

    @classmethod
    def _file(cls, inner: dict[str, Any], seed: int, opacity: float, up: str, yaw: float) -> Gaussians:
        name = inner.get("file") or ""
        path = input_file(name)
        if path is None:
            raise InputError("file", "a file in ComfyUI's input folder", repr(name))
        return gaussians_from_file(
            path,
            seed=seed,
            count=inner.get("limit") or None,
            points=COUNT,
            size=inner.get("radius") or None,
            opacity=opacity,
            up=up,
            yaw=yaw,
            field="file",
        )

    @classmethod
    def _splat(cls, inner: dict[str, Any], seed: int, opacity: float, up: str, yaw: float) -> Gaussians:
        gaussians = oriented(one_from_splat(inner["splat"]), up, yaw, "up")
        if inner.get("limit"):
            gaussians = subset(gaussians, inner["limit"], step_generator(seed, 0, "subset"))
        return fitted(gaussians, inner["radius"]) if inner.get("radius") else gaussians

    @classmethod
    def _mesh(cls, inner: dict[str, Any], seed: int, opacity: float, up: str, yaw: float) -> Gaussians:
        rotation = upright(MESH_UP if up == "auto" else up, yaw, "up")
        count, generator = inner.get("count") or COUNT, step_generator(seed, 0, "init")
        cloud = sample_meshes([(one_from_mesh(inner["mesh"]), np.eye(4))], count, generator)
        if cloud is None:
            raise InputError("mesh", "triangles with an area", "none")
        size = inner.get("radius") or FITTED_SIZE
        return gaussians_from_cloud(cloud.turned(rotation), count, generator, size=size, opacity=opacity, field="mesh")

    @classmethod
    def _shap_e(cls, inner: dict[str, Any], seed: int, opacity: float, up: str, yaw: float) -> Gaussians:
        given = {k: inner[k] for k in ("prompt", "guidance_scale", "steps") if inner.get(k) is not None}
        count, size = inner.get("count") or COUNT, inner.get("radius") or FITTED_SIZE
        return make_shape(
            inner.get("model") or "",
            {"prompt": "", **given, "seed": seed},
            count,
            size=size,
            opacity=opacity,
            up=up,
            yaw=yaw,
        )
