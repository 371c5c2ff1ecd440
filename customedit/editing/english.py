"""The little English that prompts are read with: which words cannot be a noun, which nouns equal.

Closed lists, short on purpose: what is on none of them counts as a noun. Imports no torch.
"""

from __future__ import annotations

from typing import Final

from customedit.editing.prompt_words import bare


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DETERMINERS: Final = _words("""
    a an the this that these those his her its their my our your some any each every no another
    one two three four five six seven eight nine ten several many few both
""")
FUNCTION_WORDS: Final = DETERMINERS | _words("""
    on in at of by with without beside besides near under underneath over above below behind
    before after between among against around across along through into onto inside outside from
    to toward towards off up down upon within beneath like as than next front top close far away
    for during about
    and or but nor while whereas if which who whose whom where when
    it they he she we you i them him us me
    is are was were be being been am has have had having do does did
    can could will would should may might must not
    very quite rather too so also just only almost
""")
"""Determiners, prepositions, conjunctions, pronouns, auxiliaries, adverbs of degree."""

_VERBS: Final = _words("""
    stand sit lie lay hang rest walk run jump fly swim sleep eat drink play ride hold wear look
    lean float drive cross carry face watch fill contain cover surround show depict make place
    put set pour grow live wait smile
""")
ADJECTIVES: Final = _words("""
    red orange yellow green blue purple violet pink brown black white grey gray beige cyan
    magenta turquoise golden silvery crimson maroon navy teal dark light bright pale colorful
    colourful
    big large small little tiny huge giant tall short long wide narrow thick thin round square
    flat old new young ancient modern antique fresh clean dirty wet dry broken empty full open
    glossy matte shiny smooth rough soft hard plain transparent ceramic wooden metallic woollen
    woolen furry fluffy beautiful pretty ugly cute happy sad
""")
MEDIA: Final = _words("""
    photo photograph photography picture image painting drawing sketch rendering render
    illustration watercolor watercolour etching engraving cartoon style art artwork poster
    postcard screenshot mosaic collage
""")
"""Nouns of the picture itself, not of a thing in it."""

COPULAS: Final = _words("is are was were be being looks appears seems becomes turned")
_NOUNS_IN_ED: Final = _words("bed seed weed shed sled steed deed reed feed breed bleed")
_IRREGULAR: Final = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "feet": "foot",
    "teeth": "tooth", "geese": "goose", "mice": "mouse", "oxen": "ox", "dice": "die",
}  # fmt: skip
_CLOSING: Final = (",", ";", ".", ":", "!", "?", ")")


def closes(word: str) -> bool:
    """Whether punctuation after ``word`` ends what it stands in."""
    return word.endswith(_CLOSING)


def is_function(word: str) -> bool:
    """Whether ``word`` ends a noun phrase: a function word, a common verb, or no word at all."""
    plain = bare(word)
    if plain in FUNCTION_WORDS or not any(c.isalnum() for c in plain):
        return True
    stems = {plain.removesuffix("s"), plain.removesuffix("es")}
    if plain.endswith("ing"):
        stem = plain.removesuffix("ing")
        stems |= {stem, stem + "e", stem[:-1] if stem[-2:-1] == stem[-1:] else stem}
    return bool((stems - {plain}) & _VERBS)


def is_adjective(word: str, attribute: str = "") -> bool:
    """Whether ``word`` is in ``attribute`` or ADJECTIVES, or a participle such as "patterned"."""
    plain = bare(word)
    if plain in attribute.casefold().split() or plain in ADJECTIVES:
        return True
    return plain.endswith("ed") and len(plain) > 4 and plain not in _NOUNS_IN_ED


def alike(a: str, b: str) -> bool:
    """Whether two words are one noun: plurals, possessives and hyphens aside."""
    return bool(_forms(a) & _forms(b))


def _forms(word: str) -> frozenset[str]:
    plain = bare(word).removesuffix("'s").removesuffix("\N{RIGHT SINGLE QUOTATION MARK}s")
    whole = {plain, plain.replace("-", ""), plain.rpartition("-")[2] or plain}
    return frozenset(form for w in whole for form in (w, *_singulars(w)))


def _singulars(word: str) -> list[str]:
    """What ``word`` may be the plural of."""
    if word in _IRREGULAR:
        return [_IRREGULAR[word]]
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return []
    singulars = [word[:-1]]
    if word.endswith("ies"):
        singulars.append(word[:-3] + "y")
    if word.endswith("ves"):
        singulars += [word[:-3] + "f", word[:-3] + "fe"]
    if word.endswith(("ches", "shes", "xes", "ses", "zes", "oes")):
        singulars.append(word[:-2])
    return singulars
