"""One HTML file that shows the objects of a work list: turning, in a table, side by side, and in blind pairs."""

from .page import write_report
from .rows import Row, read_rows

__all__ = ["Row", "read_rows", "write_report"]
