"""How a user reaches TensorBoard from where they sit: through a proxy, a tunnel, or at once."""

from __future__ import annotations

import getpass
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DriverPlace", "ways_to_reach"]

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_DATABRICKS: Final = {
    "workspace": "spark.databricks.workspaceUrl",
    "org": "spark.databricks.clusterUsageTags.clusterOwnerOrgId",
    "cluster": "spark.databricks.clusterUsageTags.clusterId",
}


@dataclass(frozen=True, kw_only=True)
class DriverPlace:
    """Where the driver runs.

    Attributes:
        host: its host, as the cluster knows it.
        conf: settings of its SparkContext.
        user: who it runs as.
    """

    host: str
    conf: Mapping[str, str] = field(default_factory=dict)
    user: str = field(default_factory=getpass.getuser)

    @property
    def is_elsewhere(self) -> bool:
        """Whether the cluster chose the host: nobody sits there."""
        return self.conf.get("spark.submit.deployMode") == "cluster"


def ways_to_reach(url: str, place: DriverPlace, public_url: str | None = None) -> str:
    """Return what to tell a user, in one line.

    Args:
        url: where TensorBoard answers.
        place: where the driver runs.
        public_url: its address behind the user's proxy; ``{port}`` stands for its port.

    Example:
        >>> place = DriverPlace(
        ...     host="node7", conf={"spark.submit.deployMode": "cluster"}, user="alice"
        ... )
        >>> ways_to_reach("http://127.0.0.1:6006/", place)
        'http://127.0.0.1:6006/ after: ssh -N -L 6006:127.0.0.1:6006 alice@node7'
    """
    parts = urlsplit(url)
    if public_url is not None:
        return public_url.replace("{port}", str(parts.port))
    databricks = {name: place.conf.get(key) for name, key in _DATABRICKS.items()}
    if all(databricks.values()):
        path = f"driver-proxy/o/{databricks['org']}/{databricks['cluster']}/{parts.port}/"
        return f"https://{databricks['workspace']}/{path}"
    if place.is_elsewhere and parts.hostname in _LOOPBACK:
        tunnel = f"{parts.port}:{parts.hostname}:{parts.port}"
        return f"{url} after: ssh -N -L {tunnel} {place.user}@{place.host}"
    return url
