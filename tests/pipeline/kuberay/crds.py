"""KubeRay's own schemas (CRDs), made strict: a field that they do not know is an error."""

import gzip
import os
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[3]
PLACES = (Path(os.environ.get("KUBERAY_CRDS", "")), ROOT.parent / "shared" / "data" / "kuberay")
FILES = {"RayJob": "ray.io_rayjobs.yaml.gz", "RayCronJob": "ray.io_raycronjobs.yaml.gz"}
METADATA = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "maxLength": 47, "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"},
        "namespace": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}


def folder() -> Path:
    """Skips, saying so, where the schemas are not at hand."""
    found = next((each for each in PLACES if (each / FILES["RayJob"]).is_file()), None)
    if found is None:
        pytest.skip("KubeRay's CRDs are not here: KUBERAY_CRDS=FOLDER with ray.io_rayjobs.yaml.gz and the cron job's")
    return found


def problems(made: dict[str, Any]) -> list[str]:
    """All that is wrong with an object by the schema of its kind and version."""
    validator = jsonschema.Draft202012Validator(_schema(folder(), made["kind"], made["apiVersion"]))
    return [f"{'/'.join(map(str, error.path))}: {error.message}"[:300] for error in validator.iter_errors(made)]


@cache
def _schema(place: Path, kind: str, api_version: str) -> dict[str, Any]:
    crd = yaml.load(gzip.decompress((place / FILES[kind]).read_bytes()), yaml.CSafeLoader)
    group, _, name = api_version.partition("/")
    assert (crd["spec"]["group"], crd["spec"]["names"]["kind"]) == (group, kind)
    (version,) = (each for each in crd["spec"]["versions"] if each["name"] == name and each["served"])
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    _refuse_unknown(schema)
    schema["properties"]["metadata"] = METADATA
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    return schema


def _refuse_unknown(schema: Any) -> None:
    """Of every object that names its fields, but for those that keep whatever they are given."""
    if isinstance(schema, list):
        for each in schema:
            _refuse_unknown(each)
    if not isinstance(schema, dict):
        return
    keeps = schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not keeps:
        schema.setdefault("additionalProperties", False)
    for each in list(schema.values()):
        _refuse_unknown(each)
