"""Pictures at the edge: files read safely and written whole, masks, and what lies between.

Nothing here trusts what it is given: the structure of a file is scanned before anything is decoded,
and whatever a decoder trips over becomes an InputError that says what was wrong and what to do.

``reading`` decodes, and finds pictures in folders, with ``structure`` and ``jpeg`` for what each
kind of file may hold and ``colours`` for the way to 8-bit sRGB; ``writing`` saves them; ``masks``
reads where an edit may reach; ``regions`` refines and pastes at the source's size (needs SciPy);
``layout`` says at which size a model works, and makes sheets of pictures with labels;
``decoder_pool`` decodes in other processes for a service.
"""

from customedit.images.layout import fit
from customedit.images.reading import Checked, Decoded, check, read, scan
from customedit.images.structure import MIN_SIDE, Limits
from customedit.images.writing import SUFFIXES, encode, is_lossy, write

__all__ = [
    "MIN_SIDE",
    "SUFFIXES",
    "Checked",
    "Decoded",
    "Limits",
    "check",
    "encode",
    "fit",
    "is_lossy",
    "read",
    "scan",
    "write",
]
