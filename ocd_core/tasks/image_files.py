"""Encoded images (PNG, JPEG, …) as pixels: one decoder for training data and for prediction, in every domain.

The rules are the same for all sources:

- The Exif orientation is applied.
- 8 bits per channel: grey or RGB, each with or without alpha. 1-bit images become grey. Palette images become RGB, with
  alpha if the palette or a transparent colour has any. Of several frames, the first counts.
- 16 bits per channel, CMYK and every other kind are refused: converting them would lose information or be a guess.
- PNG, JPEG, WebP, GIF, BMP, TIFF and PPM are read. Other formats hide how many bits they hold, or run other programs.
- At most 2^26 pixels, for example 8192 x 8192: a small file can hold a huge image.

Dims: H height, W width, C channels.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ocd_core.errors import UserError
from ocd_core.files import is_shortage

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 2**26
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_READ_AS_THEY_ARE = ("L", "LA", "RGB", "RGBA")

# receives height and width, and may raise a UserError
SizeCheck = Callable[[int, int], None]


def any_size(_height: int, _width: int) -> None:
    """Accept every image up to `MOST_PIXELS`."""


def read_image(path: Path, check: SizeCheck = any_size) -> npt.NDArray[np.uint8]:
    """The pixels of an image file, see `decode_image`.

    Raises:
        UserError: see `decode_image`; or the file does not exist.
    """
    return decode_image(image_bytes(path), str(path), check)


def image_bytes(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        UserError: the file does not exist.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file")
    return path.read_bytes()


def decode_image(encoded: bytes, where: str, check: SizeCheck = any_size) -> npt.NDArray[np.uint8]:
    """The pixels of an encoded image, uint8 (H, W, C); C: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.

    Args:
        encoded: the bytes of a PNG, JPEG or other image file.
        where: the beginning of error messages.
        check: called before anything is decoded, with the sides that the image's head states, which the orientation may
            still exchange.

    Raises:
        UserError: the image cannot be decoded, is too large to be safe, or has a kind that is not supported.
    """
    from PIL import Image, ImageOps
    from PIL.ExifTags import Base

    try:
        with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise _too_large(where, f"{image.height}x{image.width} pixels")
            check(image.height, image.width)
            deep = _is_16_bit(image)
            image.load()  # the orientation may be stored after the pixels
            turned = ImageOps.exif_transpose(image) if Base.Orientation in image.getexif() else image
            decoded = _to_8_bits(turned)
            kind = "16 bits per channel" if deep else f"mode {image.mode}"
            values = None if deep or decoded is None else np.asarray(decoded, dtype=np.uint8)
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(where, "far more pixels") from error
    except Exception as error:  # Pillow's decoders raise many kinds, from OSError to struct.error
        if is_shortage(error):
            raise
        raise UserError(f"{where}: the image cannot be decoded: {type(error).__name__}") from error
    if values is None:
        raise UserError(f"{where}: an image of {kind}; only 8-bit grey and RGB are read, so convert it first")
    return values[..., None] if values.ndim == 2 else values


def _too_large(where: str, found: str) -> UserError:
    return UserError(f"{where}: an image of {found}; at most {MOST_PIXELS} pixels are read, so shrink it first")


def _is_16_bit(image: "Image") -> bool:
    """Pillow keeps 16 bits of grey but the upper 8 of colours; its tiles tell, before loading, what it reads."""
    if image.mode.startswith("I;16"):
        return True
    tiles: list[Any] = getattr(image, "tile", [])
    # of each: the decoder, which part of the image, where in the file, and the decoder's arguments
    return any(";16" in str(tile[3]) or (image.format == "PPM" and _ppm_maximum(tile) > 255) for tile in tiles)


def _ppm_maximum(tile: Any) -> int:
    """The largest value that a PPM file says its channels may have; plain 8 bits are read by another decoder."""
    arguments = tile[3]
    return int(arguments[-1]) if tile[0] in ("ppm", "ppm_plain") and isinstance(arguments, tuple) else 255


def _to_8_bits(image: "Image") -> "Image | None":
    """The image in one of the supported modes; None if the conversion is not exact."""
    if image.mode == "1":
        image = image.convert("L")
    transparent = "transparency" in image.info
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if transparent or image.mode == "PA" or _palette_has_alpha(image) else "RGB")
    if transparent and image.mode in ("L", "RGB"):
        return image.convert("LA" if image.mode == "L" else "RGBA")
    return image if image.mode in _READ_AS_THEY_ARE else None


def _palette_has_alpha(image: "Image") -> bool:
    return image.palette is not None and image.palette.mode == "RGBA"
