"""Write the JSON Schemas: `python -m flux.studies.spec json/schema`."""

import sys
from pathlib import Path

from flux.studies.spec.schema import write_schemas

if __name__ == "__main__":
    for written in write_schemas(Path(sys.argv[1] if len(sys.argv) > 1 else "json/schema")):
        print(written)
