"""What it costs to tell how far off a result may be; needs nothing, so that estimates can ask."""

EVALUATIONS = 2  # of the network, for each volume that it is asked for
CG_STEPS = 15  # to part what was measured; more of them would find what lies below the noise of usual scans
PRODUCTS = 2 * CG_STEPS + 4  # with the operator or its adjoint
TV_SWEEPS = {"CT": 30, "MR": 10}  # of total variation, which the result is compared with; those of MRI cost more
STAGE = "doubt"
