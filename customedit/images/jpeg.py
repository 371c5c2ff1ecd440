"""JPEG files (ITU T.81): their segments and scans, before anything is decoded.

A progressive file of a few hundred kilobytes can hold thousands of empty scans, each of which costs
a decoder a pass over the whole picture. So scans are counted first. Of the segments before them
only those reach the decoder that decide pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from PIL import Image

from customedit.images.structure import MAX_PROFILE_BYTES, Container, Damaged

SIGNATURE: Final = b"\xff\xd8\xff"
MAX_SCANS: Final = 100
"""Of a file. libjpeg's own script has 10, the longest of optimisers some 60."""
MAX_SCANNED_PIXELS: Final = 600_000_000
"""Scans times pixels, of files with more than 10 scans: 15 passes over 40 million pixels."""
MAX_SEGMENTS: Final = 2_000
"""Other than scans: colour profiles take up to 255, thumbnails and notes a few hundred."""

_MARKER: Final = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # no stuffing, fill or restart
_SOF: Final = {0xC0, 0xC1, 0xC2}
_OTHER_SOF: Final = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_TABLES: Final = {0xC4, 0xCC, 0xDB, 0xDD}  # DHT, DAC, DQT, DRI
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_CUT: Final = 0
"""Stands for a segment that is not all there."""


@dataclass
class Frame:
    """What the frame header (SOF) declares.

    progressive: whether scans refine the picture; factors: (horizontal, vertical) sampling of each
    component, by its id.
    """

    size: tuple[int, int]
    depth: int
    progressive: bool
    factors: dict[int, tuple[int, int]]

    @property
    def unit(self) -> tuple[int, int]:
        """(width, height) of a minimum coded unit in pixels."""
        return 8 * max(h for h, _ in self.factors.values()), 8 * max(
            v for _, v in self.factors.values()
        )

    @property
    def samples(self) -> int:
        """Samples of all components, which progressive decoders keep as 16-bit coefficients."""
        across, down = (f // 8 for f in self.unit)
        share = sum(h * v for h, v in self.factors.values()) / (across * down)
        return round(self.size[0] * self.size[1] * share)


@dataclass
class Arrived:
    """Which coefficients the scans have brought so far: of each component, to which bit (Al)."""

    frame: Frame
    bits: dict[int, list[int | None]] = field(default_factory=dict)

    def add(self, scan: bytes) -> None:
        """Note a scan by the body of its header (SOS)."""
        count = scan[0] if scan else 0
        if not count or len(scan) < 4 + 2 * count:
            raise Damaged("has a damaged scan")
        first, last, low = scan[1 + 2 * count], scan[2 + 2 * count], scan[3 + 2 * count] & 15
        if not self.frame.progressive:
            first, last, low = 0, 63, 0
        for k in range(count):
            held = self.bits.setdefault(scan[1 + 2 * k], [None] * 64)
            for n in range(first, min(last, 63) + 1):
                held[n] = low

    def complete(self) -> bool:
        """Whether every coefficient has come, but for its last bit at most."""
        return all(
            known is not None and known <= 1
            for component in self.frame.factors
            for known in self.bits.get(component, [None])
        )


def scan(data: bytes) -> Container:
    """The segments and scans of a JPEG file.

    A file without its end mark is closed. Whether enough of its picture is there only shows in the
    pixels (``check_rows``); of a progressive one here, too: each coefficient must have come, but
    for its last bit.

    Raises:
        Damaged: for a file without a picture, with more than ``MAX_SCANS`` scans,
            ``MAX_SCANNED_PIXELS`` or ``MAX_SEGMENTS``, one that is coded as browsers do not read
            it, or a progressive one of which too little is there.
    """
    segments = [b"\xff\xd8"]
    frame: Frame | None = None
    arrived: Arrived | None = None
    scans, first_scan, profile_bytes, cut = 0, 0, 0, True
    end = len(data)
    for number, (marker, at, body) in enumerate(_segments(data)):
        if number - scans > MAX_SEGMENTS:
            raise Damaged(f"has more than {MAX_SEGMENTS} segments")
        if marker in (_EOI, _CUT):
            end, cut = at, marker == _CUT
            break
        if marker in _OTHER_SOF:
            raise Damaged(f"is coded as no browser reads it (frame type {marker - 0xC0})")
        if marker in _SOF and frame is None:
            frame = _frame(marker, body)
            arrived = Arrived(frame)
        if marker == _SOS:
            if frame is None or arrived is None:
                raise Damaged("has a scan before its frame header")
            first_scan = first_scan or at
            scans += 1
            _check_scans(scans, frame)
            arrived.add(body)
        elif not first_scan:
            profile_bytes += len(body) * body.startswith(b"ICC_PROFILE\0")
            if _decides_pixels(marker, body):
                segments.append(
                    b"\xff" + bytes([marker]) + (len(body) + 2).to_bytes(2, "big") + body
                )
    if frame is None or arrived is None or not scans:
        raise Damaged("holds no picture")
    if cut and not arrived.complete():
        raise Damaged("is cut off: too little of the picture is there")
    warnings = ["ends without its end mark"] if cut else []
    if profile_bytes > MAX_PROFILE_BYTES:
        segments = [part for part in segments if part[4:16] != b"ICC_PROFILE\0"]
        warnings.append("has a colour profile above 4 MiB, which is passed over")
    return Container(
        "image/jpeg",
        frame.size,
        b"".join([*segments, memoryview(data)[first_scan:end], b"\xff\xd9"]),
        depth=frame.depth,
        memory=2 * frame.samples if frame.progressive or scans > 1 else frame.size[0] * 128,
        cut=cut,
        unit=frame.unit,
        warnings=tuple(warnings),
    )


def _segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(marker, where it begins, its body) of each segment; coded data is passed over."""
    at = 2
    while match := _MARKER.search(data, at):
        marker, start = match[1][0], match.end()
        length = int.from_bytes(data[start : start + 2], "big")
        if marker in (0x01, _SOI):  # no length follows
            at = start
            continue
        if marker == _EOI or length < 2 or len(data) < start + length:
            yield marker if marker == _EOI else _CUT, match.start(), b""
            return
        yield marker, match.start(), data[start + 2 : start + length]
        at = start + length


def _frame(marker: int, body: bytes) -> Frame:
    if len(body) < 6 or len(body) < 6 + 3 * body[5] or not body[5]:
        raise Damaged("has a damaged frame header")
    factors = {body[k]: (body[k + 1] >> 4, body[k + 1] & 15) for k in range(6, 6 + 3 * body[5], 3)}
    if any(not 1 <= f <= 4 for pair in factors.values() for f in pair):
        raise Damaged("has sampling factors outside 1 to 4")
    size = int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")
    if body[0] != 8:
        raise Damaged(f"has {body[0]} bits a sample; browsers read 8")
    return Frame(size, body[0], marker == 0xC2, factors)


def _check_scans(scans: int, frame: Frame) -> None:
    if scans > MAX_SCANS:
        raise Damaged(f"has more than {MAX_SCANS} scans, the limit")
    passes = scans * frame.size[0] * frame.size[1]
    if passes > MAX_SCANNED_PIXELS and scans > 10:
        raise Damaged(
            f"has {scans} scans or more of {frame.size[0]} x {frame.size[1]} pixels, the limit is "
            f"{MAX_SCANNED_PIXELS / 1e6:g} million pixels in all scans"
        )


def _decides_pixels(marker: int, body: bytes) -> bool:
    """Whether the decoder needs a segment: sizes, tables, colour space, profile, orientation."""
    if marker in _SOF | _TABLES:
        return True
    if marker == 0xE0:
        return body.startswith(b"JFIF\0") and len(body) >= 12
    if marker == 0xE1:
        return body.startswith((b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"))
    if marker == 0xE2:
        return body.startswith(b"ICC_PROFILE\0") and len(body) > 14
    return marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12


MAX_MISSING_ROWS: Final = 2
"""Of coded units: as many may be missing at the bottom, and an eighth of the height at most."""
_MIDDLE: Final = range(126, 131)


def check_rows(image: Image.Image, container: Container) -> None:
    """Refuse a decoded file whose bottom rows of coded units did not arrive.

    libjpeg fills what is missing with the middle level, after one unit of chance; so a row whose
    right half has that brightness throughout counts as missing. A picture that is just so is
    refused as well. image: as decoded, at the full size or a whole part of it.

    Raises:
        Damaged: more than ``MAX_MISSING_ROWS`` rows or an eighth of the height is missing.
    """
    (width, height), (unit_width, unit_height) = container.size, container.unit
    rows, columns = -(-height // unit_height), -(-width // unit_width)
    allowed = min(MAX_MISSING_ROWS, height // (8 * unit_height))
    scale = -(-height // image.height)
    left, top = columns // 2 * unit_width // scale, (rows - allowed - 1) * unit_height // scale
    corner = image.crop((left, top, image.width, image.height))
    # Colours of fewer samples are mixed with those beside them: brightness is not.
    inks = ("C", "K")  # either may have all samples
    planes = map(corner.getchannel, inks) if corner.mode == "CMYK" else (corner.convert("L"),)
    if any(all(level in _MIDDLE for level in plane.getextrema()) for plane in planes):
        raise Damaged(f"is cut off: more than {allowed} rows of {unit_height} pixels are missing")
