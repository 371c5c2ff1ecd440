"""What ``change: "auto"`` measured and chose; in results and recipes."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

AUTO_CHANGES: Final = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""The values of ``change`` that ``"auto"`` draws and chooses from."""


class ChangeCurve(BaseModel):
    """The values of ``change`` that were drawn, their similarities, and the one that was chosen.

    All lists have an entry for each value. The rule is in ``customedit.editing.auto_change``.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    values: Annotated[tuple[float, ...], Field(description="Values of `change`, rising.")]
    source: Annotated[
        tuple[float, ...],
        Field(description="Similarity of patches of the region with the source's in their place."),
    ]
    reference: Annotated[
        tuple[float, ...],
        Field(description="Similarity of patches of the region with the references'."),
    ]
    score: Annotated[
        tuple[float, ...],
        Field(description="Harmonic mean of both, each scaled to the curve's ends; 0 to 1."),
    ]
    source_reference: Annotated[
        float, Field(description="The similarity of the source itself with the references.")
    ]
    chosen: Annotated[float, Field(description="The value that was chosen.")]
