"""To see how it works: a training step as a page that can be stepped through.

    with Tape(model) as tape:
        loss(x).backward()
        optimizer.step()
    tape.write("tape.html")

`arrays` and `terms` put arrays into a few numbers, `record` listens to the engine, `fold` finds scopes and repetitions,
`sources` the lines behind an op, `details` and `page` write HTML.
"""

from tinygen.learn.page import Tape

__all__ = ["Tape"]
