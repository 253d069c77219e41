"""No manifest, no data."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from spark_dl.errors import DataError, ManifestError
from spark_dl.schema import DType, FeatureSpec, SpecEntry
from spark_dl.shards import Manifest, Shard, Source


def shard(number, rows, split="train"):
    return Shard(
        path=f"data-1/split={split}/part-{number}.tfrecord",
        rows=rows,
        bytes=rows * 20,
        checksum="sha256:00",
        split=split,
    )


def manifest(**changes):
    facts = {
        "spec": FeatureSpec(entries=(SpecEntry(name="x", column="x", dtype=DType.INT64),)),
        "shards": (shard(0, 3), shard(1, 4), shard(2, 2, "test")),
        "totals": {"train": 7, "test": 2, "validation": 0},
        "splits": {"train": 0.8, "test": 0.1, "validation": 0.1},
        "seed": 7,
        "source": Source(table="/t", format="delta", version=3),
        "fingerprint": "sha256:11",
        "spark_dl_version": "0.1.0",
    }
    return Manifest(**{**facts, **changes})


def test_what_is_written_is_what_is_read(tmp_path):
    manifest().write(str(tmp_path))
    assert Manifest.read(str(tmp_path)) == manifest()
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_a_folder_without_one(tmp_path):
    with pytest.raises(ManifestError, match="holds no finished dataset; run prepare first"):
        Manifest.read(str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, r"manifest\.json is of format version 2, this spark_dl reads 1"),
        ({"spec": None}, r"manifest\.json cannot be used, prepare .*spec"),
        ({"more": 1}, r"manifest\.json cannot be used, prepare .*more"),
    ],
)
def test_a_manifest_that_this_version_cannot_read(tmp_path, change, message):
    facts = json.loads(manifest().model_dump_json()) | change
    (tmp_path / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(ManifestError, match=f"(?s){message}"):
        Manifest.read(str(tmp_path))


def test_half_a_manifest(tmp_path):
    text = manifest().model_dump_json()
    (tmp_path / "manifest.json").write_text(text[: len(text) // 2])
    with pytest.raises(ManifestError, match="cannot be used"):
        Manifest.read(str(tmp_path))


def test_totals_are_those_of_the_shards():
    with pytest.raises(ValidationError, match="'train': the shards hold 7 rows, the totals say 8"):
        manifest(totals={"train": 8, "test": 2})


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "s3://b/x"])
def test_shards_lie_below_the_dataset(path):
    with pytest.raises(ValidationError, match="leaves the dataset's folder"):
        Shard(path=path, rows=0, bytes=0, checksum="", split="train")


def test_splits():
    one = manifest()
    assert [part.rows for part in one.split("train")] == [3, 4]
    with pytest.raises(DataError, match="split 'validation' is empty"):
        one.split("validation")
    with pytest.raises(DataError, match=r"no split 'dev' \(splits: train, test, validation\)"):
        one.split("dev")


def test_a_source_is_pinned_by_its_version():
    assert Source(table="/t", version=0).pinned
    assert not Source(table="/t").pinned
    assert not Source(version=1).pinned
