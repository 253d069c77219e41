"""``storage``: copies that hosts keep of what lies on no mounted file system."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from spark_dl.config.base import Section, Text

__all__ = ["StorageConfig"]


class StorageConfig(Section):
    """``storage``: where shards from HDFS or an object store are copied to on each host.

    Attributes:
        cache_folder: a local folder of every host. By default SPARK_DL_CACHE_DIR, else below the
            first folder that YARN or Spark names for large temporary files.
        cache_gb: most GB (10^9 bytes) of copies on a host; must hold the splits that are trained
            and validated on. By default all of the disk but one GiB. Copies that were not used for
            longest make room.
    """

    cache_folder: Text | None = None
    cache_gb: Annotated[float, Field(strict=True, gt=0)] | None = None
