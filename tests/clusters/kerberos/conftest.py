"""A realm, and HDFS and YARN that let in nobody without a ticket."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING

import pytest
from clusters.hadoop import Hadoop
from clusters.kerberos.kdc import REALM, Kdc

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: A token's first life is short: a training outlives it.
RENEW_MS = 60_000
#: And nobody can make it longer than this: YARN renews those of an application.
LIFE_MS = 90_000


@pytest.fixture(scope="session")
def kdc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kdc]:
    """Give a realm."""
    with Kdc(tmp_path_factory.mktemp("kdc")) as started:
        yield started


@pytest.fixture(scope="session")
def alice(kdc: Kdc) -> Path:
    """Give the keytab of a user."""
    return kdc.keytab("alice")


def secure_settings(keytab: Path) -> dict[str, dict[str, object]]:
    """Return what makes HDFS and YARN ask for tickets; all daemons share one principal."""
    service = f"hadoop/localhost@{REALM}"

    def daemon(prefix: str, keytab_name: str) -> dict[str, object]:
        names = (f"{prefix}.kerberos.principal", f"{prefix}.{keytab_name}")
        return dict(zip(names, (service, keytab), strict=True))

    return {
        "core-site": {
            "hadoop.security.authentication": "kerberos",
            "hadoop.security.authorization": "true",
            "hadoop.rpc.protection": "authentication",
            # a connection stays open to whom it was opened for, whatever becomes of the token
            "ipc.client.connection.maxidletime": 500,
            "hadoop.security.auth_to_local": (
                f"RULE:[2:$1@$0](hadoop@{REALM})s/.*/{getpass.getuser()}/ DEFAULT"
            ),
        },
        "hdfs-site": {
            **daemon("dfs.namenode", "keytab.file"),
            **daemon("dfs.datanode", "keytab.file"),
            "dfs.block.access.token.enable": "true",
            "dfs.data.transfer.protection": "authentication",
            # low ports and TLS would guard the DataNode; its clients are this machine's
            "ignore.secure.ports.for.testing": "true",
            "dfs.namenode.delegation.token.renew-interval": RENEW_MS,
            "dfs.namenode.delegation.token.max-lifetime": LIFE_MS,
        },
        "yarn-site": {
            "yarn.resourcemanager.principal": service,
            "yarn.resourcemanager.keytab": keytab,
            "yarn.nodemanager.principal": service,
            "yarn.nodemanager.keytab": keytab,
            # their pages are asked for figures only, and would want a secret of their own
            "yarn.resourcemanager.webapp.delegation-token-auth-filter.enabled": "false",
        },
    }


@pytest.fixture(scope="session")
def secure_hadoop(kdc: Kdc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hadoop]:
    """HDFS and YARN that ask for tickets, and a folder of HDFS that is alice's."""
    service = "hadoop/localhost"
    keytab = kdc.keytab(service)
    with Hadoop(
        tmp_path_factory.mktemp("secure-hadoop"),
        node_managers=2,
        settings=secure_settings(keytab),
        java_options=kdc.java_options,
    ) as started:
        kdc.log_in(service, keytab)
        started.fs("-mkdir", "-p", "/user/alice", environ=kdc.environ)
        started.fs("-chown", "alice", "/user/alice", environ=kdc.environ)
        kdc.log_out()
        yield started
