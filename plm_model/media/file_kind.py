"""What a file is, from its first bytes, in the words of the people who find it where a picture or a video should be."""

from __future__ import annotations

MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer; `git lfs pull` fetches the file itself"),
    (b"%PDF", "a PDF document; save its pages as pictures"),
    (b"%!PS", "a PostScript drawing; save it as PNG"),
    (b"8BPS", "a Photoshop file; save it as PNG"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x93NUMPY", "a NumPy array; save it as PNG"),
    (b"\x1aE\xdf\xa3", "a video (Matroska or WebM)"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"GIF8", "a GIF picture"),
    (b"FLV", "a video (Flash)"),
    (b"\0\0\x01\xba", "a video (MPEG)"),
    (b"\0\0\x01\0", "an icon (ICO); save it as PNG"),
    (b"qoif", "a QOI picture; save it as PNG"),
    (b"DDS ", "a DDS texture; save it as PNG"),
    (b"#EXTM3U", "a playlist, not the video that it names"),
)
BRANDS = (
    ((b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1"), "a HEIC picture, as phones make; save it as JPEG or PNG"),
    ((b"avif", b"avis"), "an AVIF picture"),
    ((b"M4A ",), "a sound file"),
)


def file_kind(data: bytes) -> str:
    """What the file is that begins so, such as `a PDF document`; empty where its first bytes do not tell."""
    start = data[:1024]
    if not start:
        return "an empty file"
    if not start.strip(b"\0"):
        return "nothing but zero bytes, as a broken copy leaves it"
    for magic, kind in MAGIC:
        if start.startswith(magic):
            return kind
    if start[4:8] == b"ftyp":
        return next((kind for brands, kind in BRANDS if start[8:12] in brands), "a video (MP4 or QuickTime)")
    if start[:4] == b"RIFF":
        return {b"AVI ": "a video (AVI)", b"WEBP": "a WebP picture", b"WAVE": "a sound file"}.get(start[8:12], "")
    if start[128:132] == b"DICM":
        return "a DICOM file; save its picture as PNG"
    return text_kind(start)


def text_kind(start: bytes) -> str:
    words = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if words.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "a web page (HTML), as a failed download leaves it"
    if b"<svg" in words:
        return "an SVG drawing; save it as PNG"
    if words.startswith(b"<?xml"):
        return "an XML text, as a failed download leaves it"
    if words.startswith((b"{", b"[")):
        return "a JSON text, as a failed download leaves it"
    printable = sum(byte >= 32 or byte in b"\t\r\n" for byte in start)
    return "a text" if printable == len(start) and is_text(start) else ""


def is_text(start: bytes) -> bool:
    try:
        start[:1000].decode()
    except UnicodeDecodeError as error:
        return error.start > 990  # cut within a character
    return True
