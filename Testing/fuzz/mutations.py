"""How a file is damaged: bits, numbers, words, length.  The same seed damages it in the same way."""

from __future__ import annotations

import random
import re
import struct

NUMBERS = ("0", "-1", "1", "2", "1.5", "1e30", "-1e30", "1e-30", "nan", "inf", "65536", "2147483648", "1e400", "9" * 30)
INTEGERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1)
_LONGEST = 1 << 16
_HEADER = 2048


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The content after one to three kinds of damage."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        content = rng.choice(DAMAGES)(content, rng)
    return content


def _place(content: bytes, rng: random.Random) -> int:
    """Anywhere, but half of the time where headers are."""
    return rng.randrange(min(len(content), _HEADER) if rng.random() < 0.5 else len(content))


def flip_bits(content: bytes, rng: random.Random) -> bytes:
    out = bytearray(content)
    for _ in range(rng.choice((1, 1, 4, 16)) if out else 0):
        out[_place(content, rng)] ^= 1 << rng.randrange(8)
    return bytes(out)


def truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: _place(content, rng)] if content else content


def change_number(content: bytes, rng: random.Random) -> bytes:
    """A number in text."""
    found = [m.span() for m in re.finditer(rb"-?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?", content[: 8 * _HEADER])]
    if not found:
        return change_integer(content, rng)
    start, stop = rng.choice(found)
    return content[:start] + rng.choice(NUMBERS).encode() + content[stop:]


def change_integer(content: bytes, rng: random.Random) -> bytes:
    """A number in binary."""
    size, code = rng.choice(((1, "B"), (2, "H"), (4, "I"), (8, "Q")))
    value = struct.pack(f"{rng.choice('<>')}{code}", rng.choice(INTEGERS) & ((1 << 8 * size) - 1))
    at = _place(content, rng) if content else 0
    return content[:at] + value + content[at + size :]


def swap_words(content: bytes, rng: random.Random) -> bytes:
    found = [m.span() for m in re.finditer(rb'"[^"\n]{1,40}"|[A-Za-z_]{2,}|[\[\]{}()]', content[: 8 * _HEADER])]
    if len(found) < 2:
        return flip_bits(content, rng)
    (a, b), (c, d) = sorted(rng.sample(found, 2))
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def lengthen(content: bytes, rng: random.Random) -> bytes:
    at = _place(content, rng) if content else 0
    piece = content[at : at + rng.choice((4, 64, 512))] or b"\0"
    more = piece * rng.choice((1, 2, 100)) if rng.random() < 0.7 else rng.randbytes(rng.choice((1, 8, 300)))
    return content[:at] + more[:_LONGEST] + content[at:]


def remove(content: bytes, rng: random.Random) -> bytes:
    at = _place(content, rng) if content else 0
    return content[:at] + content[at + rng.choice((1, 2, 8, 100)) :]


DAMAGES = (flip_bits, truncate, change_number, change_number, change_integer, swap_words, lengthen, remove)
