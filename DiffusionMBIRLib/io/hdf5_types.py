"""Types of HDF5 fields, looked at before libhdf5 converts values of them."""

from __future__ import annotations

from typing import Any

_ENCODED = 2  # bytes before the message of a type in its encoded form
_VLEN = 9  # class of lists and texts of varying length (HDF5 file format, IV.A.2.d)


def is_sound(kind: Any) -> bool:
    """Whether what a type says of varying length is a list or a text.

    kind: of ``h5py.h5t``.  libhdf5 opens other ones, which only damage makes, and dies of a null pointer when it
    reads a value.
    """
    import h5py

    if isinstance(kind, h5py.h5t.TypeCompoundID):
        return all(is_sound(kind.get_member_type(k)) for k in range(kind.get_nmembers()))
    if isinstance(kind, h5py.h5t.TypeArrayID):
        return is_sound(kind.get_super())
    if not isinstance(kind, h5py.h5t.TypeVlenID):
        return True
    message = kind.encode()[_ENCODED:]
    return message[0] & 15 == _VLEN and message[1] & 15 in (0, 1) and is_sound(kind.get_super())
