"""From the file that torch.export writes to the form that `pipeline.pt2.archive` reads."""

import io
import json
import zipfile

from pipeline.pt2.archive import FIXED_RECORDS, GRAPH_RECORD
from pipeline.pt2.records import pack_records


def rewrite_archive(content: bytes) -> bytes:
    """Return a ``.pt2`` file of our own export in the form that `read_archive` and torch.export.load can read.

    The examples go, because they are a pickle; the stack traces go, because they name folders of the machine that
    trained; the modules go, because the graph does not need them.
    """
    records = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            _, _, path = name.partition("/")
            records[f"archive/{path}"] = archive.read(name)
    del records["archive/.data/serialization_id"]
    records.update(FIXED_RECORDS)
    exported = json.loads(records[GRAPH_RECORD])
    module = exported["graph_module"]
    for node in module["graph"]["nodes"]:
        node["metadata"] = {}
    module["module_call_graph"] = [call for call in module["module_call_graph"] if call["fqn"] == ""]
    records[GRAPH_RECORD] = json.dumps(exported).encode("ascii")
    return pack_records(records)
