"""FeatureSpec, the table of types, and what TensorFlow makes of them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from spark_dl.errors import SchemaError
from spark_dl.schema import DTYPES, DType, Feature, FeatureSpec, Role, SpecEntry
from spark_dl.schema.types import ExampleKind


def entry(name, dtype=DType.FLOAT32, shape=(), role=Role.FEATURE):
    return SpecEntry(name=name, column=name, dtype=dtype, shape=shape, role=role)


@pytest.fixture
def spec():
    return FeatureSpec(
        entries=(
            entry("image", shape=(8, 8, 1)),
            entry("words", DType.STRING, (None,)),
            entry("digit", DType.INT32, role=Role.LABEL),
            entry("importance", role=Role.WEIGHT),
            entry("key", DType.INT64, role=Role.ID),
        )
    )


def test_every_dtype_has_a_row_in_the_table():
    assert set(DTYPES) == set(DType)
    assert {info.example for info in DTYPES.values()} == set(ExampleKind)
    assert len({info.spark for info in DTYPES.values()}) == len(DTYPES)


def test_roles(spec):
    assert [e.name for e in spec.features] == ["image", "words"]
    assert (spec.label.name, spec.weight.name) == ("digit", "importance")
    assert [e.name for e in spec.ids] == ["key"]
    bare = FeatureSpec(entries=(entry("x"),))
    assert (bare.label, bare.weight, bare.ids) == (None, None, ())


def test_sizes(spec):
    assert (spec["image"].size, spec["words"].size, spec["digit"].size) == (64, None, 1)
    assert (spec["image"].is_array, spec["digit"].is_array) == (True, False)


def test_a_name_that_is_not_there(spec):
    with pytest.raises(SchemaError, match="'imagee' is not in the table; did you mean 'image'"):
        spec["imagee"]


def test_json_is_the_identity(spec):
    assert FeatureSpec.from_json(spec.to_json()) == spec
    assert FeatureSpec.from_json(spec.to_json().encode()) == spec


@pytest.mark.parametrize(
    "text", ["", "{}", '{"entries": [{"name": "x"}]}', '{"entries": [], "x": 1}']
)
def test_text_that_is_no_spec(text):
    with pytest.raises(SchemaError, match=r"model/1/feature_spec.json is not a feature spec"):
        FeatureSpec.from_json(text, where="model/1/feature_spec.json")


def test_names_and_roles_are_unique():
    with pytest.raises(ValidationError, match="names are used twice: x"):
        FeatureSpec(entries=(entry("x"), entry("x")))
    with pytest.raises(ValidationError, match="more than one label column"):
        FeatureSpec(entries=(entry("x", role=Role.LABEL), entry("y", role=Role.LABEL)))


def test_a_feature_takes_its_column_first():
    assert Feature("pixels", shape=[8, 8]) == Feature(column="pixels", shape=(8, 8))
    with pytest.raises(ValidationError):
        Feature("pixels", size=3)
    with pytest.raises(ValidationError):
        Feature("pixels", dtype="float64")


def test_a_spec_cannot_be_changed(spec):
    with pytest.raises(ValidationError):
        spec.entries = ()
