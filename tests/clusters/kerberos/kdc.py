"""A real Kerberos realm on this machine: MIT's krb5kdc, started for the tests on a free port.

It needs Debian's packages krb5-kdc, krb5-admin-server and krb5-user. Nothing outside its folder is
read or written.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Self

from clusters.environment import wait_for_port
from clusters.hadoop import HOST, Ports

if TYPE_CHECKING:
    from pathlib import Path

REALM = "SPARKDL.TEST"
START_S = 60.0


def _program(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert path is not None, (
        f"{name} is missing: apt-get install krb5-kdc krb5-admin-server krb5-user"
    )
    return path


class Kdc:
    """A realm; a context manager.

    Args:
        root: an empty folder for its database, configuration and keytabs.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.krb5_conf = root / "krb5.conf"
        self._ports = Ports()
        self._port = self._ports.take()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environ(self) -> dict[str, str]:
        """What the programs of Kerberos need to find this realm."""
        return {
            "KRB5_CONFIG": str(self.krb5_conf),
            "KRB5_KDC_PROFILE": str(self.root / "kdc.conf"),
            "KRB5CCNAME": f"FILE:{self.root}/tickets",
        }

    @property
    def java_options(self) -> tuple[str, ...]:
        """The same for a JVM."""
        return (f"-Djava.security.krb5.conf={self.krb5_conf}",)

    def __enter__(self) -> Self:
        self._configure()
        self._run("kdb5_util", "create", "-s", "-r", REALM, "-P", "no secret: a test's database")
        log = self.root / "kdc.log"
        with open(log, "wb") as output:
            self._process = subprocess.Popen(
                [_program("krb5kdc"), "-n"],
                env={**os.environ, **self.environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_for_port(self._process, HOST, self._port, log, START_S)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _configure(self) -> None:
        self.krb5_conf.write_text(
            f"[libdefaults]\n  default_realm = {REALM}\n  dns_lookup_kdc = false\n"
            "  dns_lookup_realm = false\n  rdns = false\n  udp_preference_limit = 1\n"
            f"[realms]\n  {REALM} = {{\n    kdc = {HOST}:{self._port}\n  }}\n"
        )
        (self.root / "kdc.conf").write_text(
            f"[kdcdefaults]\n  kdc_listen = {HOST}:{self._port}\n"
            f"  kdc_tcp_listen = {HOST}:{self._port}\n"
            f"[realms]\n  {REALM} = {{\n    database_name = {self.root}/principal\n"
            f"    key_stash_file = {self.root}/stash\n    acl_file = {self.root}/acl\n"
            "    max_life = 24h\n    max_renewable_life = 7d\n  }\n"
        )

    def _run(self, name: str, *arguments: str) -> str:
        done = subprocess.run(
            [_program(name), *arguments],
            env={**os.environ, **self.environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=START_S,
        )
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
        return done.stdout

    def keytab(self, principal: str) -> Path:
        """Make a principal with a random key and return the keytab that holds it."""
        path = self.root / f"{principal.replace('/', '-')}.keytab"
        self._run("kadmin.local", "-q", f"addprinc -randkey {principal}")
        self._run("kadmin.local", "-q", f"ktadd -k {path} {principal}")
        assert path.exists(), f"kadmin.local made no keytab for {principal}"
        return path

    def log_in(self, principal: str, keytab: Path) -> None:
        """Get a ticket, as a user does with ``kinit``."""
        self._run("kinit", "-k", "-t", str(keytab), f"{principal}@{REALM}")

    def log_out(self) -> None:
        """Throw the tickets away."""
        self._run("kdestroy")

    def stop(self) -> None:
        """End the daemon."""
        self._ports.close()
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_S)
