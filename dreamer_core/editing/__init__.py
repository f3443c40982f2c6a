"""Restyling and editing splats that exist: what may change, what must stay, where.

Nothing is imported here: the loop reads parts of this package, and other parts read the loop.
"""
