"""glTF 2.0 (.gltf, .glb) as coloured triangles and points: what the standard and its common extensions say, in full.

Libraries that read glTF in Python stop half way: trimesh 5.2 leaves out texture transforms, second sets of texture
coordinates, normalised integers, sparse accessors, alpha and skins without a word; pygltflib reads the JSON only. Draco
and meshopt are decoded by DracoPy and meshopt where they are installed.
"""

from .scene import read_gltf

__all__ = ["read_gltf"]
