"""
Fetch a split again and again from a Hub of its own in which one request fails, each in turn; `python -m` prints the outcomes.

    python -m tests.torture.hub_trials HOME 500 drop     {"500 at 0 of 11": "right", "500 at 1 of 11": ...}

A process of its own, for the libraries read the Hub's address when they are imported.
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path

from tests.torture.fault_hub import REPO, FaultHub

TRAIN = "main/train-00000-of-00001.parquet"


def main(home: Path, faults: list[str]) -> None:
    outcomes = dict[str, str]()
    with FaultHub() as hub:
        os.environ.update(hub.environment(home))
        from prep.sources.hub import hub_files

        def fetch() -> str:
            shutil.rmtree(home, ignore_errors=True)
            hub.requests.clear()
            try:
                files, _ = hub_files(REPO, "main", "train", None)
            except (OSError, ValueError) as error:
                return f"{type(error).__name__}: {error}"
            return "right" if files[0].read_bytes() == hub.files[TRAIN] else "wrong contents"

        fetch()  # asks what a process asks once
        fetch()
        num_requests = len(hub.requests)
        sleep = time.sleep
        time.sleep = lambda seconds: sleep(min(seconds, 0.001))
        for fault in faults:
            for skip in range(num_requests):
                hub.fault, hub.skip, hub.times = fault, skip, 1
                outcomes[f"{fault} at {skip} of {num_requests}"] = fetch()
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
