"""Read a table at a pinned version; write a table so that a rerun adds nothing."""

from spark_dl.tables.reader import PinnedTable, read_table
from spark_dl.tables.writer import write_table, written_before
from spark_dl.tables.written import WrittenTable

__all__ = ["PinnedTable", "WrittenTable", "read_table", "write_table", "written_before"]
