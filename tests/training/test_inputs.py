"""Whether a model takes the features of its dataset: what is refused, and what goes on."""

from __future__ import annotations

import keras
import pytest

from spark_dl.errors import ConfigError
from spark_dl.schema import FeatureSpec, Role, SpecEntry
from spark_dl.training.export import takes_bare_input
from spark_dl.training.inputs import check_inputs

A, B, C = ((name, "float32", (1,)) for name in "abc")


def spec_of(*features):
    entries = [SpecEntry(name=n, column=n, dtype=d, shape=s) for n, d, s in features]
    label = SpecEntry(name="y", column="y", dtype="float32", role=Role.LABEL)
    return FeatureSpec(entries=(*entries, label))


def check(model, *features):
    spec = spec_of(*features)
    check_inputs(model, spec, bare=takes_bare_input(model, spec))


def added(*inputs):
    return inputs[0] if len(inputs) == 1 else keras.layers.Add()(list(inputs))


def tensors(names, shape=(1,), dtype=None):
    return {name: keras.Input(shape, name=name, dtype=dtype) for name in names}


def by_name(names, kind=keras.Model, **settings):
    inputs = tensors(names, **settings)
    return kind(inputs, added(*inputs.values()))


def in_a_list(names, kind=keras.Model):
    inputs = list(tensors(names).values())
    return kind(inputs, added(*inputs))


def single(name="z", shape=(1,), dtype=None):
    tensor = keras.Input(shape, name=name, dtype=dtype)
    return keras.Model(tensor, keras.layers.Identity()(tensor))


def sequential(*layers):
    return keras.Sequential([*layers, keras.layers.Dense(1)])


def nested(names):
    inputs = list(tensors(names).values())
    return keras.Model({"p": inputs}, added(*inputs))


def under_another_name(key, name):
    tensor = keras.Input((1,), name=name)
    return keras.Model({key: tensor}, keras.layers.Identity()(tensor))


class OwnLoss(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean((y - y_pred) * x["c"])


class OwnCall(keras.Model):
    def call(self, inputs, training=None):
        return super().call({name: inputs[name] for name in "ac"})


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs["a"]


@pytest.mark.parametrize(
    ("model", "features"),
    [
        (lambda: by_name("ab"), (A, B)),
        (lambda: by_name("ba"), (A, B)),
        (lambda: in_a_list("ba"), (A, B)),
        (lambda: by_name("a"), (A,)),
        (single, (A,)),
        (lambda: in_a_list("z"), (A,)),
        (lambda: sequential(keras.Input((1,))), (A,)),
        (sequential, (A,)),
        (sequential, (A, B)),
        (lambda: sequential(by_name("ab")), (A, B)),
        (Subclassed, (A, B)),
        pytest.param(
            lambda: under_another_name("a", "p"),
            (A,),
            marks=pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict"),
        ),
        (lambda: in_a_list("ab", OwnLoss), (A, B, C)),
        (lambda: by_name("ac", OwnCall), (A, B, C)),
        (lambda: single(shape=(3,)), (("x", "float32", (3,)),)),
        (lambda: single(shape=(3, 1)), (("x", "float32", (3,)),)),
        (lambda: single(shape=(3,)), (("x", "float32", (3, 1)),)),
        (single, (("x", "float32", ()),)),
        (lambda: single(shape=(None,)), (("x", "float32", (3,)),)),
        (lambda: single(shape=(3,)), (("x", "int64", (None,)),)),
        (lambda: single(dtype="string"), (("x", "string", (1,)),)),
    ],
)
def test_a_model_that_fits_goes_on(model, features):
    check(model(), *features)


@pytest.mark.parametrize(
    ("model", "features", "message"),
    [
        # Keras would feed b as c here, without a word but a warning
        (lambda: by_name("ac"), (A, B, C), r": column 'b' goes into no input \("),
        (lambda: in_a_list("ab"), (A, B, C), r": column 'c' goes into no input \("),
        (lambda: single("a"), (A, B), r": column 'b' goes into no input \("),
        (lambda: sequential(keras.Input((1,), name="a")), (A, B), "'b' goes into no input"),
        (lambda: sequential(by_name("ab")), (A, B, C), "'c' goes into no input"),
        (lambda: by_name("ac", OwnLoss), (A, B, C), "'b' goes into no input"),
        (
            single,
            (A, B),
            r"'a' goes into no input; column 'b' goes into no input; input 'z' gets no column",
        ),
        (lambda: by_name("z"), (A,), "column 'a' goes into no input; input 'z' gets no column"),
        (lambda: nested("ab"), (A, B), r"input 'p' gets no column .*; inputs: p several tensors"),
        (lambda: in_a_list("ab"), (A,), r": input 'b' gets no column \("),
        (
            lambda: by_name(["weigth"]),
            (("weight", "float32", (1,)),),
            "input 'weigth' gets no column; did you mean 'weight'",
        ),
        (
            lambda: single(shape=(4,)),
            (("x", "float32", (3,)),),
            r"column 'x' holds float32 \[3\], input 'z' takes float32 \[4\]",
        ),
        (lambda: single(shape=(4, 4)), (("x", "float32", (4,)),), r"takes float32 \[4, 4\]"),
        (lambda: by_name("ab", shape=(2,)), (A, B), r"'a' holds float32 \[1\].*'b' holds"),
        (single, (("x", "string", (1,)),), r"holds string \[1\], input 'z' takes float32 \[1\]"),
        (
            lambda: single(shape=(3,)),
            (("x", "float32", (None, 4)),),
            r"holds float32 \[any, 4\], input 'z' takes float32 \[3\]",
        ),
    ],
)
def test_a_model_that_does_not_fit_is_refused(model, features, message):
    with pytest.raises(ConfigError, match=message):
        check(model(), *features)


def test_the_error_names_both_sides_and_what_to_change():
    entry = SpecEntry(name="image", column="pixels", dtype="float32", shape=(8, 8, 1))
    spec = FeatureSpec(entries=(entry, *spec_of(A).entries))
    with pytest.raises(ConfigError) as refused:
        check_inputs(by_name("a"), spec, bare=False)
    assert str(refused.value) == (
        "the model does not fit its dataset: column 'pixels' (feature 'image') goes into no input "
        "(features of a row: image float32 [8, 8, 1], a float32 [1]; inputs: a float32 [1]); "
        "give the model one input a feature, such as keras.Input((8, 8, 1), name='image'), or "
        "prepare the dataset with the features that it takes"
    )


def test_of_hundreds_of_columns_some_are_named():
    features = [(f"x{number}", "float32", ()) for number in range(100)]
    with pytest.raises(ConfigError, match=r"'x7' goes into no input; 93 more \(.*; inputs: a"):
        check(single("a"), *features)
