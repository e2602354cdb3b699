"""Charts, drawn by matplotlib without a window and without pyplot's global state."""

from __future__ import annotations

import textwrap
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.metrics.metric import Chart
from tinygen.report.style import rc


def figure(chart: Chart) -> Any:
    """A matplotlib Figure of a chart, in the house's style. Needs matplotlib."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(rc()):
        drawing = Figure(layout="constrained")
        axes = drawing.add_subplot()
        chart.draw(axes)
        if chart.caption:
            axes.set_title(textwrap.fill(chart.caption, 80))
    return drawing


def save_chart(path: Path, chart: Chart) -> None:
    """Write a chart as a PNG. Needs Pillow, too."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    with matplotlib.rc_context(rc()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name's character that the font lacks becomes a box
        canvas = FigureCanvasAgg(figure(chart))
        canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(path, format="PNG")
