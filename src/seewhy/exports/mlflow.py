"""MLflow: a store of its own in a folder, that ``mlflow ui --backend-store-uri sqlite:///OUT/mlflow.db`` shows.

mlflow.db     one experiment with one run: parameters, mean scores, and each picture's scores at its position
artifacts/    maps/EXPLAINER/POSITION-LABEL.png, maps.json (what each shows), remarks.txt
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seewhy.exports._trackers import Shown, Tracker, empty, facts, means, missing, remarks
from seewhy.runs.query.run import Run

__all__ = ["MLflow"]

_BATCH = 500  # metrics a request, of at most 1000
_LONGEST = 500  # characters of a parameter's value


@dataclass(frozen=True, kw_only=True)
class MLflow(Tracker):
    """MLflow: a local store with parameters, mean scores, each picture's scores, and maps.

    Attributes:
        experiment: its name.
    """

    experiment: str = "seewhy"

    def __call__(self, run: Run, out: Path) -> list[Path]:
        """Writes the folder of the store; no server is asked, and MLflow's own settings are left alone.

        Raises:
            MissingDependency: mlflow is not installed.
            InvalidInput: the folder exists and is not empty.
            UnknownName: an explainer that the run does not have.
        """
        try:
            from mlflow.entities import Metric, Param
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise missing("mlflow") from error
        folder = empty(out, "MLflow").resolve()
        client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
        place = client.create_experiment(self.experiment, artifact_location=(folder / "artifacts").as_uri())
        key = client.create_run(place, run_name=run.settings["model"]["name"]).info.run_id
        parameters = [Param(_allowed(name), str(value)[:_LONGEST]) for name, value in facts(run).items()]
        for start in range(0, len(parameters), 100):
            client.log_batch(key, params=parameters[start : start + 100])
        now = int(1000 * time.time())
        values = [Metric(_allowed(f"mean/{name}"), value, now, 0) for name, value in means(run).items()]
        about = []
        for one in self.shown(run):
            about.append(self._map(client, key, one))
            values += [
                Metric(_allowed(f"pictures/{one.explainer}/{metric}/{one.class_name}"), value, now, one.record.position)
                for metric, value in one.scores.items()
            ]
        for start in range(0, len(values), _BATCH):
            client.log_batch(key, metrics=values[start : start + _BATCH])
        client.log_dict(key, {"maps": about}, "maps.json")
        client.log_text(key, "\n".join(remarks(run)), "remarks.txt")
        client.set_terminated(key)
        return [Path(out)]

    def _map(self, client: Any, key: str, one: Shown) -> dict[str, Any]:
        file = f"maps/{_allowed(one.explainer)}/{one.record.position:08d}-{one.label}.png"
        client.log_image(key, one.image, artifact_file=file)
        return {
            "file": file, "sample": one.record.sample, "explainer": one.explainer, "class": one.class_name,
            "caption": one.caption, **one.scores,
        }  # fmt: skip


def _allowed(name: str) -> str:
    """Returns a name as MLflow takes it: letters, digits and some signs."""
    return "".join(sign if sign.isalnum() or sign in "_-. /:" else "_" for sign in name)[:250]
