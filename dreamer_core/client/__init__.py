"""A client of ComfyUI: change an API graph, queue it, watch it, download what it makes.

It speaks HTTP and websockets through aiohttp, because ComfyUI itself is built on it and so has it in its environment;
elsewhere `pip install aiohttp tqdm` is all that this package needs.
"""
