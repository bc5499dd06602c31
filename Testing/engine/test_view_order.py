"""The order of files by the numbers in their names."""

from __future__ import annotations

import numpy as np
import pytest

from DiffusionMBIRLib.io.view_order import angles_in_names, orders_by_name

RIGHT_ORDERS = {
    "counter": ["raw_8", "raw_9", "raw_10", "raw_11"],
    "padded counter": ["a0008", "a0009", "a0010"],
    "constant ending": ["view_1_40kV", "view_2_40kV", "view_10_40kV"],
    "constant start": ["2023_scan_1", "2023_scan_2", "2023_scan_10"],
    "one decimal": ["proj_0.5", "proj_3.5", "proj_10.5", "proj_100.5"],
    "decimals of any length": ["p_0", "p_0.125", "p_0.25", "p_0.5", "p_1", "p_10"],
    "decimal comma": ["p_0,5", "p_2,25", "p_11,75"],
    "angle and counter": ["t_9.5_001", "t_50.25_002", "t_111.2461_003"],
    "signs": ["tilt_-60.0", "tilt_-7.5", "tilt_0.0", "tilt_7.5", "tilt_60.0"],
    "sign without a separator": ["tilt-10", "tilt-9", "tilt0", "tilt9"],
    "both signs": ["t-10", "t-9", "t+9", "t+10"],
    "sign words": ["ang_m20", "ang_m3", "ang_p4", "ang_p30"],
    "a mark that is no sign": ["img-1", "img-2", "img-10"],
    "dates": ["2023-05-01_9-59-59", "2023-05-01_10-00-00", "2023-05-02_8-00-00", "2023-10-01_1-00-00"],
    "exponents": ["p_5.00e-01", "p_3.50e+00", "p_2.00e+01"],
    "counters behind points": ["scan.1.1", "scan.1.2", "scan.1.9", "scan.1.10"],
    "series and counter": ["s1_f9", "s1_f10", "s2_f1", "s2_f2"],
    "unlike names": ["first", "view_2", "view_2_b", "view_10"],
}


@pytest.mark.parametrize("kind", RIGHT_ORDERS)
def test_right_order(kind):
    right = RIGHT_ORDERS[kind]
    for seed in range(3):
        names = list(np.random.default_rng(seed).permutation(right))
        assert [names[k] for k in orders_by_name(names)[0].index] == right


def test_other_orders_are_offered_once():
    names = ["a3_001", "a1_002", "a2_003"]
    first, *others = orders_by_name(names)
    assert [names[k] for k in first.index] == ["a1_002", "a2_003", "a3_001"]
    assert [[names[k] for k in order.index] for order in others] == [names]
    assert len(orders_by_name(["v_1_40kV", "v_2_40kV"])) == 1
    assert [order.how for order in orders_by_name(["v_2", "v_10"])][1:] == ["their names as text"]


def test_angles_that_names_hold():
    listed = np.array([0.0, 111.25, 222.5, 333.75])
    names = ["g_222.5_2", "g_0.0_0", "g_333.8_3", "g_111.2_1"]
    assert angles_in_names(names, listed).tolist() == [222.5, 0.0, 333.75, 111.25]
    assert angles_in_names(["v_0", "v_1", "v_2"], np.array([2.0, 1.0, 0.0])) is None  # a counter
    assert angles_in_names(["v_5", "v_6", "v_7"], np.array([0.0, 60.0, 120.0])) is None
