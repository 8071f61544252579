"""Settings of the documentation: ``sphinx-build -W -n docs build/docs``.

Pages that belong elsewhere are brought in before Sphinx looks: the README, the paper's checks, and the notebooks with
the outputs they were committed with (nothing is executed).  All of this, and the API pages, go to ``docs/generated``.
"""

import html
import re
import sys
from importlib import import_module
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util.logging import getLogger

DOCS = Path(__file__).resolve().parent
ROOT, GENERATED = DOCS.parent, DOCS / "generated"
sys.path.insert(0, str(ROOT))

project, author, copyright = "ramda_theory", "The authors of ramda_theory", "The authors of ramda_theory, BSD-3-Clause"
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_nb",
]
templates_path, exclude_patterns = ["_templates"], ["_templates", "playground/*.md"]
default_role, nitpicky = "py:obj", True
nitpick_ignore_regex = [("py:class", ".* .*")]  # words of a default that is a string with a colon, taken for a type

autosummary_generate = True
autosummary_imported_members, autosummary_ignore_module_all = True, False  # what __all__ lists, wherever it is defined
autosummary_filename_map = {  # apart from ``run`` and ``screen`` where names of files do not tell capitals apart
    "ramda_theory.Run": "ramda_theory.Run-class",
    "ramda_theory.diagnostics.Identification": "ramda_theory.diagnostics.Identification-class",
    "ramda_theory.diagnostics.Inexactness": "ramda_theory.diagnostics.Inexactness-class",
    "ramda_theory.diagnostics.Screen": "ramda_theory.diagnostics.Screen-class",
}
WINGS = (
    "regularizers",
    "subproblem",
    "problems",
    "methods",
    "diagnostics",
    "model",
    "optim",
    "kernels",
    "workloads",
    "drawing",
)


def elsewhere():
    """Dotted names in ``__all__`` of things that a wing before lists as well, and where their page is."""
    found, home = {}, {}
    for wing in (*(f"ramda_theory.{wing}" for wing in WINGS), "ramda_theory"):
        module = import_module(wing)
        for name in module.__all__:
            first = home.setdefault(id(getattr(module, name)), f"{wing}.{name}")
            if first != f"{wing}.{name}":
                found[f"{wing}.{name}"] = first
    return found


autosummary_context = {"elsewhere": elsewhere()}
autodoc_typehints = "none"  # numpydoc's sections say them
numpydoc_show_class_members = False

nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

html_math_renderer = "mathml"  # browsers draw it themselves: no script from elsewhere
html_theme = "pydata_sphinx_theme"
html_title = "ramda_theory"
html_extra_path = ["extra"]  # the page that works in the browser alone, as it is
html_show_sourcelink = html_copy_source = False
html_sidebars = {page: [] for page in ("index", "architecture", "generated/README")}
html_theme_options = {
    "show_prev_next": False,
    "show_toc_level": 2,
    "navigation_depth": 2,
    "secondary_sidebar_items": ["page-toc"],
}


def bring_in(app, config):
    """Copy what is kept elsewhere, with links that fit its new place; files that have not changed are left alone."""
    for path in (*ROOT.glob("notebooks/*.ipynb"), *(ROOT / name for name in BROUGHT)):
        place = GENERATED / path.relative_to(ROOT)
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".md":
            text = relinked(text, path.parent)
        if not place.exists() or place.read_text(encoding="utf-8") != text:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")


BROUGHT = ("README.md", "paper_checks/README.md", "paper_checks/FINDINGS.md", "benchmarks/README.md")


def relinked(text, folder):
    """Links of a page of ``folder`` as they are from its copy."""

    def link(match):
        words, target = match.groups()
        path = (folder / target.partition("#")[0]).resolve()
        if "://" in target or target.startswith("#"):
            return match[0]
        if path.is_dir():
            return words
        name = path.relative_to(ROOT).as_posix()
        up = "../" * (1 + len(folder.relative_to(ROOT).parts))
        if name in BROUGHT or name.startswith("notebooks/"):
            return match[0]
        return (
            f"[{words}]({up}{name.removeprefix('docs/')})" if name.startswith("docs/") else f"[{words}]({up}../{name})"
        )

    return re.sub(r"\[([^\]]*)\]\(([^)\s]+)\)", link, text)


def escape_bars(app, what, name, thing, options, lines):
    """Absolute values and norms are no substitutions of reStructuredText."""
    for index, line in enumerate(lines):
        if "|" in line and not line.lstrip().startswith((">>>", "...")):
            lines[index] = "``".join(
                part if odd % 2 else part.replace("|", "\\|") for odd, part in enumerate(line.split("``"))
            )


def resolve(app, env, node, contnode):
    """Names in backticks: a documented object that ends so, or code if the package has such a name at all."""
    target = node.get("reftarget", "")
    if node.get("reftype") != "obj":
        return None
    objects = env.domains["py"].objects
    module = node.get("py:module") or ""
    ends = [name for name in objects if name == target or name.endswith(f".{target}")]
    if not ends and exists(target):  # by another way than where its page is
        ends = [name for name in objects if name.endswith(f".{target.rpartition('.')[2]}")]
    near = [name for name in ends if name.startswith(f"{module}.")] or ends
    if near:
        entry = objects[min(near, key=len)]
        refuri = app.builder.get_relative_uri(node["refdoc"], entry.docname)
        return nodes.reference("", "", contnode, internal=True, refuri=f"{refuri}#{entry.node_id}")
    return contnode if exists(target) else None


def exists(target):
    """Whether a dotted name, or the first part of it, is a name somewhere in the package."""
    first = target.partition(".")[0].partition("(")[0]
    if first == "ramda_theory":
        module, _, name = target.rpartition(".")
        try:
            import_module(target)
        except ImportError:
            return hasattr(import_module(module), name)
        return True
    return any(hasattr(module, first) for key, module in sys.modules.items() if key.startswith("ramda_theory"))


UNDER_HAT = re.compile(r"<munderover>\s*(<mi>\w</mi>)\s*(.*?)\s*(<mo[^>]*>ˆ</mo>)\s*</munderover>", re.DOTALL)
BESIDE = r'<msub><mover accent="true">\1 \3</mover> \2</msub>'
"""docutils puts the index of a letter with a hat below it."""


def mathml(text, node, as_block=False):
    """A formula as MathML; its number, as text, stands behind it."""
    text = re.sub(r"\\tag\{(.*?)\}", r"\\qquad \\text{(\1)}", text)
    text = re.sub(r"\\([td]?frac)(\d)(\d)", r"\\\1{\2}{\3}", text)  # docutils would read \tfrac12 x as 12/x
    try:
        return UNDER_HAT.sub(BESIDE, tex2mathml(text, as_block=as_block))
    except MathError as error:
        getLogger(__name__).warning("formula: %s in %s", error, text, location=node)
        return f"<code>{html.escape(text)}</code>"


def inline_math(translator, node):
    translator.body.append(mathml(node.astext(), node))
    raise nodes.SkipNode


def block_math(translator, node):
    text = node.astext()
    text = rf"\begin{{aligned}}{text}\end{{aligned}}" if "&" in text or r"\\" in text else text
    translator.body.append(mathml(text, node, as_block=True))
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    app.connect("config-inited", bring_in, priority=100)
    app.connect("autodoc-process-docstring", escape_bars, priority=100)
    app.connect("missing-reference", resolve)
