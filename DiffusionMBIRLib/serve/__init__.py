"""A page in the browser for computers without a screen: slice views, the settings that matter, a running job.

``access`` says who gets anything at all, ``sources`` which files there are, ``session`` what is computed, ``views``
what is seen, ``page`` where it stands and ``server`` starts all of it.  The first three need no trame, and nothing here
needs torch: jobs run in a process of their own.
"""
