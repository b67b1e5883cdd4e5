"""Weights & Biases: a run written offline into a folder; ``wandb sync OUT/wandb/offline-run-*`` uploads it.

config     how the run was made
summary    mean/EXPLAINER/METRIC, and what is to be known
maps       a table: picture, explainer, class, map, caption, and one column a metric
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seewhy.exports._trackers import Tracker, empty, facts, means, missing, remarks
from seewhy.runs.query.run import Run

__all__ = ["Wandb"]


@dataclass(frozen=True, kw_only=True)
class Wandb(Tracker):
    """Weights & Biases: an offline run with settings, mean scores, and a table of maps.

    Attributes:
        project: its name.
    """

    project: str = "seewhy"

    def __call__(self, run: Run, out: Path) -> list[Path]:
        """Writes the folder. Nothing is sent, and neither the code, the machine nor its packages are described.

        Raises:
            MissingDependency: wandb is not installed.
            InvalidInput: the folder exists and is not empty.
            UnknownName: an explainer that the run does not have.
        """
        try:
            import wandb
        except ImportError as error:
            raise missing("wandb") from error
        folder = empty(out, "Weights & Biases")
        quiet = wandb.Settings(
            silent=True, console="off", save_code=False, disable_git=True, disable_code=True,
            disable_job_creation=True, x_disable_meta=True, x_disable_stats=True, x_save_requirements=False,
        )  # fmt: skip
        made = wandb.init(
            project=self.project, name=run.settings["model"]["name"], dir=str(folder), mode="offline",
            config=facts(run), settings=quiet, reinit="create_new",
        )  # fmt: skip
        try:
            head = ["picture", "explainer", "class", "map", "caption", *run.metrics]
            table = wandb.Table(columns=head)
            for one in self.shown(run):
                image = wandb.Image(one.image, caption=one.caption)
                scores = [one.scores.get(metric) for metric in run.metrics]
                table.add_data(one.record.name, one.explainer, one.class_name, image, one.caption, *scores)
            made.log({"maps": table})
            made.summary.update({f"mean/{name}": value for name, value in means(run).items()})
            made.summary["remarks"] = "\n".join(remarks(run))
        finally:
            made.finish()
        return [folder]
