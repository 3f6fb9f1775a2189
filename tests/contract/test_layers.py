"""What the import linter cannot see: who imports the compiled extension."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def test_only_the_binding_imports_the_extension() -> None:
    importers = {
        path.relative_to(ROOT)
        for folder in ("mariana", "trainer", "server")
        for path in (ROOT / folder).rglob("*.py")
        if any("_kernel" in name or "_calls" in name for name in _imports(path))
    }
    assert importers
    assert all(path.parts[:2] == ("mariana", "_binding") for path in importers), importers
