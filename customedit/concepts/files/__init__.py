"""Files of concepts: ``load_concept`` reads every kind, ``save_concept`` writes every kind.

``own`` is the format that concepts are kept in; ``diffusers``, ``adobe``, ``embeddings`` and
``lora`` are other programs'; ``identify`` says what a file is, ``entries`` reads state dicts.
"""

from customedit.concepts.files.load import Description, load_concept
from customedit.concepts.files.save import FORMATS, Format, Saved, save_concept

__all__ = ["FORMATS", "Description", "Format", "Saved", "load_concept", "save_concept"]
