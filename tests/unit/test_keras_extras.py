"""Keras without what it imports just in case, and with it once somebody asks."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

BEFORE = """
import inspect, pytest, sys
from spark_dl.keras_extras import import_on_demand
import_on_demand()
import_on_demand()
import keras, tensorflow as tf
assert len([f for f in sys.meta_path if "keras_extras" in type(f).__module__]) == 1
inspect.getmodule(object)  # looks at every module
heavy = {"sklearn", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""


def run(script: str, before: str = BEFORE) -> None:
    done = subprocess.run(
        [sys.executable, "-c", before + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize(
    ("asked", "needed"),
    [
        ("keras.wrappers.SKLearnClassifier", "sklearn"),
        ("tf.keras.wrappers.SKLearnRegressor", "sklearn"),
        ("keras.visualization.plot_image_gallery", "matplotlib"),
    ],
)
def test_an_extra_is_there_when_it_is_asked_for(asked, needed):
    pytest.importorskip(needed, reason=f"{needed} is not installed")
    run(
        f"""
        assert callable({asked})
        assert {needed!r} in sys.modules
        """
    )


@pytest.mark.parametrize(
    "start",
    [
        "from spark_dl.cluster.child import preload; preload('tensorflow,keras')",
        "from spark_dl.inference import loading; loading._limit_tensorflow(loading.Compute())",
    ],
    ids=["a child that trains", "a Python worker that scores"],
)
def test_a_worker_s_process_has_no_extras(start):
    run(
        f"""
        {start}
        import keras, sys
        assert keras.layers.Dense
        assert not {{"sklearn", "matplotlib"}} & set(sys.modules)
        """,
        before="",
    )


def test_extras_are_modules_as_all_others():
    run(
        """
        from keras.wrappers import SKLearnClassifier
        assert SKLearnClassifier is keras.wrappers.SKLearnClassifier
        assert "SKLearnRegressor" in dir(keras.wrappers)
        with pytest.raises(AttributeError, match="'plot_nothing'"):
            keras.visualization.plot_nothing
        """
    )


def test_an_extra_that_cannot_be_imported_says_why_each_time():
    run(
        """
        sys.modules["keras.src.wrappers.sklearn_wrapper"] = None  # as a broken installation
        for _ in range(2):
            with pytest.raises(ImportError, match="sklearn_wrapper"):
                keras.wrappers.SKLearnClassifier
        """
    )


def test_threads_that_ask_at_once_get_the_same():
    run(
        """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(8) as pool:
            found = set(pool.map(lambda _: keras.wrappers.SKLearnClassifier, range(64)))
        assert len(found) == 1, found
        """
    )
