import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, BlockError, blocks, run_page

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUNNABLE = {"bash", "python"}


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if RUNNABLE & {block.language for block in blocks(page)}],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_every_block_of_the_page_runs(page: Path, tmp_path: Path) -> None:
    run_page(page, tmp_path)


def test_no_block_hides_from_being_run() -> None:
    languages = {block.language for page in PAGES for block in blocks(page)}
    assert languages - RUNNABLE <= {"text", "json", "toml", "ini", "mermaid", "sql"}


def page_of(folder: Path, text: str) -> Path:
    page = folder / "page.md"
    page.write_text(text)
    return page


def clone(folder: Path) -> Path:
    made = folder / "clone"
    made.mkdir()
    return made


def test_bash_blocks_share_variables_and_directory(tmp_path: Path) -> None:
    page = page_of(
        tmp_path,
        "```bash\nexport WHO=Ada\nmkdir place\ncd place\n```\n"
        "```bash\n[[ $WHO == Ada && $PWD == */place ]]\n```\n",
    )
    run_page(page, clone(tmp_path))


def test_python_blocks_share_names_and_may_await(tmp_path: Path) -> None:
    page = page_of(
        tmp_path,
        "```python\nimport asyncio\nx = 1\n```\n\n"
        "```python\nawait asyncio.sleep(0)\nx += 1\n```\n\n```python\nassert x == 2\n```\n",
    )
    run_page(page, clone(tmp_path))


def test_a_python_block_with_a_name_becomes_a_file(tmp_path: Path) -> None:
    page = page_of(
        tmp_path,
        '```python\n# hi.py\nprint("hi")\n```\n```bash\n[[ $(python hi.py) == hi ]]\n```\n',
    )
    run_page(page, clone(tmp_path))


@pytest.mark.parametrize(
    "block",
    ["```bash\nfalse\ntrue\n```\n", "```bash\nfalse | true\n```\n", "```python\nassert 0\n```\n"],
)
def test_a_block_that_fails_is_named_with_page_and_line(tmp_path: Path, block: str) -> None:
    page = page_of(tmp_path, "# Title\n\n" + block)
    with pytest.raises(BlockError, match=r"page\.md:4: the (bash|python) block fails"):
        run_page(page, clone(tmp_path))


def test_text_blocks_are_not_run_and_indented_blocks_are(tmp_path: Path) -> None:
    page = page_of(tmp_path, "```text\nfalse\n```\n\n- item\n\n  ```bash\n  touch ran\n  ```\n")
    folder = clone(tmp_path)
    run_page(page, folder)
    assert (folder / "ran").exists()


def test_an_open_fence_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not closed"):
        blocks(page_of(tmp_path, "```bash\ntrue\n"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_of_the_repository_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []
