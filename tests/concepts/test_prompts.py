"""The sentences that concepts are trained with."""

from __future__ import annotations

from customedit.concepts.prompts import FORMS, ConceptPrompts


def test_varied_sentences_name_the_same_thing() -> None:
    prompts = ConceptPrompts("<plaid>", "cup", "patterned")
    varied = [prompts.instance("", form) for form in FORMS]
    assert varied[0] == prompts.instance() and len(set(varied)) == len(FORMS)
    assert all(text.endswith(prompts.thing()) for text in varied)
    assert prompts.instance("", ("image", "the")) == "an image of the <plaid> patterned cup"
    close = prompts.instance("close up", ("image", "a"))
    assert close == "a close up image of a <plaid> patterned cup"
