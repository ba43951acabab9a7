"""Croissant 1.1 (MLCommons): the rollouts of a run as a data set, those that were rejected included."""

from __future__ import annotations

from typing import Any

from cohort.views.cards.reading import inside, said, value
from cohort.views.exports import Bundle

CONFORMS = "http://mlcommons.org/croissant/1.1"
_CR = (
    *("arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileProperty"),
    *("fileObject", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5"),
    *("parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator"),
    *("source", "subField", "transform"),
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{name: f"cr:{name}" for name in _CR},
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    "sc": "https://schema.org/",
}
_TYPES = {"int64": "sc:Integer", "int32": "sc:Integer", "double": "sc:Float", "float": "sc:Float", "bool": "sc:Boolean"}


def dataset(bundle: Bundle) -> dict[str, Any]:
    """The Parquet files beside it, and what their columns are."""
    record, files = bundle.record, bundle.rollouts
    tally = said(inside(bundle.last, "data.rejected", "rollouts"))
    license_ = value(record["run"], "use.license")
    found: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS,
        "name": f"{record['name']}-rollouts",
        "description": f"Every rollout of the run {record['name']}, also those that were not learnt from: {tally}",
        "datePublished": record["written"]["at"][:10],
        "version": "1.0.0",
        "license": license_ or "not declared",
        "creator": {"@type": "Organization", "name": value(record["run"], "connections.owner") or "not declared"},
        "citeAs": f"Rollouts of {record['name']}, recorded by Cohort {record['written']['cohort']}",
        "url": f"urn:cohort:{inside(record['run'], 'identity.run', 'recipe_digest')}",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": file.path,
                "name": file.path,
                "contentUrl": file.path,
                "contentSize": f"{file.size} B",
                "encodingFormat": "application/x-parquet",
                "sha256": file.sha256,
            }
            for file in files
        ],
    }
    if files:
        whole = {"@type": "cr:FileSet", "@id": "rollouts", "name": "rollouts", "includes": "rollouts/*.parquet"}
        found["distribution"].append(whole | {"encodingFormat": "application/x-parquet"})
        found["recordSet"] = [_records(dict(files[0].columns))]
    return found


def _records(columns: dict[str, str]) -> dict[str, Any]:
    fields = []
    for name, kind in columns.items():
        inner = kind.removeprefix("list<element: ").removesuffix(">")
        field: dict[str, Any] = {"@type": "cr:Field", "@id": f"rollout/{name}", "name": name}
        field |= {"dataType": _TYPES.get(inner, "sc:Text")}
        field |= {"source": {"fileSet": {"@id": "rollouts"}, "extract": {"column": name}}}
        fields.append(field | ({"isArray": True, "arrayShape": "-1"} if inner != kind else {}))
    return {"@type": "cr:RecordSet", "@id": "rollout", "name": "rollout", "field": fields}
