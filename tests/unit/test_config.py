"""The YAML: its shape, its defaults, and what it says when something is wrong."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spark_dl.config import (
    ClusterConfig,
    FeatureConfig,
    JobConfig,
    TableConfig,
    TrainingConfig,
    build,
    json_schema,
    load_config,
    required,
)
from spark_dl.errors import ConfigError

ROOT = Path(__file__).parents[2]

WHOLE = """
table: {path: /data/digits, format: delta, version: null, where: null}
features: {image: {column: pixels, shape: [8, 8, 1]}}
label: digit
dataset: {path: /data/shards, splits: {train: 0.8, validation: 0.1, test: 0.1}, seed: 7}
model: {fn: "package.module:function", params: {width: 16}}
training: {epochs: 5, global_batch_size: 64, seed: 1}
cluster: {backend: auto, num_workers: 2}
runs: /data/runs
infer: {model: latest, metric: null, table: null, split: null}
output: {path: /data/predictions, format: delta, mode: append, scoring_id: null}
"""


@pytest.fixture
def config_file(tmp_path):
    def write(text):
        path = tmp_path / "job.yaml"
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write


def refused(text, config_file, *overrides):
    with pytest.raises(ConfigError) as caught:
        load_config(config_file(text), overrides)
    return str(caught.value)


def test_the_whole_shape_loads(config_file):
    config = load_config(config_file(WHOLE))
    assert config.table == TableConfig(path="/data/digits")
    assert config.features == {"image": FeatureConfig(column="pixels", shape=(8, 8, 1))}
    assert config.training.epochs == 5
    assert config.cluster.num_workers == 2
    for job in ("prepare", "train", "infer"):
        config.check_for(job)


def test_what_is_written_out_loads_again(config_file):
    config = load_config(config_file(WHOLE))
    assert load_config(config_file(config.to_yaml())) == config


def test_texts_that_look_like_numbers_stay_texts(config_file):
    config = JobConfig.model_validate({"model": {"fn": "m:f", "params": {"a": "1e5", "b": 1e5}}})
    assert load_config(config_file(config.to_yaml())).model.params == {"a": "1e5", "b": 1e5}


def test_defaults():
    config = JobConfig()
    assert config.training == TrainingConfig(
        epochs=1, global_batch_size=32, seed=0, shuffle=True, remainder="drop", log_every_steps=50
    )
    assert config.cluster == ClusterConfig(
        backend="auto",
        start_timeout_s=120,
        stop_timeout_s=30,
        heartbeat_s=1,
        lost_after_s=8,
        max_restarts=20,
        restarts_per_hour=10,
        restart_backoff_s=1,
    )
    assert (config.tensorboard.enabled, config.tensorboard.host) == (True, "127.0.0.1")
    assert (config.tensorboard.port, config.tensorboard.keep) == (0, False)
    assert config.infer.model == "latest"


@pytest.mark.parametrize(
    ("written", "columns"),
    [
        ("[a, b]", {"a": "a", "b": "b"}),
        ("{x: a, y: b}", {"x": "a", "y": "b"}),
        ("{x: {column: a}, b: {shape: [3]}, c: null}", {"x": "a", "b": "b", "c": "c"}),
    ],
)
def test_features_can_be_written_short_and_long(written, columns, config_file):
    config = load_config(config_file(f"features: {written}"))
    assert {name: feature.column for name, feature in config.features.items()} == columns


def test_a_column_named_twice_is_refused(config_file):
    assert "features: columns are named twice: a" in refused("features: [a, b, a]", config_file)


@pytest.mark.parametrize("written", ["[]", "[a, 3]", "7", "{x: 3}"])
def test_features_that_make_no_sense_are_refused(written, config_file):
    assert "features" in refused(f"features: {written}", config_file)


def test_an_id_may_be_one_column_or_several(config_file):
    assert load_config(config_file("id: k")).id == ("k",)
    assert load_config(config_file("id: [k, l]")).id == ("k", "l")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("labl: x", "top level: unknown key 'labl'; did you mean 'label'?"),
        ("table: {path: x, formt: delta}", "table: unknown key 'formt'; did you mean 'format'?"),
        ("training: {epoch: 5}", "training: unknown key 'epoch'; did you mean 'epochs'?"),
        ("features: {a: {colum: b}}", "features.a: unknown key 'colum'; did you mean 'column'?"),
        ("infer: {table: {pth: x}}", "infer.table: unknown key 'pth'; did you mean 'path'?"),
        ("cluster: {zzz: 1}", "cluster: unknown key 'zzz' (known keys: backend, "),
    ],
)
def test_an_unknown_key_is_an_error_with_its_path_and_a_hint(text, message, config_file):
    assert message in refused(text, config_file)


def test_all_problems_are_said_at_once_with_the_file(config_file):
    text = "training: {epochs: 0, seeed: 1}\ntable: {name: t, path: p}"
    message = refused(text, config_file)
    assert message.count("\n") == 2
    assert "job.yaml" in message
    for part in ("training.epochs", "'seeed'", "table: expected exactly one of"):
        assert part in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("table: {format: delta}", "table: expected exactly one of path, name and sql, got none"),
        ("table: {path: p, name: t}", "got path and name"),
        ("table: {path: p, format: parquet, version: 3}", "a parquet table has no versions"),
        ("table: {sql: select 1, version: 3}", "a query has no versions"),
        ("table: {path: p, format: csv}", "table.format: input should be 'delta' or 'parquet'"),
        ("table: x", "table: expected keys and values, got 'x'"),
        ("dataset: {splits: {train: 1.0}}", "dataset.path: missing, and it has no default"),
        ("dataset: {path: p, splits: {train: 0.5}}", "the fractions sum to 0.5, expected 1"),
        ("dataset: {path: p, splits: {a: 1.5, b: -0.5}}", "change a, b"),
        ("model: {name: dnn}", "this version has no ready-made models; give fn:"),
        ("model: {fn: package.module}", 'model.fn: expected "package.module:function", got'),
        ("training: {epochs: '5'}", "training.epochs: input should be a valid integer, got '5'"),
        ("training: {epochs: yes}", "training.epochs: input should be a valid integer, got True"),
        ("training: {shuffle: 1}", "training.shuffle: input should be a valid boolean, got 1"),
        ("training: {remainder: keep}", "input should be 'drop' or 'pad', got 'keep'"),
        ("cluster: {backend: mpi}", "cluster.backend"),
        ("cluster: {num_workers: 0}", "cluster.num_workers: input should be greater than 0"),
        ("cluster: {lost_after_s: 1}", "must be more than heartbeat_s (1)"),
        ("tensorboard: {port: 70000}", "tensorboard.port"),
        ("infer: {model: best}", "model: best needs a metric"),
        ("output: {path: p, mode: upsert}", "output.mode"),
        ("[1, 2]", "expected keys and values, got list"),
        ("a: [", "is no YAML"),
        ("label: a\nlabel: b", "the key 'label' is there twice"),
    ],
)
def test_wrong_values_say_where_and_what(text, message, config_file):
    assert message in refused(text, config_file)


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"cannot read the config /no/such\.yaml: No such file"):
        load_config("/no/such.yaml")


def test_an_empty_file_is_all_defaults(config_file):
    assert load_config(config_file("")) == JobConfig()


def test_set_wins_over_the_file_and_the_last_one_wins(config_file):
    path = config_file("training: {epochs: 5, seed: 1}")
    config = load_config(path, ["training.epochs=7", "training.epochs=9", "label=digit"])
    assert (config.training.epochs, config.training.seed, config.label) == (9, 1, "digit")


def test_set_takes_yaml_values():
    overrides = [
        "model.fn=a.b:c",
        "model.params.rate=1e-3",
        "model.params.layers=[8, 4]",
        "model.params.name='1e-3'",
        "features={x: {column: a}}",
        "tensorboard.keep=true",
        "cluster.num_workers=null",
    ]
    config = load_config(None, overrides)
    assert config.model.params == {"rate": 0.001, "layers": [8, 4], "name": "1e-3"}
    assert config.features["x"].column == "a"
    assert config.tensorboard.keep
    assert config.cluster.num_workers is None


def test_set_opens_a_section_that_the_file_leaves_null(config_file):
    assert load_config(config_file("output: null"), ["output.path=p"]).output.path == "p"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs", "expected key=value, such as training.epochs=5"),
        ("=5", "expected key=value"),
        ("training..epochs=5", "expected key=value"),
        ("label.x=5", "label is 'digit', it has no keys to set"),
        ("training.epochs=[", "the value is no YAML"),
        ("training.epoch=5", "unknown key 'epoch'; did you mean 'epochs'?"),
    ],
)
def test_a_set_that_makes_no_sense_is_refused(override, message, config_file):
    assert message in refused("label: digit", config_file, override)


def test_tensorboard_keep_is_short_for_its_section():
    assert load_config(None, ["tensorboard=keep"]).tensorboard.keep


def test_a_config_cannot_be_changed():
    config = TrainingConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.epochs = 3


def test_configs_are_keyword_only():
    with pytest.raises(TypeError):
        TrainingConfig(3)


@pytest.mark.parametrize(
    ("job", "overrides", "message"),
    [
        ("prepare", [], "`prepare` needs table, features, dataset"),
        ("prepare", ["table.path=p", "dataset.path=d"], "`prepare` needs features"),
        ("train", ["runs=r"], "`train` needs dataset, model"),
        ("infer", ["runs=r", "output.path=o"], "`infer` needs table (or infer.table)"),
        (
            "infer",
            ["runs=r", "output.path=o", "table.path=t", "infer.split=test"],
            "needs dataset (its splits",
        ),
    ],
)
def test_each_job_names_the_sections_that_it_lacks(job, overrides, message):
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides).check_for(job)
    assert message in str(caught.value)


def test_infer_may_bring_a_table_of_its_own():
    load_config(None, ["runs=r", "output.path=o", "infer.table.path=t"]).check_for("infer")


def test_required_names_the_section():
    with pytest.raises(ConfigError, match="`train` needs the section `dataset`"):
        required(None, "dataset", job="train")


def test_build_names_where_values_came_from():
    with pytest.raises(ConfigError, match=r"train\(\): epochs: input should be greater than 0"):
        build(TrainingConfig, {"epochs": 0}, where="train()")


def test_numpy_s_numbers_are_numbers(config_file):
    params = {"rate": np.float32(0.5), "width": [np.int64(3)], "deep": {"on": np.bool_(True)}}
    values = {"model": {"fn": "a:b", "params": params}}
    config = build(JobConfig, values, where="train()")
    assert config.model.params == {"rate": 0.5, "width": [3], "deep": {"on": True}}
    assert load_config(config_file(config.to_yaml())) == config


@pytest.mark.parametrize("value", [object(), np.zeros(2), {"deep": [object()]}])
def test_params_that_job_yaml_cannot_hold_are_named(value):
    with pytest.raises(ConfigError, match=r"train\(\): model.params: rate .*YAML"):
        build(
            JobConfig,
            {"model": {"fn": "a:b", "params": {"width": 1, "rate": value}}},
            where="train()",
        )


def test_a_seed_that_workers_cannot_take_is_refused():
    assert build(TrainingConfig, {"seed": 2**32 - 1}, where="train()").seed == 2**32 - 1
    with pytest.raises(ConfigError, match=r"seed: .*less than 4294967296"):
        build(TrainingConfig, {"seed": 2**32}, where="train()")


def test_the_schema_knows_every_section_and_both_ways_to_write_features():
    schema = json.loads(json.dumps(json_schema()))
    assert set(schema["properties"]) == set(JobConfig.model_fields)
    assert schema["additionalProperties"] is False
    kinds = {kind.get("type") for kind in schema["properties"]["features"]["anyOf"]}
    assert kinds == {"array", "object", "null"}


@given(
    epochs=st.integers(1, 10**6),
    batch=st.integers(1, 10**6),
    params=st.dictionaries(
        st.text("abc", min_size=1),
        st.one_of(st.integers(), st.floats(allow_nan=False), st.text(), st.booleans(), st.none()),
    ),
)
def test_any_config_survives_being_written_and_read(epochs, batch, params, tmp_path_factory):
    values = {
        "training": {"epochs": epochs, "global_batch_size": batch},
        "model": {"fn": "a:b", "params": params},
    }
    config = build(JobConfig, values, where="test")
    path = tmp_path_factory.mktemp("config") / "job.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert load_config(str(path)) == config
    assert yaml.safe_load(config.to_yaml())["training"]["epochs"] == epochs


def test_the_config_that_comes_with_the_repository_is_whole():
    config = load_config(str(ROOT / "conf" / "local.yaml"))
    for job in ("prepare", "train", "infer"):
        config.check_for(job)
