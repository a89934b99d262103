"""Devices as values: every row says what an estimate needs, and where it is from."""

import pytest

from tncompress.hardware.device import DEVICES, ITEMSIZE, Device, device

every_device = pytest.mark.parametrize("known", DEVICES.values(), ids=DEVICES)


@every_device
def test_a_row_is_complete(known):
    assert isinstance(known, Device)
    assert known.kind == known.name.split("-")[0]
    assert dict(known.rates).keys() == dict(known.tiles).keys() <= ITEMSIZE.keys()
    assert known.source
    assert 0 < known.overhead < 1e-4


@every_device
def test_rates_are_operations_a_second_and_bandwidths_bytes_a_second(known):
    """Matmuls of 100 operations a byte and more are bound by work on every machine there is."""
    for _, rate in known.rates:
        assert 1 < rate / known.bytes_per_second < 2000
    assert 1e10 < known.bytes_per_second < 1e13


# tiles by the dtype that the device is best at
TILES = {
    "tpu-v2": 128,
    "tpu-v3": 128,
    "tpu-v4": 128,
    "tpu-v5e": 128,
    "tpu-v5p": 128,
    "tpu-v6e": 256,
    "gpu-t4": 8,
    "gpu-v100": 8,
    "gpu-a100": 64,
    "gpu-l4": 64,
    "gpu-h100": 64,
    "gpu-h200": 64,
    "cpu": 16,
}


def test_tiles():
    assert {name: known.tile(known.rates[0][0]) for name, known in DEVICES.items()} == TILES


def test_a_narrower_dtype_is_not_slower():
    for known in DEVICES.values():
        rates = dict(known.rates)
        if {"float16", "float32"} <= rates.keys():
            assert rates["float16"] > rates["float32"]
        if {"bfloat16", "int8"} <= rates.keys():
            assert rates["int8"] >= rates["bfloat16"]


def test_an_unknown_device_is_told_what_there_is():
    with pytest.raises(ValueError, match=r"one of .*tpu-v5e.*cpu.*got 'tpu-v9'"):
        device("tpu-v9")
    with pytest.raises(ValueError, match="gpu-t4 has figures for float16, float32, int8, not for 'bfloat16'"):
        device("gpu-t4").rate("bfloat16")


def test_a_device_of_ones_own():
    mine = Device("mine", "cpu", (("float32", 1e9),), 1e9, 0.0, (("float32", 4),))
    assert device(mine) is mine
