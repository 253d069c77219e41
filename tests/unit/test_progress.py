"""Progress: speed and time left from events with times of their own, no clock that runs."""

from __future__ import annotations

import io
import logging
import threading

import pytest

from spark_dl.monitoring.progress import Progress, ProgressEvent, Throughput, format_duration


def event(step, *, epoch=0, time=0.0, rows=0, rank=0, loss=0.5, metrics=None):
    return ProgressEvent(
        rank=rank,
        epoch=epoch,
        epochs=3,
        step=step,
        steps_per_epoch=10,
        loss=loss,
        rows=rows,
        metrics=metrics or {},
        time=time,
    )


def test_the_first_event_has_no_speed():
    snapshot = Throughput().add(event(1))
    assert snapshot.rows_per_s is None
    assert snapshot.eta_s is None
    assert snapshot.line() == "epoch 1/3 step 1/10: loss 0.5"


def test_speed_and_time_left():
    speed = Throughput()
    speed.add(event(1, time=100.0, rows=32))
    snapshot = speed.add(event(6, time=102.0, rows=192))
    assert snapshot.rows_per_s == pytest.approx(160 / 2)
    assert snapshot.eta_s == pytest.approx(24 * 2 / 5)  # 24 of 30 steps are left, 2.5 a second


def test_speed_goes_on_over_the_end_of_an_epoch():
    speed = Throughput()
    speed.add(event(10, time=1.0, rows=320))
    snapshot = speed.add(event(5, epoch=1, time=3.0, rows=160))
    assert snapshot.rows_per_s == pytest.approx(80)
    assert snapshot.eta_s == pytest.approx(15 * 2 / 5)


def test_only_the_latest_seconds_count():
    speed = Throughput(window_s=10)
    for step in range(1, 6):
        speed.add(event(step, time=float(step), rows=step))  # a row a second
    for step in range(6, 10):
        snapshot = speed.add(event(step, time=5 + (step - 5) * 5.0, rows=5 + (step - 5) * 100))
    assert snapshot.rows_per_s == pytest.approx(20)


def test_one_slow_step_is_measured_too():
    speed = Throughput(window_s=10)
    speed.add(event(1, time=0.0, rows=10))
    assert speed.add(event(2, time=100.0, rows=20)).rows_per_s == pytest.approx(0.1)


def test_a_restart_forgets_what_was_before():
    speed = Throughput()
    speed.add(event(8, epoch=1, time=10.0, rows=256))
    back = speed.add(event(3, epoch=1, time=90.0, rows=96))
    assert back.rows_per_s is None
    again = speed.add(event(4, epoch=1, time=91.0, rows=128))
    assert again.rows_per_s == pytest.approx(32)


def test_equal_times_make_no_infinite_speed():
    speed = Throughput()
    speed.add(event(1, time=5.0, rows=10))
    assert speed.add(event(2, time=5.0, rows=20)).rows_per_s is None


def test_the_line_names_metrics_speed_and_time_left():
    speed = Throughput()
    speed.add(event(1, time=0.0, rows=10))
    line = speed.add(
        event(10, time=9.0, rows=54_010, metrics={"loss": 9, "accuracy": 0.97654})
    ).line()
    assert line == "epoch 1/3: loss 0.5, accuracy 0.9765, 6,000 rows/s, ETA 20 s"


def test_at_the_end_no_time_is_left():
    speed = Throughput()
    speed.add(event(9, epoch=2, time=0.0, rows=1))
    assert "ETA" not in speed.add(event(10, epoch=2, time=1.0, rows=2)).line()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1:00 min"), (3599.6, "1:00 h"), (7325, "2:02 h")],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


def test_in_a_log_each_epoch_is_a_line_and_little_else(caplog):
    caplog.set_level(logging.INFO, "spark_dl")
    now = [0.0]
    stream = io.StringIO()  # no terminal
    with Progress(log_every_s=30, stream=stream, clock=lambda: now[0]) as progress:
        for step in range(1, 11):
            now[0] += 8.0
            progress.update(event(step, time=now[0], rows=step * 32))
            progress.update(event(step, time=now[0], rows=step * 32, rank=1))
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(":")[0] for line in lines] == [
        "epoch 1/3 step 4/10",
        "epoch 1/3 step 8/10",
        "epoch 1/3",
    ]
    assert stream.getvalue() == ""


def test_live_the_bar_shows_the_latest_event():
    stream = io.StringIO()
    with Progress(live=True, stream=stream) as progress:
        progress.update(event(5, time=1.0, rows=160))
        progress.update(event(10, epoch=2, time=3.0, rows=320, metrics={"val_loss": 0.25}))
    last = stream.getvalue().split("\r")[-1]
    assert "epoch 3/3" in last
    assert "30/30" in last
    assert "val_loss 0.25" in last
    assert last.endswith("\n")


def test_events_after_the_end_are_not_shown():
    stream = io.StringIO()
    progress = Progress(live=True, stream=stream)
    progress.update(event(1))
    progress.close()
    shown = stream.getvalue()
    progress.update(event(2))
    progress.close()
    assert stream.getvalue() == shown


def test_many_threads_may_report():
    stream = io.StringIO()
    start = threading.Barrier(4)
    with Progress(live=True, stream=stream) as progress:

        def report():
            start.wait()
            for step in range(1, 11):
                progress.update(event(step, time=float(step)))

        threads = [threading.Thread(target=report) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        progress.update(event(10, epoch=2, time=99.0))
    assert "30/30" in stream.getvalue().split("\r")[-1]
