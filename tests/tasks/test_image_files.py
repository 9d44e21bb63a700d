import io
import struct
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from PIL.ExifTags import Base

from ocd_core.errors import UserError
from ocd_core.tasks.image_files import MOST_PIXELS, decode_image, read_image

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def with_orientation(image: Image.Image, orientation: int, kind: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    return encoded(image, kind, exif=exif)


def turned(stored: Bytes, orientation: int) -> Bytes:
    """What the Exif standard says is to be shown, from the definition: where row 0 and column 0 of the file are."""
    return {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(stored, 1),
    }[orientation]


@settings(max_examples=60)
@given(
    values=hnp.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 2, 3, 4]))),
    orientation=st.integers(1, 8),
)
def test_8_bit_images_come_back_exactly_and_turned(values: Bytes, orientation: int) -> None:
    image = Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
    np.testing.assert_array_equal(decode_image(encoded(image), "a"), values)
    found = decode_image(with_orientation(image, orientation), "a")
    np.testing.assert_array_equal(found, turned(values, orientation))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_counts_in_every_format(kind: str, orientation: int) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8))
    plain = decode_image(encoded(image, kind), "a")
    np.testing.assert_array_equal(
        decode_image(with_orientation(image, orientation, kind), "a"), turned(plain, orientation)
    )


def test_one_bit_and_palette_images() -> None:
    bits = np.array([[0, 255, 255], [255, 0, 0]], dtype=np.uint8)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(bits).convert("1")), "a")[..., 0], bits)
    palette = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8), mode="P")
    colours = [(10, 20, 30), (200, 100, 0), (1, 2, 3)]
    palette.putpalette([x for colour in colours for x in colour])
    expected = np.array([[colours[0], colours[1]], [colours[2], colours[1]]], dtype=np.uint8)
    np.testing.assert_array_equal(decode_image(encoded(palette), "a"), expected)
    found = decode_image(encoded(palette, transparency=1), "a")
    np.testing.assert_array_equal(found[..., :3], expected)
    np.testing.assert_array_equal(found[..., 3], [[255, 0], [255, 0]])


@pytest.mark.parametrize(("mode", "key"), [("L", 7), ("RGB", (7, 8, 9))])
def test_a_transparent_colour_becomes_alpha(mode: str, key: Any) -> None:
    image = Image.new(mode, (2, 1), key)
    image.putpixel((1, 0), 50 if mode == "L" else (50, 60, 70))
    assert decode_image(encoded(image, transparency=key), "a")[0, :, -1].tolist() == [0, 255]


def test_of_several_frames_the_first_counts() -> None:
    frames = [Image.new("L", (3, 2), value) for value in (40, 90)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert set(decode_image(data, "a").flatten().tolist()) == {40}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "MPO"])
def test_of_several_frames_the_first_counts_in_every_format(kind: str) -> None:
    first = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8))
    options = {"lossless": True} if kind == "WEBP" else {}
    both = encoded(first, kind, save_all=True, append_images=[first.rotate(180)], **options)
    alone = decode_image(encoded(first, "JPEG" if kind == "MPO" else kind, **options), "a")
    np.testing.assert_array_equal(decode_image(both, "a"), alone)


def png(width: int, height: int, depth: int, colour: bool, body: bytes) -> bytes:
    """Written by hand: Pillow writes neither colours of 16 bits nor heads that lie."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, depth, 2 if colour else 0, 0, 0, 0)
    compressed = zlib.compress(body)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", compressed) + chunk(b"IEND", b"")


def deep_png(colour: bool) -> bytes:
    pixels = np.arange(6 if colour else 2, dtype=">u2") * 1000
    return png(2, 1, 16, colour, b"\0" + pixels.tobytes())


def ppm(maximum: int, plain: bool = False) -> bytes:
    """2 x 1 colours, as text or as numbers."""
    values = [maximum, 0, 1, 2, 3, maximum]
    body = (
        " ".join(map(str, values)).encode() if plain else np.array(values, ">u2" if maximum > 255 else "u1").tobytes()
    )
    return f"P{3 if plain else 6}\n2 1\n{maximum}\n".encode() + body


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (deep_png(colour=False), "an image of 16 bits per channel"),
        (deep_png(colour=True), "an image of 16 bits per channel"),
        (encoded(Image.fromarray(np.ones((2, 2), np.uint16))), "an image of 16 bits per channel"),
        (encoded(Image.fromarray(np.ones((2, 2), np.uint16)), "TIFF"), "an image of 16 bits per channel"),
        (ppm(65535), "an image of 16 bits per channel"),
        (ppm(1023, plain=True), "an image of 16 bits per channel"),
        (encoded(Image.new("CMYK", (2, 2)), "JPEG"), "an image of mode CMYK"),
        (encoded(Image.new("F", (2, 2)), "TIFF"), "an image of mode F"),
        (encoded(Image.new("I", (2, 2)), "TIFF"), "an image of mode I"),
        (encoded(Image.new("LAB", (2, 2)), "TIFF"), "an image of mode LAB"),
        (encoded(Image.new("RGB", (2, 2)), "JPEG2000"), "the image cannot be decoded"),  # may hold 16 bits
        (encoded(Image.new("RGB", (2, 2)), "EPS"), "the image cannot be decoded"),  # a program for Ghostscript
        (b"", "the image cannot be decoded"),
        (b"not an image", "the image cannot be decoded"),
        (encoded(Image.new("L", (60, 60)))[:60], "the image cannot be decoded"),
    ],
)
def test_what_is_refused_and_how(data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=f"^file 3: {message}") as error:
        decode_image(data, "file 3")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("plain", [False, True])
def test_ppm_images_of_8_bits(plain: bool) -> None:
    assert decode_image(ppm(255, plain), "a").tolist() == [[[255, 0, 1], [2, 3, 255]]]


# the last one is above Pillow's own bound, twice 89,478,485 pixels
@pytest.mark.parametrize("sides", [(2**13, 2**13 + 1), (1, 2**26 + 1), (2**16, 2**16)])
def test_a_huge_image_is_refused_before_it_is_decoded(sides: tuple[int, int]) -> None:
    """The file holds no pixels, so decoding them would give another message."""
    with pytest.raises(UserError, match=rf"^a: an image of .* pixels; at most {MOST_PIXELS} pixels are read"):
        decode_image(png(*sides, 8, False, b""), "a")
    with pytest.raises(UserError, match="cannot be decoded"):
        decode_image(png(2**13, 2**13, 8, False, b""), "a")


def test_a_size_can_be_refused_before_the_image_is_decoded() -> None:
    def check(height: int, width: int) -> None:
        raise UserError(f"{height} times {width}")

    with pytest.raises(UserError, match=r"^20 times 10$"):
        decode_image(png(10, 20, 8, False, b""), "a", check)


@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
@settings(max_examples=100)
@given(data=st.data())
def test_damaged_bytes_give_pixels_or_a_users_error(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF"]))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8))
    damaged = bytearray(with_orientation(image, 6, kind) if kind != "GIF" else encoded(image, kind))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with suppress(UserError):
        values = decode_image(bytes(damaged), "a")
        assert (values.dtype, values.ndim) == (np.uint8, 3)


def test_a_missing_file(tmp_path: Any) -> None:
    with pytest.raises(UserError, match="does not exist or is not a file"):
        read_image(tmp_path)
