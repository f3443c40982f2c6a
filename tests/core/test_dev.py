"""`dev.py`, the one command of a fresh machine, without what it would install."""

import sys

import dev
import pytest


def pack(folder, types):
    """A pack of two modules in a folder whose name is none of Python's."""
    for name in ("nodes", "dreamer_core"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("")
    (folder / "pyproject.toml").write_text("[tool.mypy]\nexplicit_package_bases = true\n")
    (folder / "__init__.py").write_text("from .nodes.loader import NAME\n")
    (folder / "dreamer_core" / "names.py").write_text("NAME = 'a'\n")
    (folder / "nodes" / "loader.py").write_text(f"from ..dreamer_core.names import NAME\n\nlength: {types} = NAME\n")
    return folder


@pytest.mark.parametrize(("types", "code"), [("str", 0), ("int", 1)])
def test_the_types_of_the_pack_are_checked_in_a_folder_of_any_name(tmp_path, monkeypatch, capfd, types, code):
    pytest.importorskip("mypy")
    monkeypatch.setattr(dev, "ROOT", pack(tmp_path / "dreamer-xl", types))
    assert dev.check_pack_types(sys.executable) == code
    out = capfd.readouterr().out
    assert ("loader.py:3: error" in out) is bool(code)
    assert "Cannot find" not in out
