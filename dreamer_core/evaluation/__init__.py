"""What an object is worth in numbers: one measure a file, each with the protocol that it was taken by.

`evaluate` takes them all. Those of the teacher need no other weights; CLIP and LPIPS read theirs from a local folder.
"""

from .evaluation import EvaluationConfig, evaluate
from .measure import Measure, shown
from .views import Views, render_turntable

__all__ = ["EvaluationConfig", "Measure", "Views", "evaluate", "render_turntable", "shown"]
