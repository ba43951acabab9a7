"""Write sbom.cdx.json, the bill of materials of Cohort itself: `make sbom`. CycloneDX 1.7, made from the locks alone.

The same tree gives the same file. Each package names its lock: requirements/cohort.txt holds what Cohort and its tests
need, the others belong to extras.
"""

from __future__ import annotations

import json
import re
import tomllib
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LOCKS = ("torch", "cohort", "reasoning-gym", "verifiers", "sinks", "browser", "exports", "energy")  # not of tools


def bom() -> dict[str, Any]:
    """The document."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    own = {"type": "library", "bom-ref": "cohort", "name": "cohort", "version": project["version"]}
    components = {one["purl"]: one for lock in reversed(LOCKS) for one in read(lock)}
    content = json.dumps(sorted(components)) + project["version"]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.7.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, content).urn,
        "version": 1,
        "metadata": {
            "component": own
            | {"licenses": [{"license": {"id": project["license"]}}], "purl": f"pkg:pypi/cohort@{project['version']}"}
        },
        "components": list(components.values()),
        "dependencies": [{"ref": "cohort", "dependsOn": list(components)}],
    }


def read(lock: str) -> list[dict[str, Any]]:
    """The packages of a lock: name, version, and the digests of the archives of which one is installed."""
    text = (ROOT / f"requirements/{lock}.txt").read_text("utf-8")
    found = []
    for name, version, rest in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)((?:.*\\\n)*.*)", text, re.MULTILINE):
        purl = f"pkg:pypi/{re.sub('[-_.]+', '-', name).lower()}@{version}"
        digests = re.findall(r"sha256:([0-9a-f]{64})", rest)
        found.append(
            {
                "type": "library",
                "bom-ref": purl,
                "name": name,
                "version": version,
                "purl": purl,
                "hashes": [{"alg": "SHA-256", "content": digest} for digest in digests],
                "properties": [{"name": "cohort:lock", "value": f"requirements/{lock}.txt"}],
            }
        )
    return found


if __name__ == "__main__":
    (ROOT / "sbom.cdx.json").write_text(json.dumps(bom(), indent=1) + "\n", "utf-8")
    print("sbom.cdx.json")
