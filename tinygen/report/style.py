"""One place for how tinygen's pictures and pages look: light paper, dark ink, colors that everyone can tell apart."""

from __future__ import annotations

from typing import Any

PAPER, INK, QUIET, RULE = "#f4f4f2", "#1c1e21", "#62676e", "#dfe2e6"

# Ten colors for categories, made to be told apart by color-blind readers too:
# Petroff, Accessible Color Sequences for Data Visualization (2021), table 2.
COLORS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip

TITLE, LABEL = 15, 13  # pixels, of the text in grids of images


def rc() -> Any:
    """matplotlib's parameters for a chart."""
    from cycler import cycler  # comes with matplotlib

    return {
        "axes.prop_cycle": cycler(color=COLORS), "axes.edgecolor": QUIET, "axes.facecolor": "white",
        "axes.labelcolor": INK, "axes.spines.right": False, "axes.spines.top": False, "axes.titlecolor": INK,
        "axes.titlelocation": "left", "axes.titlesize": 11, "figure.dpi": 100, "figure.facecolor": PAPER,
        "figure.figsize": (7.2, 5.0), "font.size": 10, "legend.edgecolor": RULE, "legend.framealpha": 0.9,
        "text.color": INK, "text.parse_math": False,
        "xtick.color": QUIET, "ytick.color": QUIET,
    }  # fmt: skip
