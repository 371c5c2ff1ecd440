"""What a prompt may say, and the syntax of other programs that is refused."""

# ruff: noqa: RUF001  # prompts with brackets that only look like < and >

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customedit.errors import InputError
from customedit.prompt_syntax import CONCEPT, check_prompt, tokens_in

INNOCENT = [
    "",
    "a photo of a cup",
    "a photo of a <plaid> patterned cup",
    '<plaid>, <plaid>! and (<plaid>) "<plaid>" <plaid>-style <plaid>cup',
    "a cup (red) on a table",
    "a cup (red, with a handle) [detail] {detail}",
    "a cup (see (nested) words)",
    "lunch at 10:30 (or 11:45) in a 16:9 frame (ratio 16:9) [at 10:30]",
    "Genesis 1:1 (chapter 1:1), part: 2",
    "a sign that reads: 50% off (today only: 3 left)",
    "C++ code on a screen, a g++ logo, notepad++, an A++ mark, 18+ only, Disney+",
    "a vase -- old and worn -- on a table",
    "an old vase--cracked--on a table; a t-shirt, 1970s-style, state-of-the-art",
    "3 < 5 and 7 > 4",
    "a < b and c > d",
    "I <3 cups",
    "a -> b <- c <-> d => e <= f >= g",
    ">_< and ^_^ and :) and ;-) and (:",
    "x = {1, 2} | y",
    "red|blue",
    "Tom & Jerry &amp; friends",
    "a cup, 4k, f/1.8, 1:1, 35mm",
    "« un vase » ‹petit› 《book》",
    "a lora of embedding in a hypernet",
    "ein Becher, größer als 5 µm; 一個杯子（紅色）",
    "a cup (left) 1.5 m tall (2.5)",
    "half & half; R&D; <plaid>; a+b; a++b; --flag",
    "score 3:2 (final), time 7:05pm (ish)",
    "a 'quoted' \"cup\" with `ticks`, #hash @at $5 100% ~home ^up *star* _under_",
]

REFUSED = [
    ("a <Plaid> cup", "contains <Plaid>.*write <plaid>"),
    ("a <PLAID> cup", "write <plaid>"),
    ("a < plaid > cup", "contains < plaid >.*write <plaid>"),
    ("a <plaid > cup", "write <plaid>"),
    ("a < plaid> cup", "write <plaid>"),
    ("a ＜plaid＞ cup", "write <plaid>"),
    ("a ＜ Plaid ＞ cup", "write <plaid>"),
    ("a <plaid＞ cup", "write <plaid>"),
    ("a ＜plaid> cup", "write <plaid>"),
    ("a ‹plaid› cup", "write <plaid>"),
    ("a 〈plaid〉 cup", "write <plaid>"),
    ("a «plaid» cup", "write <plaid>"),
    ("a [plaid] cup", "write <plaid>"),
    ("a {Plaid} cup", "write <plaid>"),
    ("a &lt;plaid&gt; cup", "contains &lt;plaid&gt;.*write <plaid>"),
    ("a &#60;plaid&#62; cup", "write <plaid>"),
    ("a &#x3C;plaid&#x3e; cup", "write <plaid>"),
    ("a &LT;plaid> cup", "write <plaid>"),
    ("a <<plaid>> cup", "write <plaid>"),
    ("a <plaid cup", "write <plaid>"),
    ("a plaid> cup", "write <plaid>"),
    ("a <red cup> on a table", "contains <red cup>.*write <red-cup> and give that concept"),
    ("a < red-cup > on a table", "write <red-cup>"),
    ("a <größe> cup", "leave the brackets out|write"),
    ("a <waves> cup", r"names <waves>, which is not a concept of this request \(given: <plaid>\)"),
    ("a <lora:style:0.8> cup", "contains <lora:style:0.8>, a tag of another program"),
    ("a <LoRA:style> cup", "a tag of another program"),
    ("a <lyco:x:1> cup", "a tag of another program"),
    ("a <hypernet:x:1> cup", "a tag of another program"),
    ("a cup, embedding:badhands", "contains embedding:badhands"),
    ("a <|endoftext|> cup", "control token"),
    ("a (cup:1.3) on a table", r"contains \(cup:1.3\), a prompt weight.*write cup;"),
    ("a (red cup: 0.8)", "a prompt weight.*write red cup;"),
    ("a (cup:2)", "a prompt weight"),
    ("a (<plaid> cup:1.2)", "a prompt weight"),
    ("((cup)) on a table", "a prompt weight.*write cup;"),
    ("(((red cup))) on a table", "a prompt weight"),
    ("a cup++ on a table", r"contains cup\+\+, a prompt weight.*write cup;"),
    ("a cup+++, red", "a prompt weight"),
    ("a cup-- on a table", "a prompt weight.*write cup;"),
    ("a (red cup)++ on a table", "a prompt weight"),
    ("a (red cup)1.3 on a table", "a prompt weight"),
    ("a [red:blue:0.5] cup", "a prompt weight"),
    ("a {red|blue} cup", "alternatives.*write one of them"),
    ("a [red|blue] cup", "alternatives"),
]


@pytest.mark.parametrize("prompt", INNOCENT)
def test_innocent_prompts_pass(prompt: str) -> None:
    check_prompt(prompt, ["<plaid>"])


@pytest.mark.parametrize(("prompt", "says"), REFUSED)
def test_what_would_do_nothing_is_refused_with_what_to_write(prompt: str, says: str) -> None:
    with pytest.raises(InputError, match=rf"^target_prompt: .*(?:{says})") as refused:
        check_prompt(prompt, ["<plaid>"], "target_prompt")
    assert refused.value.remedy and "\n" not in str(refused.value)


def test_guesses_need_a_concept_of_that_name() -> None:
    """Other brackets are ordinary writing, unless the request has a concept of that name."""
    for prompt in ("a [plaid] cup", "a «plaid» cup", "a {plaid} cup"):
        check_prompt(prompt, ["<waves>"])
        with pytest.raises(InputError):
            check_prompt(prompt, ["<plaid>"])
    with pytest.raises(InputError, match="write <plaid> and give that concept"):
        check_prompt("a < plaid > cup", [])


@given(st.text("az09_-", min_size=1, max_size=63), st.text("abc ,.()<>", max_size=20))
def test_a_known_token_between_spaces_is_always_read(name: str, around: str) -> None:
    token = f"<a{name[1:]}>"
    assert CONCEPT.fullmatch(token)
    words = around.replace("<", "").replace(">", "").replace("(", "")
    check_prompt(f"{words} {token} {words}", [token])
    assert tokens_in(f"{words} {token} {words}") == [token]


@given(st.text(max_size=300))
def test_any_text_passes_or_is_refused_in_one_line(text: str) -> None:
    try:
        check_prompt(text, ["<plaid>"])
    except InputError as error:
        assert error.remedy


@given(st.sampled_from(["<", "(", "((", "[", "{", "&lt;", "a(", "<a ", "(a:", "cup+", "＜a"]))
def test_long_prompts_take_no_time(piece: str) -> None:
    """No pattern goes back over a long text again and again (the test's own timeout is the bar)."""
    try:
        check_prompt(piece * 4000, ["<plaid>"])
    except InputError as error:
        assert len(str(error)) < 600


def test_the_rules_need_no_torch() -> None:
    code = "import sys, customedit.prompt_syntax; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
