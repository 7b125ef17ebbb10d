"""First frames: an image file's bytes to pixels of the size a clip is decoded at."""

import io
import struct
import zlib

import torch
from PIL import Image, ImageOps
from torch import Tensor

# What Pillow's readers raise for broken files.
BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def prepare_image(data: bytes, *, height: int, width: int) -> Tensor:
    """uint8 [height, width, 3]: centre-cropped to the target's ratio without scaling, then resized with Lanczos.

    Raises ValueError where the bytes are no image that Pillow can read.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except BROKEN as error:
        raise ValueError(f"the image cannot be read: {error}") from error
    crop_width = min(image.width, round(image.height * width / height))
    crop_height = min(image.height, round(image.width * height / width))
    left, top = (image.width - crop_width) // 2, (image.height - crop_height) // 2
    cropped = image.crop((left, top, left + crop_width, top + crop_height))
    resized = cropped.resize((width, height), Image.Resampling.LANCZOS)
    return torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8).reshape(height, width, 3)
