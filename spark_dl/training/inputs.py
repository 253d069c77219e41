"""Whether a model takes the features of its dataset.

Keras picks the features of a dict by name only for inputs that are declared as a list: of a dict
of inputs it takes them in the order of their names, and warns if there are more than it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import keras

from spark_dl.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spark_dl.schema import FeatureSpec, SpecEntry

__all__ = ["check_inputs"]

#: Methods that see all features; a model that has its own may use those that are no inputs.
_SEE_FEATURES: Final = ("train_step", "compute_loss", "compute_metrics")
#: Features and inputs that an error names; there may be hundreds.
_NAMED: Final = 8


def check_inputs(model: keras.Model, spec: FeatureSpec, *, bare: bool) -> None:
    """Refuse a model that would not get each of its inputs, or not use each feature.

    A model that declares no inputs, or has a `call` of its own, is left alone.

    Args:
        model: what `model_fn` returned.
        spec: the dataset's columns.
        bare: whether the model gets its single feature bare instead of in a dict by name.

    Raises:
        ConfigError: features, columns and inputs, with their shapes, and what to change.
    """
    inputs = _inputs(model)
    if inputs is None or _has_own(model, "call"):
        return
    features = {entry.name: entry for entry in spec.features}
    if bare and len(inputs) == 1:
        pairs = list(zip(features.values(), inputs.items(), strict=True))
        unused, unfed = [], []
    else:
        pairs = [(features[name], (name, inputs[name])) for name in inputs if name in features]
        unused = [entry for name, entry in features.items() if name not in inputs]
        unfed = [name for name in inputs if name not in features]
        if _uses_more(model):
            unused = []
    problems = [
        *(f"{_column(entry)} goes into no input" for entry in unused),
        *(f"input {name!r} gets no column{did_you_mean(name, features)}" for name in unfed),
        *(
            f"{_column(entry)} holds {_type(entry)}, input {name!r} takes {_taken(tensor)}"
            for entry, (name, tensor) in pairs
            if not _fits(entry, tensor)
        ),
    ]
    if problems:
        have = _some([f"{entry.name} {_type(entry)}" for entry in spec.features], ", ")
        want = _some([f"{name} {_taken(tensor)}" for name, tensor in inputs.items()], ", ")
        msg = (
            f"the model does not fit its dataset: {_some(problems, '; ')} (features of a row: "
            f"{have}; inputs: {want}); {_advice(spec, bare=bare)}"
        )
        raise ConfigError(msg)


def _inputs(model: keras.Model) -> dict[str, Any] | None:
    """Return the declared inputs by the names that features need; `None` where there are none."""
    if isinstance(model, keras.Sequential) and not hasattr(model, "inputs") and model.layers:
        model = model.layers[0]  # it gets what the whole gets
    tensors = getattr(model, "inputs", None)
    if not tensors or not all(isinstance(tensor, keras.KerasTensor) for tensor in tensors):
        return None
    declared = getattr(model, "input", None)
    if isinstance(declared, dict):
        return dict(declared)
    return {tensor.name: tensor for tensor in tensors}


def _has_own(model: keras.Model, method: str) -> bool:
    return not getattr(type(model), method).__module__.startswith("keras.")


def _uses_more(model: keras.Model) -> bool:
    """Whether features beside the inputs may be meant, and do not take the place of others."""
    in_order = isinstance(getattr(model, "input", None), dict)
    return not in_order and any(_has_own(model, method) for method in _SEE_FEATURES)


def _fits(entry: SpecEntry, tensor: Any) -> bool:  # noqa: ANN401 - Keras has no types
    """Whether Keras can turn the column into the input: it adds or drops a last axis of 1."""
    if not isinstance(tensor, keras.KerasTensor):
        return True  # a structure, of which Keras speaks itself
    if (entry.info.tensor == "string") != (tensor.dtype == "string"):
        return False
    given, taken = entry.shape, tuple(tensor.shape[1:])
    if len(given) == len(taken) + 1 and given[-1] == 1:
        given = given[:-1]
    elif len(taken) == len(given) + 1 and taken[-1] == 1:
        taken = taken[:-1]
    return len(given) == len(taken) and all(
        None in (one, other) or one == other for one, other in zip(given, taken, strict=True)
    )


def _column(entry: SpecEntry) -> str:
    renamed = f" (feature {entry.name!r})" if entry.name != entry.column else ""
    return f"column {entry.column!r}{renamed}"


def _type(entry: SpecEntry) -> str:
    return f"{entry.info.tensor} {_shape(entry.shape)}"


def _taken(tensor: Any) -> str:  # noqa: ANN401 - Keras has no types
    if not isinstance(tensor, keras.KerasTensor):
        return "several tensors"
    return f"{tensor.dtype} {_shape(tensor.shape[1:])}"


def _shape(dims: Sequence[int | None]) -> str:
    return f"[{', '.join('any' if dim is None else str(dim) for dim in dims)}]"


def _some(texts: Sequence[str], separator: str) -> str:
    more = [f"{len(texts) - _NAMED} more"] if len(texts) > _NAMED else []
    return separator.join([*texts[:_NAMED], *more])


def _advice(spec: FeatureSpec, *, bare: bool) -> str:
    first = spec.features[0]
    name = "" if bare else f", name={first.name!r}"
    return (
        f"give the model one input a feature, such as keras.Input({first.shape}{name}), or "
        "prepare the dataset with the features that it takes"
    )
