"""Materials of an .obj: colours, textures with their options, transparency (.mtl, Alias/Wavefront)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .named_files import beside
from .pictures import decoded

log = logging.getLogger(__name__)

AT_MOST = 64 << 20
"""Bytes of a .mtl that are read."""
NUMBERS = {"-o": 3, "-s": 3, "-t": 3, "-mm": 2}
"""Options of a texture with up to so many numbers."""
WORDS = ("-blendu", "-blendv", "-boost", "-cc", "-clamp", "-imfchan", "-texres", "-bm", "-type")
"""Options with one word."""
LOST = ("map_ke", "map_tr", "decal")
"""Statements that change colours or transparency."""
UNUSED = {"-t": "turbulence", "-cc": "colour correction", "-boost": "sharpness"}


@dataclass(frozen=True)
class Map:
    """A texture's name and what its options say."""

    name: str
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    clamp: bool = False
    base: float = 0.0
    gain: float = 1.0
    unused: tuple[str, ...] = ()

    def file(self, materials: Path) -> Path | None:
        """Where it is, as a file of materials names it, a comment behind the name or not; None where it is missing."""
        return beside(materials, self.name) or beside(materials, self.name.partition(" #")[0])


@dataclass(frozen=True)
class ObjMaterial:
    """What of a material is seen without light."""

    rgb: tuple[float, float, float] | None = None
    opacity: float = 1.0
    color: Map | None = None
    holes: Map | None = None
    folder: Path = field(default_factory=Path)  # of its file
    unused: tuple[str, ...] = ()
    """Statements of the material that change what is seen and are not used."""

    def simplified(self) -> Iterator[str]:
        """What of it is read in another way than the file says."""
        if self.unused:
            yield f"{', '.join(self.unused)} not used"
        if self.opacity == 0:
            yield "an opacity of 0 is taken for 1, since exporters mix up d and Tr"
        if self.color is not None and self.rgb is not None and len(set(self.rgb)) > 1:
            yield "the colour Kd beside a texture is not used"
        ways = [(m.scale, m.offset, m.clamp) for m in (self.color, self.holes) if m is not None]
        if len(set(ways)) > 1:
            yield "map_d is placed as map_Kd is; its own -s, -o and -clamp are not used"


def parse_materials(path: Path) -> dict[str, ObjMaterial]:
    """The materials of a .mtl by name. Errors: OSError."""
    found: dict[str, ObjMaterial] = {}
    name: str | None = None
    for key, words, rest in _lines(path):
        if key == "newmtl":
            name = rest
            found[name] = ObjMaterial(folder=path)
        elif name is not None:
            found[name] = _with(found[name], key, words, rest)
    return found


def _lines(path: Path) -> Iterator[tuple[str, list[str], str]]:
    """Keyword in lower case, words and text of every line."""
    size = path.stat().st_size
    if size > AT_MOST:
        log.warning("%s: only its first %d MiB are read", path, AT_MOST >> 20)
    with path.open("rb") as file:
        data = file.read(min(size, AT_MOST))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    for line in text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
        key, _, rest = (
            line.strip().partition(" ") if "\t" not in line else line.strip().replace("\t", " ").partition(" ")
        )
        if key and not key.startswith("#"):
            yield key.lower(), rest.split(), rest.strip()


def _with(material: ObjMaterial, key: str, words: list[str], rest: str) -> ObjMaterial:
    """The material after one more line; lines that cannot be understood change nothing."""
    try:
        if key == "kd" and words[:1] in (["spectral"], ["xyz"]):
            log.warning("%s: a colour as %s is not used", material.folder, words[0])
        elif key == "kd":
            r, g, b = (float(w) for w in (words * 3)[:3]) if len(words) == 1 else (float(w) for w in words[:3])
            return replace(material, rgb=(r, g, b))
        if key == "d":
            return replace(material, opacity=float(words[-1]))
        if key == "tr" and material.opacity == 1.0:
            return replace(material, opacity=1.0 - float(words[0]))
        if key == "map_kd":
            return replace(material, color=parse_map(rest))
        if key == "map_d":
            return replace(material, holes=parse_map(rest))
        if key in LOST or (key == "ke" and any(float(w) for w in words[:3])):
            return replace(material, unused=(*material.unused, key))
    except (ValueError, IndexError):
        log.warning("%s: a line that cannot be understood: %s", material.folder, f"{key} {rest}"[:80])
    return material


def parse_map(text: str) -> Map:
    """The options and the name, which may hold spaces, of a texture."""
    options: dict[str, tuple[float, ...]] = {}
    words_of: dict[str, str] = {}
    unknown: list[str] = []
    while text.startswith("-"):
        option, _, after = text.partition(" ")
        option = option.lower()
        if option in NUMBERS:
            options[option], text = _leading(after.split(), NUMBERS[option], after)
        elif option in WORDS:
            word, _, text = after.strip().partition(" ")
            words_of[option] = word.lower()
        elif len(after.split()) > 1:  # of another program
            unknown.append(option)
            _, _, text = after.strip().partition(" ")
        else:
            break
        text = text.strip()
    asked = [key for key in UNUSED if any(options.get(key, ())) or words_of.get(key, "off") not in ("off", "0")]
    base, gain = (*options.get("-mm", ()), *(0.0, 1.0)[len(options.get("-mm", ())) :])
    return Map(
        text,
        _pair(options.get("-s", ()), 1.0),
        _pair(options.get("-o", ()), 0.0),
        words_of.get("-clamp") == "on",
        base,
        gain,
        (*(UNUSED[key] for key in asked), *unknown),
    )


def _leading(words: Sequence[str], most: int, text: str) -> tuple[tuple[float, ...], str]:
    """Up to so many numbers from the start of a text, and what follows them; the last word is the name."""
    numbers: list[float] = []
    for word in words[:most]:
        try:
            value = float(word)
        except ValueError:
            break
        if len(numbers) + 1 == len(words):
            break
        numbers.append(value)
    return tuple(numbers), text.split(maxsplit=len(numbers))[-1] if len(words) > len(numbers) else ""


def _pair(numbers: tuple[float, ...], default: float) -> tuple[float, float]:
    u, v = (*numbers[:2], *(default, default)[len(numbers[:2]) :])
    return u, v


def picture(material: ObjMaterial, path: Path, name: str) -> NDArray[np.uint8] | None:  # [H, W, 4]
    """The texture with the transparency of its own picture for it; None where there is neither.

    Errors: InputError for a picture beyond the free memory.
    """
    color = _open(material.color, material, path, name)
    holes = _open(material.holes, material, path, name)
    if color is not None and material.color is not None and (material.color.gain, material.color.base) != (1.0, 0.0):
        changed = color[..., :3] * material.color.gain + 255 * material.color.base
        color = np.concatenate([np.clip(changed, 0, 255).astype(np.uint8), color[..., 3:]], axis=-1)
    if color is not None:
        color = color.copy()
        color[..., 3] = 255  # the alpha of a colour texture counts only where map_d asks for it
    if holes is None:
        return color
    alpha = holes[..., 3] if (holes[..., 3] < 255).any() else holes[..., :3].mean(axis=-1).astype(np.uint8)
    if color is None:
        plain = np.round(255 * np.clip(material.rgb or (1.0, 1.0, 1.0), 0, 1)).astype(np.uint8)
        color = np.concatenate([np.broadcast_to(plain, (*alpha.shape, 3)), alpha[..., None]], axis=-1)
        return color
    rows, columns = (np.arange(n) * m // n for n, m in zip(color.shape[:2], alpha.shape))
    color[..., 3] = alpha[np.ix_(rows, columns)]
    return color


def _open(named: Map | None, material: ObjMaterial, path: Path, field: str) -> NDArray[np.uint8] | None:
    if named is None or not named.name:
        return None
    if named.unused:
        log.warning("%s: options of %r that are not used: %s", path, named.name[:80], ", ".join(named.unused))
    file = named.file(material.folder)
    if file is None:
        log.warning("%s: its texture %r is not there; read without", path, named.name[:80])
        return None
    with file.open("rb") as content:
        return decoded(content, named.name[:80], path, field)
