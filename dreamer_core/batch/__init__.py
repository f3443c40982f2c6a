"""Many objects: work lists, their folders and index, and engines that make them.

`work_list`, `wildcards` and `index` need no torch, so that a client of a ComfyUI server can read the same lists.
"""
