"""What kind of file some bytes are, told from the first of them: images that are decoded, and those that are not."""

from __future__ import annotations

HEAD_BYTES = 64
_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
)
DECODED = frozenset({"JPEG", "PNG", "GIF", "TIFF", "JPEG 2000", "BMP", "WebP", "PPM"})
"""The kinds that `image_decode` reads."""
WITH_IMAGES = frozenset(
    {
        "HEIC", "AVIF", "JPEG XL", "camera raw", "SVG", "Photoshop", "OpenEXR", "Radiance HDR", "PDF", "DICOM", "other image",
        "video", "archive", "data base", "Git LFS pointer",
    }
)  # fmt: skip
"""Kinds that are, or may hold, images which are not read: to be counted, not passed over in silence."""
_OTHER_MAGIC = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"8BPS", "Photoshop"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"FUJIFILMCCD-RAW", "camera raw"),
    (b"%PDF", "PDF"),
    (b"<svg", "SVG"),
    (b"PK\x03\x04", "archive"),
    (b"\x1f\x8b", "archive"),
    (b"<!DOCTYPE", "web page"),
    (b"<html", "web page"),
    (b"version https://git-lfs", "Git LFS pointer"),
)
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    b"crx ": "camera raw",
}
_BY_SUFFIX = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC"),
    ".avif": "AVIF",
    ".jxl": "JPEG XL",
    **dict.fromkeys(
        (
            ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".kdc", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw",
            ".rw2", ".sr2", ".srf", ".srw", ".x3f",
        ),
        "camera raw",
    ),
    **dict.fromkeys((".svg", ".svgz"), "SVG"),
    **dict.fromkeys((".psd", ".psb"), "Photoshop"),
    ".exr": "OpenEXR",
    ".hdr": "Radiance HDR",
    **dict.fromkeys((".tga", ".ico", ".pcx", ".xcf", ".eps", ".ai", ".dds", ".jxr", ".fits"), "other image"),
    **dict.fromkeys((".dcm", ".dicom"), "DICOM"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"), "video"),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"), "archive"),
    **dict.fromkeys((".tfrecord", ".tfrecords", ".mdb", ".lmdb", ".parquet", ".h5", ".hdf5"), "data base"),
}  # fmt: skip
_NEVER_IMAGES = frozenset(
    {
        ".txt", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".md", ".rst", ".yaml", ".yml", ".toml", ".ini", ".cfg",
        ".log", ".html", ".htm", ".css", ".js", ".py", ".sh", ".ipynb", ".npy", ".npz", ".pkl", ".p", ".pt", ".pth",
        ".safetensors", ".onnx", ".bin", ".db", ".sqlite", ".lock", ".idx", ".doc", ".docx", ".xls", ".xlsx", ".ppt",
        ".pptx", ".mat", ".wav", ".mp3", ".aae", ".xmp", ".thm", ".sha256", ".md5", ".tmp", ".part", ".crdownload",
        ".torrent",
    }
)  # fmt: skip
"""Suffixes of files that lie beside images and are none, so that not each of millions is opened."""


def kind_of_bytes(head: bytes) -> str | None:
    """The kind of a file that begins so; None for anything else. `head` has at least HEAD_BYTES, or is the entire file."""
    for magic, kind in (*_MAGIC, *_OTHER_MAGIC):
        if head.startswith(magic):
            return kind
    if head[4:8] == b"ftyp":
        brands = (head[8:12], *(head[at : at + 4] for at in range(16, len(head) - 3, 4)))
        return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "video")
    if head[:4] == b"RIFF":
        return "WebP" if head[8:12] == b"WEBP" else "video"
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0" and len(head) > 26:
        return "BMP"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in (b"\n", b" ", b"\t", b"\r", b"#") and len(head) > 8:
        return "PPM"
    return None


def kind_of_suffix(suffix: str) -> str | None:
    """What a suffix (with its dot, in lower case) stands for, where that is something with pictures that is not decoded."""
    return _BY_SUFFIX.get(suffix)


def may_be_image(suffix: str) -> bool:
    """Whether a file of a suffix without meaning (`.jfif`, `.jpg_large`, none) is worth a look at its first bytes."""
    return suffix not in _NEVER_IMAGES and suffix not in _BY_SUFFIX
