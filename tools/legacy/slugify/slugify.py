"""A name for URLs and files, from the variables `text` and `separator`."""

import os
import re
import unicodedata

plain = unicodedata.normalize("NFKD", os.environ["text"]).encode("ascii", "ignore").decode()  # noqa: SIM112
print(os.environ["separator"].join(re.findall(r"[a-z0-9]+", plain.lower())))  # noqa: SIM112
