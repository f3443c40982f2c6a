"""Coverage: how much there is to see, for nothing at all has the best A-LPIPS."""

from __future__ import annotations

from .measure import Measure
from .views import Views


def coverage(views: Views) -> list[Measure]:
    """Share of the picture that is solid, and the share of haze in what there is; means over the views."""
    solid, faint = views.coverage > 0.5, (views.coverage > 0.02) & (views.coverage <= 0.5)
    seen = solid.sum() + faint.sum()
    haze = float(faint.sum() / seen) if int(seen) else 0.0
    return [
        Measure(
            "coverage", float(solid.float().mean()), f"share of pixels above one half; {views.protocol}", "neither"
        ),
        Measure("haze", haze, f"share of the covered pixels below one half; {views.protocol}", "lower"),
    ]
