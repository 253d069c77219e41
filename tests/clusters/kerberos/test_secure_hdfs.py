"""HDFS behind Kerberos: what a ticket opens, and what is closed without one."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(900)]


def test_a_ticket_opens_hdfs_and_nothing_else_does(secure_hadoop, kdc, alice, tmp_path):
    text = tmp_path / "text"
    text.write_text("kept")
    kdc.log_in("alice", alice)
    secure_hadoop.fs("-ls", "/", environ=kdc.environ)
    kdc.log_out()
    with pytest.raises(AssertionError, match="AccessControlException"):
        secure_hadoop.fs("-ls", "/", environ=kdc.environ)
