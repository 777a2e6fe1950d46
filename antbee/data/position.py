"""Whether a photo says where it was taken: phones write the position into its EXIF data."""

from pathlib import Path

from PIL import ExifTags, Image

from antbee.data.files import FileError, opened
from antbee.data.images import LARGEST_FILE, PHOTO_FORMATS, UNREADABLE

GPS_LATITUDE, XMP_LATITUDE = 2, b"GPSLatitude"


def has_position(path: Path) -> bool:
    """Whether a photo carries a GPS position, in its EXIF or XMP data; False for a file that can't be read."""
    try:
        with opened(path, largest=LARGEST_FILE) as file, Image.open(file, formats=PHOTO_FORMATS) as photo:
            xmp = photo.info.get("xmp", b"")
            in_xmp = XMP_LATITUDE in (xmp if isinstance(xmp, bytes) else str(xmp).encode())
            return in_xmp or GPS_LATITUDE in photo.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    except (FileError, *UNREADABLE):
        return False
