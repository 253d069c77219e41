"""A model that eats memory until something stops it."""

import time

STEP = 64 << 20
STEPS = 48


def build(spec, params):
    eaten = []
    for _ in range(STEPS):
        eaten.append(bytearray(b"x") * STEP)
        time.sleep(0.2)
    message = f"nothing stopped it at {STEPS * STEP >> 20} MiB"
    raise RuntimeError(message)
