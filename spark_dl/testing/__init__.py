"""What the tests use and what a project that builds on `spark_dl` may use in its own."""
