"""docs/databricks.md where there is no Databricks: its blocks, with folders mounted as volumes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from clusters.environment import ROOT, beside_spark, run
from clusters.guide import blocks

from spark_dl.storage import normalise

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting /Volumes and /dbfs needs root"),
]

SCRIPT = Path(__file__).with_name("databricks_page.py")
#: Blocks of the page that are not run, and why.
LEFT_OUT = {"tensorboard": "magics of a notebook's own page; TensorBoard itself has its tests"}
MOUNTS = ("/Volumes", "/dbfs")


@pytest.fixture
def mounted(tmp_path) -> Iterator[list[str]]:
    """Give the beginning of a command that sees folders of ours as volumes and as DBFS."""
    made = [mount for mount in MOUNTS if not os.path.exists(mount)]
    binds = []
    for mount in MOUNTS:
        Path(mount).mkdir(exist_ok=True)
        source = tmp_path / mount[1:]
        source.mkdir()
        binds.append(f"mount --bind {source} {mount}")
    try:
        yield ["unshare", "--mount", "bash", "-euc", f'{"; ".join(binds)}; exec "$@"', "_"]
    finally:
        for mount in made:
            with contextlib.suppress(OSError):  # another test has it still
                os.rmdir(mount)


def test_the_page_as_it_stands(environment, mounted, tmp_path):
    page = blocks("databricks.md", {"databricks.workspace": f"{tmp_path}/"})
    for name in ("notebooks", "conf"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "examples" / "demo" / "model.py", tmp_path / "conf")
    config = tmp_path / "conf" / "databricks.yaml"
    # Spark's own catalog in the place of Unity Catalog's
    config.write_text(config.read_text().replace("main.default.", "spark_catalog.default."))
    assert page.keys() - LEFT_OUT.keys() == {"notebook", "task"}
    (tmp_path / "page.json").write_text(json.dumps(page))
    python, environ = beside_spark(environment, tmp_path)
    said = run(*mounted, python, SCRIPT, tmp_path, env=environ, cwd=tmp_path, timeout_s=840)
    told = json.loads(said.splitlines()[-1])
    assert all("/site-packages/spark_dl/" in path for path in told["packages"])
    volume = tmp_path / "Volumes" / "main" / "default" / "spark_dl"
    assert (volume / "visits" / "dataset" / "manifest.json").exists()
    for root in (volume / "digits", tmp_path / "dbfs" / "digits"):
        assert list((root / "predictions").glob("*.parquet"))
        (model,) = root.glob("runs/*/model/1/model.keras")
        status = json.loads((model.parents[2] / "status.json").read_text())
        assert (status["job"], status["status"]) == ("train", "succeeded")
        assert f"{model.parents[2].name}  " in said, "as `spark-dl runs` lists it"


@pytest.mark.parametrize("root", ["/Volumes/main/default/spark_dl/contract", "dbfs:/contract"])
def test_the_contract_of_storage_holds_there(root, mounted, tmp_path):
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    environ = {**os.environ, "SPARK_DL_CONTRACT_ROOT": root}
    run(*mounted, *command, "tests/storage/test_contract.py", cwd=ROOT, env=environ)
    assert any((tmp_path / normalise(root).strip("/")).iterdir())
