"""The site: `make docs`. Pages of verbs and of public names are generated here, from the code, and never committed."""

import os
import sys
from importlib import metadata
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent / "src")]
os.environ["PYTHONPATH"] = os.pathsep.join([str(DOCS.parent / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
os.environ["IPYTHONDIR"] = str(DOCS / "_ipython")  # a command in a cell that fails ends the build

project, author = "scorefield", "scorefield contributors"
project_copyright = "scorefield contributors, Apache-2.0"
release = version = metadata.version("scorefield")
root_doc = "index"
exclude_patterns = ["_extension", "_ipython", "**.ipynb_checkpoints"]
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.linkcode",
    "sphinx_copybutton",
    "_extension",
]

# text
myst_enable_extensions = ["attrs_block", "attrs_inline"]
myst_heading_anchors = 4
default_role = "py:obj"  # names between backticks in docstrings; what is no public name stays as it is
toc_object_entries = False
smartquotes = False  # two dashes begin an option
suppress_warnings = ["misc.highlighting_failure"]  # a shell's command over several lines is no Python, and readable so

# executed cells: once, as long as their text is the same
nb_execution_mode = "cache"
nb_execution_cache_path = str(DOCS.parent / "build" / "docs-cache")
nb_execution_in_temp = True
nb_execution_timeout = -1  # a slow machine is no error
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_code_prompt_show, nb_code_prompt_hide = "Show the code", "Hide the code"

# the API
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_maximum_signature_line_length = 88
add_module_names = False

# the look: nothing comes from elsewhere
html_theme = "furo"
html_title = "scorefield"
html_baseurl = "https://scorefield.github.io/scorefield/"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "source_repository": "https://github.com/scorefield/scorefield/",
    "source_branch": "main",
    "source_directory": "docs/",
    "light_css_variables": {"color-brand-primary": "#0b5394", "color-brand-content": "#0b5394"},
    "dark_css_variables": {"color-brand-primary": "#7fb5e6", "color-brand-content": "#7fb5e6"},
}
copybutton_prompt_text = "!"  # a cell's `!scorefield ...` is copied as a shell takes it
copybutton_only_copy_prompt_lines = False


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Where the code of a public name is."""
    from _extension.reference import address_of

    return address_of(info["module"], info["fullname"]) if domain == "py" else None
