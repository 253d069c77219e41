"""What is around a run breaks: its network, its storage, its checkpoints."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from faults.conftest import WORKERS, first_line, prepared
from faults.model import DEADLINE_S
from faults.processes import listens_at, sockets

from spark_dl.cluster import codec
from spark_dl.errors import CancelledError, ManifestError, StorageError
from spark_dl.storage import JobState, RunPaths

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(400)]


def control_ports():
    """Return the ports of this process's control channels, told by their greeting."""
    return [port for port in listens_at(os.getpid()) if greets(port)]


def greets(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as stranger:
        stranger.settimeout(5)
        return stranger.recv(64).startswith(codec._MAGIC)
    return False


def test_strangers_flood_the_control_channel(start, as_if_nothing_happened):
    """Garbage, silence, and frames that look right to whoever does not know the secret."""
    caught = start()
    caught.children()
    (port,) = control_ports()
    frame = bytes(codec._NONCE_BYTES + codec._MAC_BYTES) + codec._LENGTH.pack(20) + bytes(52)
    silent = []
    for number in range(300):
        with contextlib.suppress(OSError):
            stranger = socket.create_connection(("127.0.0.1", port), 5)
            silent.append(stranger)
            stranger.sendall([b"", os.urandom(5000), frame][number % 3])
    as_if_nothing_happened(caught, caught.result(), attempt=1)
    for stranger in silent:
        stranger.close()


@pytest.mark.smoke
def test_the_control_channel_is_cut(start, as_if_nothing_happened):
    """The driver sees its agents go, the agents their driver: all begin again."""
    caught = start()
    caught.children()
    (port,) = control_ports()
    for number in sockets(os.getpid()):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as connection:
            if connection.type is socket.SOCK_STREAM and connection.getsockname()[1] == port:
                connection.getpeername()  # not the one that listens
                connection.shutdown(socket.SHUT_RDWR)
    as_if_nothing_happened(caught, caught.result())


def test_a_shard_is_cut_off_while_it_is_read(start, rows, tmp_path):
    """The kernel kills who reads behind the end of a mapped file; the next try says why."""
    # of packs as large as by default, what is read ahead would be all
    dataset = prepared(rows, tmp_path / "rows", rows_per_record=1)
    caught = start(dataset=dataset, config={"training": {"log_every_steps": 1}})
    caught.children()
    for shard in dataset.manifest.split("train"):
        os.truncate(os.path.join(dataset.path, shard.path), 0)
    caught.fails("ShardError: shard ", "has 0 bytes, its manifest says", attempt=2)


@contextlib.contextmanager
def mounted(folder, *options):
    """Mount something on a folder, for a while."""
    os.makedirs(folder, exist_ok=True)
    mount, umount = shutil.which("mount") or "mount", shutil.which("umount") or "umount"
    done = subprocess.run([mount, *options, folder], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this user cannot mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run([umount, "--lazy", folder], check=True)


@pytest.mark.smoke
def test_the_folder_of_checkpoints_is_full(start, tmp_path):
    folder = RunPaths(runs=str(tmp_path / "runs"), run_id="run").checkpoints
    with mounted(folder, "-t", "tmpfs", "-o", "size=12k", "tmpfs"):
        start().fails("No space left on device", "checkpoints")


def test_the_folder_of_checkpoints_is_read_only(start, tmp_path):
    folder = RunPaths(runs=str(tmp_path / "runs"), run_id="run").checkpoints
    with mounted(folder, "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs"):
        start().fails("Read-only file system", "checkpoints")


def test_the_run_folder_is_read_only(start, tmp_path):
    with mounted(str(tmp_path / "runs"), "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs"):
        caught = start()
        with pytest.raises(StorageError) as ended:
            caught.result()
    assert str(tmp_path / "runs") in first_line(ended.value)


def interrupted(start, num_workers=WORKERS):
    """A run whose driver's thread was told to stop behind its second checkpoint."""
    caught = start(num_workers=num_workers)
    caught.children(num_workers)
    Path(caught.paths.stop).write_text("{}")
    caught.thread.join(DEADLINE_S)  # before it is let go: a fast machine would be done by then
    with pytest.raises(CancelledError):
        caught.result()
    assert caught.status.status is JobState.CANCELLED
    return caught


def newest_checkpoint(paths):
    return max(Path(paths.checkpoints).glob("step-*/checkpoint.json")).parent


def test_a_checkpoint_is_cut_off(start, as_if_nothing_happened):
    caught = interrupted(start)
    for part in newest_checkpoint(caught.paths).glob("*.npz"):
        os.truncate(part, part.stat().st_size // 2)
    again = start()
    again.go()
    as_if_nothing_happened(again, again.result())


def wider(spec, params):
    import keras

    inputs = {feature.name: keras.Input((), name=feature.name) for feature in spec.features}
    columns = [keras.layers.Reshape((1,))(tensor) for tensor in inputs.values()]
    hidden = keras.layers.Dense(9)(keras.layers.Concatenate()(columns))
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    model.compile(optimizer="adam", loss="mse")
    return model


def test_the_checkpoint_is_of_another_model(start):
    interrupted(start, num_workers=1)
    again = start(model_fn=wider, num_workers=1)
    again.fails("the checkpoint is of another model", "use a new run_id", attempt=2)


def uncompiled(spec, params):
    import keras

    inputs = {feature.name: keras.Input((), name=feature.name) for feature in spec.features}
    return keras.Model(inputs, keras.layers.Add()(list(inputs.values())))


def test_the_model_is_not_compiled(start):
    start(model_fn=uncompiled).fails("call model.compile(optimizer=…, loss=…)", ranks="0, 1")


def test_the_manifest_is_of_another_format(start, copied_dataset):
    path = Path(copied_dataset.path, "manifest.json")
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 99'))
    assert "99" in path.read_text()
    caught = start(dataset=copied_dataset.path)
    with pytest.raises(ManifestError) as ended:
        caught.result()
    assert "99" in first_line(ended.value)
    assert "manifest" in first_line(ended.value)


def test_the_number_of_ranks_changes(start):
    caught = interrupted(start)
    shutil.rmtree(caught.folder)
    os.makedirs(caught.folder)
    again = start(num_workers=1)
    run = again.result()
    assert len(run.history["loss"]) == 2
    steps = [record["step"] for record in again.metrics if record["scope"] == "step"]
    assert steps == list(range(1, 31))
