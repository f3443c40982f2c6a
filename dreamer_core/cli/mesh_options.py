"""The options of `convert` for meshes: one for each setting."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import InputError
from ..meshes import SUFFIX, MeshConfig
from ..settings import Setting, own_settings


def option(setting: Setting) -> str:
    """--smallest-part of smallest_part."""
    return f"--{setting.field.replace('_', '-')}"


def add_mesh_options(parser: argparse.ArgumentParser) -> None:
    """An option for every setting of a mesh; None where it was not given."""
    group = parser.add_argument_group(f"for a mesh ({SUFFIX})")
    for setting in own_settings(MeshConfig):
        kind: dict[str, Any] = {"choices": setting.options} if setting.options else {"type": setting.number}
        if not setting.options:
            kind["metavar"] = "N"
        tip = setting.knob.tip.replace("%", "%%")
        group.add_argument(
            option(setting), dest=f"mesh_{setting.field}", help=f"{tip} (default: {setting.default})", **kind
        )


def chosen_mesh(args: argparse.Namespace, wanted: bool) -> MeshConfig:
    """The settings that were given. Errors: InputError for one out of bounds, or where no mesh is `wanted`."""
    given: dict[str, Any] = {}
    for setting in own_settings(MeshConfig):
        value = getattr(args, f"mesh_{setting.field}")
        if value is None:
            continue
        if not wanted:
            remedy = f"name a {SUFFIX}, or leave it out"
            raise InputError(option(setting), f"OUT to be a mesh ({SUFFIX})", args.out, remedy)
        setting.check(value, option(setting))
        given[setting.field] = value
    return MeshConfig(**given)
