"""Safetensors files that are cut short or altered, for tests of those that read them."""

from collections.abc import Iterator

from hypothesis import strategies as st


def cut(saved: bytes) -> Iterator[bytes]:
    """Yields a file cut short at every length."""
    return (saved[:length] for length in range(len(saved)))


def flip_some(saved: bytes, data: st.DataObject) -> bytes:
    """Returns a file with one to three bytes changed."""
    content = bytearray(saved)
    places = st.lists(st.integers(0, len(saved) - 1), min_size=1, max_size=3, unique=True)
    for place in data.draw(places):
        content[place] ^= data.draw(st.integers(1, 255))
    return bytes(content)


def flip_each_bit(saved: bytes) -> Iterator[bytes]:
    """Yields a file with one bit of its tensors changed, for each of these bits."""
    for place in range(8 + int.from_bytes(saved[:8], "little"), len(saved)):
        for bit in range(8):
            content = bytearray(saved)
            content[place] ^= 1 << bit
            yield bytes(content)
