"""
What a build is about to fetch, said before it does: data sets on the Hub of which the cache has nothing yet.

    smoltalk   HuggingFaceTB/smol-smoltalk   484,570 rows, about 970 MB

Rows and bytes are those of the data sets' cards when this was written; of your own data sets nobody knows them before.
"""

from pathlib import Path
from typing import NamedTuple

from prep.mixture.mixture import Mixture
from prep.mixture.resolve import hub_names, hub_of
from prep.sources.hub import in_cache, is_offline
from prep.tasks import TASKS


class Download(NamedTuple):
    """A data set of the Hub that a mixture reads, train and val together; rows and bytes are 0 where nobody knows them"""

    name: str
    repo: str
    rows: int
    num_bytes: int


def find_downloads(mixture: Mixture, cache_dir: Path) -> list[Download]:
    """The data sets that a build of the mixture fetches; [] once all are in the cache"""
    if is_offline():
        return []
    missing: dict[str, Download] = {}
    for split, entries in mixture.splits.items():
        for entry in entries:
            task = TASKS.get(entry.task)
            repo = hub_of(entry, task)
            if repo is None or in_cache(repo, *hub_names(entry, split, task)[0], entry.revision, cache_dir):
                continue
            rows, num_bytes = task.download if task and not entry.subset else (0, 0)
            missing.setdefault(repo, Download(entry.label, repo, rows, num_bytes))
    return list(missing.values())


def download_lines(downloads: list[Download]) -> list[str]:
    """In words, for people"""
    width, repo_width = (
        max(len(text) for text in texts) for texts in zip(*((d.name, d.repo) for d in downloads), strict=True)
    )
    return [
        f"  {name:<{width}}  {repo:<{repo_width}}  "
        + (f"{rows:,} rows, about {num_bytes / 1e6:,.0f} MB" if rows else "size not known before it is there")
        for name, repo, rows, num_bytes in downloads
    ]
