"""The web site: every link leads somewhere, every figure is described, and in a browser it works from plain files, for everybody.

The site's packages are a dependency group of their own ("site", which uv installs unasked); without them only the parts that need none
are tested. axe-core comes with a package of the group "dev", or is what npm, or `SRCOURSE_AXE`, names.
"""

import html
import importlib.util
import io
import json
import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import chromium
from PIL import Image

from conftest import ROOT

_spec = importlib.util.spec_from_file_location("site_build", ROOT / "docs" / "site" / "build.py")
site_build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(site_build)

LESSONS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


# --- the parts, without Sphinx ----------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    return site_build.Copies(tmp_path / "files", ROOT)


def test_links_to_pages_stay_and_others_become_copies(files, tmp_path):
    text = "[a](01_degradation.ipynb) [b](../solutions/00_welcome.ipynb) [c](../LICENSE) [d](../README.md#real-data)"
    text += " [e](https://example.org) `[f](g)`"
    made = site_build.links(text, "notebooks", files)
    assert (
        "[a](01_degradation.ipynb)" in made and "[d](../index.md#real-data)" in made and made.endswith("[e](https://example.org) `[f](g)`")
    )
    for place in ("files/solutions/00_welcome.ipynb", "files/LICENSE.txt"):
        assert f'href="../{place}"' in made and (tmp_path / place).is_file()
    assert site_build.links("[r](srcourse/recipes/)", "", files) == f"[r]({site_build.repository(ROOT)}/tree/main/srcourse/recipes)"


def test_a_dead_link_is_refused_with_its_name(files):
    with pytest.raises(SystemExit, match=r"99_nothing\.ipynb leads nowhere"):
        site_build.links("[x](99_nothing.ipynb)", "notebooks", files)


def test_a_figure_without_a_description_is_refused(files):
    output = {"data": {"image/png": "aGVsbG8="}, "metadata": {}}
    with pytest.raises(SystemExit, match="without a description"):
        site_build._describe(output, "00_welcome", files)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_size_of_a_picture(kind):
    stream = io.BytesIO()
    Image.effect_noise((123, 45), 50).convert("RGB").save(stream, kind)
    assert site_build.size(stream.getvalue()) == (123, 45)


def test_a_folder_with_something_else_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(site_build, "missing", list)
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit, match="holds something else than a site"):
        site_build.build(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_site_is_replaced_by_the_next_unless_sphinx_objects(tmp_path, monkeypatch):
    def sphinx(words, **options):
        made = Path(words[-1])
        made.mkdir()
        (made / "searchindex.js").write_text("new")
        assert (Path(words[-2]) / "index.md").is_file()
        return subprocess.CompletedProcess(words, status, "", f"{Path(words[-2]).parent}/source/index.md:3: WARNING: something")

    monkeypatch.setattr(site_build, "missing", list)
    monkeypatch.setattr(site_build.subprocess, "run", sphinx)
    out = tmp_path / "site"
    out.mkdir()
    for name in ("searchindex.js", "old.html"):
        (out / name).write_text("old")
    status = 1
    with pytest.raises(SystemExit, match=r"Sphinx is not content:\n/source/index\.md:3: WARNING"):
        site_build.build(out)
    assert (out / "searchindex.js").read_text() == "old"
    status = 0
    assert site_build.build(out) == LESSONS
    assert [path.name for path in out.iterdir()] == ["searchindex.js"] and (out / "searchindex.js").read_text() == "new"


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(site_build, "NEEDED", ("json", "a_package_that_nobody_has"))
    with pytest.raises(SystemExit, match="the site needs a_package_that_nobody_has: install the dependency group"):
        site_build.build(tmp_path / "site")
    assert not (tmp_path / "site").exists()


# --- the site ---------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page links to, shows and is divided into."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.links, self.loads, self.pictures, self.headings = set(), [], [], [], []
        self.formulas, self.text, self._quiet, self._slider, self._article = 0, [], 0, False, False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in ("script", "img", "iframe", "source") and "src" in found:
            self.loads.append(found["src"])
        if tag == "link" and found.get("rel") not in ("index", "search", "next", "prev", "author", "canonical"):
            self.loads.append(found["href"])
        if tag == "figure":
            self._slider = found.get("id", "").startswith("slider-")
        if tag == "img":
            self.pictures.append((found.get("src", ""), found.get("alt"), self._slider))
        self._article = self._article or tag == "article"
        if re.fullmatch("h[1-6]", tag) and self._article:  # outside, the theme has a heading for printing
            self.headings.append(int(tag[1]))
        self.formulas += tag == "math"
        self._quiet += tag in ("script", "style", "pre", "code", "math")

    def handle_endtag(self, tag):
        self._slider, self._article = self._slider and tag != "figure", self._article and tag != "article"
        self._quiet -= tag in ("script", "style", "pre", "code", "math")

    def handle_data(self, data):
        if not self._quiet:
            self.text.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    lacking = site_build.missing()
    if lacking:
        pytest.skip(f"the site's packages are not installed: {', '.join(lacking)}")
    out = tmp_path_factory.mktemp("site") / "site"
    try:
        lessons = site_build.build(out)
    except SystemExit as error:
        pytest.fail(str(error))
    assert lessons == LESSONS
    return out


@pytest.fixture(scope="module")
def pages(site):
    return {path.relative_to(site).as_posix(): Page(path) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts}


@pytest.mark.slow
def test_every_lesson_and_every_text_has_its_page(pages):
    wanted = {"index.html", "search.html", "CONTRIBUTING.html", *(f"notebooks/{name}.html" for name in LESSONS)}
    wanted |= {f"docs/{path.stem}.html" for path in (ROOT / "docs").glob("*.md")}
    assert wanted <= set(pages) and "docs/glossary.html" in wanted
    linked = {(Path(link).name) for link in pages["index.html"].links}
    assert {Path(page).name for page in wanted} - {"search.html", "index.html"} <= linked


@pytest.mark.slow
def test_no_link_is_dead(site, pages):
    checked = 0
    for name, page in pages.items():
        for link in page.links:
            address = urlsplit(link)
            if address.scheme:  # elsewhere: by its form alone, since tests use no network
                assert address.scheme == "https" and "." in address.netloc and " " not in link, f"{name}: {link}"
                continue
            target = (site / name).parent / unquote(address.path) if address.path else site / name
            assert target.is_file(), f"{name}: {link} leads nowhere"
            if address.fragment and target.suffix == ".html":
                ids = pages[target.resolve().relative_to(site.resolve()).as_posix()].ids
                assert unquote(address.fragment) in ids, f"{name}: {link} has no such place"
            checked += 1
    assert checked > 500
    for name in LESSONS:
        for folder in ("notebooks", "solutions"):
            assert f"../files/{folder}/{name}.ipynb" in pages[f"notebooks/{name}.html"].links
            assert (site / "files" / folder / f"{name}.ipynb").read_bytes() == (ROOT / folder / f"{name}.ipynb").read_bytes()


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(site, pages):
    for name, page in pages.items():
        for address in page.loads:
            path = urlsplit(address).path
            assert address.startswith("data:") or (not urlsplit(address).scheme and not address.startswith("//")), f"{name}: {address}"
            assert address.startswith("data:") or ((site / name).parent / path).is_file(), f"{name}: {address} is missing"
    styles = "\n".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.search(r"@import\s+(?:url\()?[\"']?(?:https?:)?//|url\([\"']?(?:https?:)?//", styles)


@pytest.mark.slow
@pytest.mark.parametrize("name", LESSONS)
def test_every_figure_is_there_with_its_description(site, pages, name):
    notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    stored = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    wanted = [
        output["metadata"][mime]["alt"] for output in stored for mime in ("image/png", "image/jpeg") if mime in output.get("data", {})
    ]
    shown = [(source, alt) for source, alt, slider in pages[f"notebooks/{name}.html"].pictures if not slider]
    assert [alt for _, alt in shown] == wanted and len(wanted) >= 1
    for source, _ in shown:
        with Image.open(site / "notebooks" / source) as picture:
            picture.verify()
    sliders = [alt for _, alt, slider in pages[f"notebooks/{name}.html"].pictures if slider]
    assert sliders[1::2] == [""] * (len(sliders) // 2) and all(
        len(alt) > 20 for alt in sliders[::2]
    )  # the second picture lies on the first


@pytest.mark.slow
def test_other_pages_describe_their_figures(pages):
    for name, page in pages.items():
        if not name.startswith("notebooks/"):
            assert all(alt and len(alt) > 20 for _, alt, _ in page.pictures), name
    assert pages["index.html"].pictures


@pytest.mark.slow
def test_headings_go_down_one_step_at_a_time(pages):
    for name, page in pages.items():
        if name.startswith(("notebooks/", "docs/")) or name in ("index.html", "CONTRIBUTING.html"):
            assert page.headings[0] == 1 and page.headings.count(1) == 1, f"{name}: {page.headings}"
            assert all(b <= a + 1 for a, b in zip(page.headings, page.headings[1:], strict=False)), f"{name}: {page.headings}"


@pytest.mark.slow
def test_formulas_are_formulas(pages):
    assert sum(pages[f"notebooks/{name}.html"].formulas for name in LESSONS) > 400
    for name in LESSONS:
        words = "".join(pages[f"notebooks/{name}.html"].text)
        assert not re.search(r"\$[^$\n]{1,80}\$|\\(?:frac|text|sigma|sum|ell)\b", words), name


# --- in a browser -----------------------------------------------------------------------------------------------

AXE = "rules => axe.run(document, {runOnly: rules, resultTypes: ['violations']})"
# Hints and notes are opened, and of each kind of coloured word in code one is left: thousands look alike, and axe looks at every one.
PREPARE = """() => {
  document.querySelectorAll('details').forEach(details => details.open = true);
  const seen = new Set();
  document.querySelectorAll('pre span').forEach(span => {
    const kind = (span.closest('.cell_output') ? 'output ' : '') + span.className;
    if (seen.has(kind) && !span.children.length) span.replaceWith(span.textContent); else seen.add(kind);
  });
  document.querySelectorAll('pre').forEach(block => block.normalize());
}"""
AXE_OF_NPM = "node_modules/axe-core/axe.min.js"
RULES = ["color-contrast", "heading-order", "page-has-heading-one", "empty-heading", "image-alt", "link-name", "button-name", "label"]


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture
def visit(site, browser):
    """Open a page as a file; what it logs as an error, or asks of a network, is an error.

    Without motion, unless asked for: what fades in is pale for 0.3 s, and axe-core would measure its contrast then.
    """
    contexts, troubles = [], []

    def open_page(name, theme="light", query="", motion="reduce"):
        context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True, reduced_motion=motion)
        context.add_init_script(f"localStorage.setItem('mode', '{theme}'); localStorage.setItem('theme', '{theme}')")
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith(("file:", "data:", "blob:")) else troubles.append(request.url))
        page.goto((site / name).as_uri() + query)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not troubles


@pytest.fixture(scope="module")
def axe():
    package = importlib.util.find_spec("axe_playwright_python")
    places = [os.environ.get("SRCOURSE_AXE"), package and Path(package.origin).with_name("axe.min.js"), ROOT / AXE_OF_NPM]
    found = next((Path(place) for place in places if place and Path(place).is_file()), None)
    if found is None:
        pytest.skip("no axe-core: it is in the dependency group dev; or npm install axe-core, or name its axe.min.js in SRCOURSE_AXE")
    return found.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast_headings_and_names(visit, pages, axe, theme):
    for name in pages:
        if name == "genindex.html":
            continue
        page = visit(name, theme)
        assert page.evaluate("document.documentElement.dataset.theme") == theme
        page.evaluate(PREPARE)
        page.evaluate(axe)
        found = page.evaluate(AXE, RULES)
        told = [
            (violation["id"], node["html"][:150], node["failureSummary"])
            for violation in found["violations"]
            for node in violation["nodes"]
        ]
        assert not told, f"{name}, {theme}: {told[:5]}"
        assert {"color-contrast", "heading-order"} <= {rule["id"] for rule in found["passes"] + found["incomplete"] + found["inapplicable"]}
        page.close()


@pytest.mark.slow
@pytest.mark.e2e
def test_axe_would_find_something(visit, axe):
    page = visit("docs/glossary.html")
    page.evaluate("document.querySelector('article p').insertAdjacentHTML('afterend', '<p style=\"color: #aaa\">pale</p><h6>low</h6>')")
    page.evaluate(axe)
    found = page.evaluate(AXE, RULES)
    assert {"color-contrast", "heading-order"} <= {violation["id"] for violation in found["violations"]}


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_nothing_moves_for_those_who_ask_for_less_motion(visit, motion):
    page = visit("notebooks/03_srresnet.html", motion=motion)
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    moving = page.evaluate("document.getAnimations().length")
    assert moving == 0 if motion == "reduce" else moving > 0


@pytest.mark.slow
@pytest.mark.e2e
def test_search_finds_psnr(visit):
    page = visit("index.html")
    page.locator("button.search-button__button, .search-button-field").first.click()
    page.keyboard.type("PSNR")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=PSNR*")
    results = page.locator("ul.search li a")  # they come in one after the other
    for name in ("02_psnr_ssim", "glossary"):
        page.locator(f"ul.search li a[href*='{name}.html']").first.wait_for()
    assert results.count() > 5
    results.filter(has_text="PSNR").first.click()
    page.wait_for_url("**.html*")
    assert "PSNR" in page.locator("article").inner_text()


@pytest.mark.slow
@pytest.mark.e2e
def test_dark_mode_can_be_switched_on_and_stays(visit):
    page = visit("notebooks/00_welcome.html")
    luminance = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)"
    assert page.evaluate(luminance) > 600
    page.locator(".theme-switch-button:visible").first.click()
    page.locator(".theme-change-button[data-mode=dark]:visible").first.click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark" and page.evaluate(luminance) < 200
    photo = page.locator(".figure img").first
    assert photo.evaluate("image => getComputedStyle(image).filter") == "none"  # photos keep their grey levels


@pytest.mark.slow
@pytest.mark.e2e
def test_the_slider_follows_the_mouse_and_the_keys(visit):
    page = visit("notebooks/00_welcome.html")
    figure = page.locator("figure[id^=slider-]").first
    figure.scroll_into_view_if_needed()
    handle, top = figure.locator("input"), figure.locator("img").nth(1)
    frame = handle.bounding_box()
    place = "figure => parseFloat(getComputedStyle(figure).getPropertyValue('--x'))"
    assert figure.evaluate(place) == 50
    page.mouse.move(frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2)
    page.mouse.down()
    page.mouse.move(frame["x"] + frame["width"] / 4, frame["y"] + frame["height"] / 2, steps=5)
    page.mouse.up()
    assert abs(figure.evaluate(place) - 25) < 3
    right = float(
        re.search(r"inset\(0(?:px)? (?:calc\(100% - ([\d.]+)%\)|([\d.]+)%)", top.evaluate("i => getComputedStyle(i).clipPath")).group(2)
        or 75
    )
    assert abs(right - 75) < 3  # a quarter of the upper picture is left
    before = figure.evaluate(place)
    handle.press("ArrowRight")
    assert before < figure.evaluate(place) < before + 5


@pytest.mark.slow
@pytest.mark.e2e
def test_pages_fit_a_telephone_and_notes_open(visit):
    page = visit("notebooks/06_perceptual_niqe.html")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    details = page.locator("article details", has_text="Hint").first
    hidden = details.locator("p").first
    assert not hidden.is_visible()
    details.locator("summary").click()
    assert hidden.is_visible()
    shown = html.unescape(page.title())
    assert shown.startswith("06 · Perceptual losses and NIQE")
