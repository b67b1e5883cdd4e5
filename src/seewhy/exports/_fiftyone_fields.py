"""The documents of a FiftyOne data set: names and types of its fields, and its samples, as JSON."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from seewhy.runs.query.run import SampleRecord

__all__ = ["VERSION", "Names", "dataset", "heat_map", "names", "sample"]

VERSION = "1.0.0"  # of the documents; later versions of FiftyOne bring them up to date when they read them
_CORE = "fiftyone.core"
_FLOATS = ("entropy", "mutual_information")
_TAKEN = (
    "id", "filepath", "tags", "metadata", "created_at", "last_modified_at", "media_reference", "sample", "position",
    "prediction", "truth", "labels", "name", "note", *_FLOATS,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Names:
    """How explainers, and metrics of explainers, are called as fields."""

    explainers: dict[str, str]
    metrics: dict[tuple[str, str], str]


def names(explainers: Iterable[str], metrics: Iterable[str]) -> Names:
    """Field names: letters, digits and underscores, no two alike and none that FiftyOne has itself."""
    taken, metrics = set(_TAKEN), tuple(metrics)
    found = {explainer: _field(explainer, taken) for explainer in explainers}
    pairs = {(e, m): _field(f"{name}_{m}", taken) for e, name in found.items() for m in metrics}
    return Names(explainers=found, metrics=pairs)


def _field(text: str, taken: set[str]) -> str:
    base = re.sub(r"\W|^(?=[\d_])", "_", text, flags=re.ASCII).lstrip("_") or "explainer"
    base = f"explainer_{base}" if base[0].isdigit() else base
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    taken.add(name)
    return name


# --------------------------------------------------------------------------------------------------------- samples


def sample(
    identity: str, path: str, record: SampleRecord, class_name: Callable[[int], str], named: Names
) -> dict[str, Any]:
    """Returns an image without its heat maps; the verdicts of reviewers are its tags."""
    height, width = record.size or (None, None)
    about = {"_cls": "ImageMetadata", "width": width, "height": height} if record.size else None
    return {
        "_id": {"$oid": identity},
        "_media_type": "image",
        "_rand": int(identity[:8], 16) / 2**32,
        "filepath": path,
        "tags": list(dict.fromkeys(one.verdict for one in record.reviews if one.verdict)),
        "reviews": "; ".join(one.line for one in record.reviews) or None,
        "metadata": about,
        "sample": record.sample,
        "name": record.name,
        "position": record.position,
        "prediction": _prediction(identity, record, class_name),
        "truth": _truth(identity, record, class_name),
        "labels": _labels(identity, record, class_name, named),
        **{name: _number(getattr(record, name)) for name in _FLOATS},
    }


def heat_map(identity: str, path: str) -> dict[str, Any]:
    """Returns a map that lies in a grey image of 8 bits."""
    return {**_document("Heatmap", identity), "map_path": path, "range": [0, 255]}


def _prediction(identity: str, record: SampleRecord, class_name: Callable[[int], str]) -> dict[str, Any] | None:
    if record.predicted is None:
        return None
    return _classification(identity, "prediction", class_name(record.predicted), record.probability)


def _truth(identity: str, record: SampleRecord, class_name: Callable[[int], str]) -> dict[str, Any] | None:
    if record.truth is None:
        return None
    return _several([_classification(identity, f"truth {n}", class_name(n), None) for n in record.truth])


def _labels(identity: str, record: SampleRecord, class_name: Callable[[int], str], named: Names) -> dict[str, Any]:
    found = []
    for label, about in record.labels.items():
        index = record.class_of(label)
        entry = _classification(identity, f"label {label}", class_name(index), about.probability)
        unsure = record.uncertainty.get(label)
        entry |= {"class_index": index, "flag": about.flag}
        entry |= {name: _number(getattr(unsure, name, None)) for name in ("mean", "std", "low", "high")}
        scores = {(e, m): value for (of, e, m), value in record.scores.items() if of == label}
        entry["scores"] = {name: scores[pair] for pair, name in named.metrics.items() if pair in scores}
        found.append(entry)
    return _several(found)


def _several(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {"_cls": "Classifications", "classifications": entries, "logits": None}


def _classification(identity: str, what: str, label: str, confidence: float | None) -> dict[str, Any]:
    made = _document("Classification", _other(identity, what))
    return {**made, "label": label, "confidence": _number(confidence), "logits": None}


def _document(kind: str, identity: str) -> dict[str, Any]:
    return {"_id": {"$oid": identity}, "_cls": kind, "tags": []}


def _other(identity: str, what: str) -> str:
    """Another identity that follows from the first."""
    return hashlib.blake2b(f"{identity} {what}".encode(), digest_size=12).hexdigest()


def _number(value: float | None) -> float | None:
    """Returns a float32 with the digits that it has; None for what is not finite, which JSON does not have."""
    return None if value is None or not math.isfinite(value) else float(str(np.float32(value)))


# --------------------------------------------------------------------------------------------------------- the set


def dataset(settings: dict[str, Any], named: Names, classes: list[str]) -> dict[str, Any]:
    """Returns the data set's own document."""
    floats = [_plain(name, "FloatField") for name in (*_FLOATS, *named.metrics.values())]
    maps = [_embedded(name, f"{_CORE}.labels.Heatmap", _HEAT_MAP) for name in named.explainers.values()]
    texts = [_plain(name, "StringField") for name in ("sample", "name", "note", "reviews")]
    texts.append(_plain("position", "IntField"))
    labels = [
        _embedded("prediction", f"{_CORE}.labels.Classification", _CLASSIFICATION),
        _embedded("truth", f"{_CORE}.labels.Classifications", _CLASSIFICATIONS),
        _embedded("labels", f"{_CORE}.labels.Classifications", _EXPLAINED),
    ]
    return {
        "name": f"seewhy-{settings['id']}",
        "version": VERSION,
        "persistent": False,
        "media_type": "image",
        "group_media_types": {},
        "tags": [],
        "info": {"seewhy": settings.get("seewhy"), "model": (settings.get("model") or {}).get("name")},
        "app_config": {"grid_media_field": "filepath", "media_fields": ["filepath"], "modal_media_field": "filepath"},
        "classes": dict.fromkeys(("prediction", "truth", "labels"), classes) if classes else {},
        "default_classes": classes,
        "mask_targets": {},
        "default_mask_targets": {},
        "skeletons": {},
        "sample_fields": [*_DEFAULTS, *texts, *labels, *floats, *maps],
        "frame_fields": [],
        "saved_views": [],
        "workspaces": [],
        "annotation_runs": {},
        "brain_methods": {},
        "evaluations": {},
        "runs": {},
    }


def _plain(name: str, kind: str, *, stored: str | None = None, read_only: bool = False) -> dict[str, Any]:
    return {
        "name": name, "ftype": f"{_CORE}.fields.{kind}", "embedded_doc_type": None, "subfield": None, "fields": [],
        "db_field": stored or name, "description": None, "info": None, "read_only": read_only,
    }  # fmt: skip


def _embedded(name: str, kind: str, inner: list[dict[str, Any]]) -> dict[str, Any]:
    return {**_plain(name, "EmbeddedDocumentField"), "embedded_doc_type": kind, "fields": inner}


def _listed(name: str, of: str, inner: list[dict[str, Any]] | None = None, kind: str | None = None) -> dict[str, Any]:
    made = {**_plain(name, "ListField"), "subfield": f"{_CORE}.fields.{of}"}
    return {**made, "embedded_doc_type": kind, "fields": inner or []}


_DEFAULTS = [
    _plain("id", "ObjectIdField", stored="_id"),
    _plain("filepath", "StringField"),
    _listed("tags", "StringField"),
    _embedded(
        "metadata",
        f"{_CORE}.metadata.ImageMetadata",
        [
            _plain("size_bytes", "IntField"),
            _plain("mime_type", "StringField"),
            *(_plain(name, "IntField") for name in ("width", "height", "num_channels")),
        ],
    ),
    *(_plain(name, "DateTimeField", read_only=True) for name in ("created_at", "last_modified_at")),
    _plain("_media_type", "StringField"),
    _plain("_rand", "FloatField"),
    _plain("_dataset_id", "ObjectIdField"),
]
_LABEL = [_plain("id", "ObjectIdField", stored="_id"), _listed("tags", "StringField")]
_CLASSIFICATION = [
    *_LABEL, _plain("label", "StringField"), _plain("confidence", "FloatField"), _plain("logits", "VectorField"),
]  # fmt: skip
_OF_EXPLAINED = [
    *_CLASSIFICATION, _plain("class_index", "IntField"), _plain("flag", "StringField"),
    *(_plain(name, "FloatField") for name in ("mean", "std", "low", "high")), _plain("scores", "DictField"),
]  # fmt: skip
_ONE = f"{_CORE}.labels.Classification"
_CLASSIFICATIONS = [
    _listed("classifications", "EmbeddedDocumentField", _CLASSIFICATION, _ONE), _plain("logits", "VectorField"),
]  # fmt: skip
_EXPLAINED = [
    _listed("classifications", "EmbeddedDocumentField", _OF_EXPLAINED, _ONE), _plain("logits", "VectorField"),
]  # fmt: skip
_HEAT_MAP = [
    *_LABEL, _plain("map", "ArrayField"), _plain("map_path", "StringField"), _plain("range", "HeatmapRangeField"),
    _plain("label", "StringField"), _plain("class_index", "IntField"), _plain("low", "FloatField"),
    _plain("high", "FloatField"),
]  # fmt: skip
