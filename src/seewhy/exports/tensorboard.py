"""TensorBoard: event files that ``tensorboard --logdir OUT`` shows.

scalars   mean/EXPLAINER/METRIC; pictures/EXPLAINER/METRIC/CLASS of each picture, at its position
images    EXPLAINER/CLASS, the map over the picture, at the picture's position
text      how the run was made, what is to be known
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seewhy.exports._trackers import Tracker, empty, facts, means, missing, remarks
from seewhy.runs.query.run import Run

__all__ = ["TensorBoard"]


@dataclass(frozen=True, kw_only=True)
class TensorBoard(Tracker):
    """TensorBoard: event files with mean scores, each picture's scores, and maps."""

    def __call__(self, run: Run, out: Path) -> list[Path]:
        """Writes the folder of event files.

        Raises:
            MissingDependency: tensorboard is not installed.
            InvalidInput: the folder exists and is not empty.
            UnknownName: an explainer that the run does not have.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing("tensorboard") from error
        folder = empty(out, "TensorBoard")
        with SummaryWriter(str(folder)) as writer:
            writer.add_text("run", "\n\n".join(f"{name}: {value}" for name, value in facts(run).items()))
            if said := remarks(run):
                writer.add_text("what is to be known", "\n\n".join(said))
            for name, value in means(run).items():
                writer.add_scalar(f"mean/{name}", value)
            for one in self.shown(run):
                step = one.record.position
                writer.add_image(f"{one.explainer}/{one.class_name}", np.asarray(one.image), step, dataformats="HWC")
                for metric, value in one.scores.items():
                    writer.add_scalar(f"pictures/{one.explainer}/{metric}/{one.class_name}", value, step)
        return [folder]
