"""The diagrams are of the code: no import goes in a circle, every module named is there, both are drawn."""

from experiments import diagrams


def test_nothing_imports_in_a_circle():
    modules = diagrams.imports()
    assert diagrams.cycle(modules) == []
    assert diagrams.cycle(diagrams.grouped(modules)) == []
    assert modules["jrec.train.loop"] >= {"jrec.train.checkpoints", "jrec.errors"}
    # Within functions too, and `from package import module`.
    assert "experiments.fusion" not in modules["jrec.report"]


def test_a_circle_is_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"d", "b"}, "d": set()}
    assert diagrams.cycle(graph) == ["b", "c"]
    assert diagrams.cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_imports_go_one_way():
    groups = diagrams.grouped(diagrams.imports())
    assert groups["data"] <= {"files, errors, flags"} and not groups["files, errors, flags"]
    assert not groups["models"] & {"train", "evaluate", "experiments", "reports and exports"}
    assert all("experiments" not in wanted for wanted in groups.values())
    for module, wanted in diagrams.imports().items():
        if module.startswith("jrec.train"):  # knows no system
            assert not any(other.startswith("jrec.models") for other in wanted), module


def test_both_are_drawn(tmp_path, capsys):
    assert {module for *_, module in diagrams.FLOW} <= diagrams.imports().keys()
    diagrams.main(["--out", str(tmp_path / "docs")])
    for name in ("architecture.png", "imports.png"):
        assert (tmp_path / "docs" / name).read_bytes().startswith(b"\x89PNG")
