"""What the docs tell to type and where they say things are: snippets, commands, options, paths."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from customedit.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TUTORIAL = ROOT / "docs" / "tutorial.md"
TYPED = [ROOT / "README.md", ROOT / "docs" / "library.md", ROOT / "docs" / "http.md", TUTORIAL]
"""Pages whose Python snippets are whole programs, each page's together."""

PLACES = "api|benchmarks|customedit|deploy|docs|requirements|tests|worker"
PATH = re.compile(rf"(?<![\w/.<>-])(?<!exec )((?:{PLACES})/[\w./*-]*[\w/*])")
MODULE = re.compile(r"(?<![\w/.-])customedit((?:\.[A-Za-z_]\w*)+)")
NO_MODULES = {"customedit.json", "customedit.concept", "customedit.wake", "customedit._service"}
"""A profile's file, the metadata of a concept's file, a Celery task, a folder of wheels."""

OLD_WORDS = re.compile(r"\b(doorbells?|desks?|mend(ed|s|able)?|the way out|arms?|not told)\b", re.I)
"""What the docs call notification, executor, fix, remedy, variant and undecided."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of ``languages``."""
    found = re.findall(r"^ *```(\w*)\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def inline(page: Path) -> list[str]:
    """The code within sentences and tables."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", text)]


def commands(page: Path) -> Iterator[list[str]]:
    """Every call of ``customedit`` on the page, as words after its name."""
    lines = "\n".join(blocks(page, "sh", "")).replace("\\\n", " ").splitlines()
    for line in [*lines, *inline(page)]:
        if "customedit" in line and "kubectl" not in line:
            words = shlex.split(line, comments=True)
            names = [k for k, word in enumerate(words) if word.rpartition("/")[2] == "customedit"]
            if names and not any(word in ("-m", "exec", "sh") for word in words[: names[0]]):
                yield words[names[0] + 1 :]


def options_of_all() -> dict[str, set[str]]:
    """The options of every command, by its words."""
    known: dict[str, set[str]] = {}

    def walk(command: object, words: str) -> None:
        params = getattr(command, "params", [])
        known[words] = {o for p in params for o in [*p.opts, *p.secondary_opts] if o[0] == "-"}
        known[words] |= {"--help", "-h"}
        for name, below in getattr(command, "commands", {}).items():
            walk(below, f"{words} {name}".strip())

    walk(get_command(app), "")
    return known


OPTIONS = options_of_all()


def pages_with(*languages: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, *languages)]


@pytest.mark.parametrize("page", pages_with("python"), ids=name_of)
def test_snippets_are_python(page: Path) -> None:
    for snippet in blocks(page, "python"):
        ast.parse(snippet)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_snippets_meet_the_types(tmp_path: Path) -> None:
    files = []
    for page in TYPED:
        files.append(tmp_path / f"snippets_of_{page.stem}.py")
        files[-1].write_text("\n".join(blocks(page, "python")))
    command = [sys.executable, "-m", "mypy", *map(str, files)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_commands_are_a_tree() -> None:
    assert isinstance(get_command(app), TyperGroup)
    assert "--noun" in OPTIONS["customize"] and "--rank" in OPTIONS["concept export"]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_options_exist(page: Path) -> None:
    for words in commands(page):
        command = ""
        while words and f"{command} {words[0]}".strip() in OPTIONS:
            command = f"{command} {words.pop(0)}".strip()
        assert command or not words or words[0] in OPTIONS[""], f"customedit {' '.join(words)}"
        given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert given <= OPTIONS[command], f"customedit {command}"


def programs(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Every ``python -m customedit...`` or ``python benchmarks/...``: its file, and its words."""
    lines = "\n".join(blocks(page, "sh", "")).replace("\\\n", " ").splitlines()
    for line in [*lines, *inline(page)]:
        for found in re.finditer(
            r"python (?:-m (customedit[\w.]*)|(benchmarks/\w+)\.py)([^;&|]*)", line
        ):
            module, script, rest = found.groups()
            path = ROOT / (script or module.replace(".", "/"))
            file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
            yield str(file.relative_to(ROOT)), shlex.split(rest, comments=True)


def options_of_program(file: str) -> set[str]:
    """What a file's commands can be given: names of parameters, and names that are spelt out."""
    nodes = list(ast.walk(ast.parse((ROOT / file).read_text())))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    parameters = [a.arg for f in functions for a in [*f.args.args, *f.args.kwonlyargs]]
    texts = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    spelt = {option for text in texts if text.startswith("-") for option in text.split("/")}
    negated = {f"--no-{name.replace('_', '-')}" for name in parameters}
    return spelt | negated | {f"--{name.replace('_', '-')}" for name in parameters} | {"--help"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_programs_and_their_options_exist(page: Path) -> None:
    for file, words in programs(page):
        given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert given <= options_of_program(file), file


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_in_sentences_exist(page: Path) -> None:
    known = set().union(*OPTIONS.values())
    for file, _ in programs(page):
        known |= options_of_program(file)
    told = {code.split()[0] for code in inline(page) if re.match(r"--[a-z]", code)}
    assert told <= known


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_exist(page: Path) -> None:
    text = re.sub(r"\]\([^)]*\)|https?://\S+", "", page.read_text())
    told = set(PATH.findall(text))
    assert [path for path in sorted(told) if not list(ROOT.glob(path.rstrip("/")))] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_modules_exist(page: Path) -> None:
    told = {match[0] for match in MODULE.finditer(page.read_text())} - NO_MODULES
    assert [name for name in sorted(told) if not is_there(name)] == []


def is_there(dotted: str) -> bool:
    """Whether a module, or a name that its source defines or imports, is there."""
    path, parts = ROOT, dotted.split(".")
    while parts and (path / parts[0]).is_dir():
        path = path / parts.pop(0)
    if parts and path.joinpath(f"{parts[0]}.py").exists():
        source = path / f"{parts.pop(0)}.py"
    else:
        source = path / "__init__.py"
    defined = rf"(^|class |def |import |, ){parts[0] if parts else ''}\b"
    return source.exists() and (not parts or bool(re.search(defined, source.read_text(), re.M)))


def test_modules_of_each_room_exist() -> None:
    text = (ROOT / "docs" / "library.md").read_text()
    rows = re.findall(r"^\| `(customedit/\w+)/` \| (.*) \|$", text, re.MULTILINE)
    assert len(rows) == 5
    for room, modules in rows:
        names = re.findall(r"`(\w+)`", modules)
        assert names and [n for n in names if not list((ROOT / room).rglob(f"{n}.py"))] == []


def test_every_room_and_step_is_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {p.name for p in (ROOT / "customedit").iterdir() if (p / "__init__.py").exists()}
    assert {f"`customedit/{room}`" for room in rooms} <= set(re.findall(r"`customedit/\w+`", text))
    steps = re.findall(r"^\| (\d+) [\w ]+\| .* \| `", text, re.MULTILINE)
    picture = (ROOT / "docs" / "architecture.svg").read_text()
    assert list(map(int, steps)) == list(range(1, len(steps) + 1))
    assert all(re.search(rf"\b{step} [a-z]", picture) for step in steps)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_use_the_words_of_the_field(page: Path) -> None:
    assert [match[0] for match in OLD_WORDS.finditer(page.read_text())] == []


def own_environment(folder: Path) -> dict[str, str]:
    """The environment of somebody in a checkout, whose cache is in ``folder``."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CUSTOMEDIT_")}
    path = f"{Path(sys.executable).parent}:{environment['PATH']}"
    own = {"PYTHONPATH": str(ROOT), "CUSTOMEDIT_CACHE": str(folder / "cache"), "PATH": path}
    return environment | own


def run_snippets(folder: Path, *snippets: str) -> None:
    """Run ``snippets`` together as they are typed in a checkout, what they write in ``folder``."""
    (folder / "customedit").symlink_to(ROOT / "customedit")
    run = subprocess.run(
        [sys.executable, "-"], input="\n".join(snippets), cwd=folder, env=own_environment(folder),
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_library_snippets_run(tmp_path: Path) -> None:
    snippets = blocks(ROOT / "docs" / "library.md", "python")
    training = [text for text in snippets if "train_concept(" in text]
    others = [text for text in snippets if text not in training]
    readme = [text for text in blocks(ROOT / "README.md", "python") if "Editor(" in text]
    run_snippets(tmp_path, *training, *others, *readme)
    for name in ("out.png", "strength-0.4.png", "out-0.6.png"):
        assert (tmp_path / name).exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_service_snippet_runs(tmp_path: Path) -> None:
    from customedit.cli.serve import local_key
    from customedit.devserver.stack import Stack

    (snippet,) = [text for text in blocks(ROOT / "README.md", "python") if "CustomEdit(" in text]
    with Stack(tmp_path / "customedit-data", port=0) as stack:
        local_key(stack, "local")
        assert "http://127.0.0.1:8000" in snippet
        run_snippets(tmp_path, snippet.replace("http://127.0.0.1:8000", stack.url))
    assert (tmp_path / "edited-1.png").exists()


def sections(page: Path) -> dict[str, str]:
    """The text below each heading of the second level."""
    _, *parts = re.split(r"^## (.*)$", page.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_the_tutorial_names_what_is_on_the_page() -> None:
    """Bold words are labels of the page, as its modules write them."""
    modules = "".join(path.read_text() for path in (ROOT / "api" / "page").glob("*.js"))
    texts = set(re.split(r"[\"`]", modules))
    told = {
        " ".join(found.split())
        for found in re.findall(r"\*\*(.+?)\*\*", TUTORIAL.read_text(), re.S)
    }
    written = {
        "Edit 3 pictures": "Edit ${items.length} pictures",
        "`<plaid>` is learned": "${made.token} is learned",
    }
    assert len(told) > 20
    told = {written.get(one, one) for one in told}
    assert {one for one in told if one not in texts} <= {f"Choose {text}" for text in texts}


def test_the_tutorial_has_ten_tasks_and_their_pictures() -> None:
    text = TUTORIAL.read_text()
    linked = re.findall(r"^\| (\d+) \| .* \| \[.*\]\(#(\d+)-([\w-]+)\) \|$", text, re.MULTILINE)
    titles = [
        re.sub(r"[^a-z -]", "", title.lower()).strip().replace(" ", "-")
        for title in sections(TUTORIAL)
    ]
    assert [(a, b) for a, b, _ in linked] == [(str(n), str(n)) for n in range(1, 11)]
    assert [name for _, _, name in linked] == titles[:10]
    pictures = re.findall(r"!\[.+\]\((tutorial/\w+\.webp)\)", text)
    assert len(pictures) == 7
    for name in pictures:
        assert 0 < (TUTORIAL.parent / name).stat().st_size < 200_000, name


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_tutorial_runs(tmp_path: Path) -> None:
    """Its commands and its Python, as they are typed, with a training of few steps."""
    from customedit.cli.serve import local_key
    from customedit.devserver.stack import Stack

    found = sections(TUTORIAL)
    fenced = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
    shell, python, after = (
        "\n".join(text for _, text in fenced.findall(found[title]))
        for title in ("8. By REST", "9. In Python", "10. Clean up")
    )
    quick = '\\"steps\\": 4, \\"class_images\\": 1, \\"class_steps\\": 2'
    long = '\\"steps\\": 150, \\"class_images\\": 8'
    assert long in shell
    script = f"set -eu\n{shell.replace(long, quick)}\npython3 - <<'END'\n{python}\nEND\n{after}"
    (tmp_path / "customedit").symlink_to(ROOT / "customedit")
    with Stack(tmp_path / "customedit-data", port=0) as stack:
        local_key(stack, "local")
        run = subprocess.run(
            ["bash"], input=script.replace("http://127.0.0.1:8000", stack.url), cwd=tmp_path,
            env=own_environment(tmp_path), capture_output=True, text=True,
        )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "/problems/validation" in run.stdout
    for name in ("edited-by-rest.png", "edited-0.4.png", "edited-0.6.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
