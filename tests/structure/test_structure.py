"""A fault of each kind, planted in a small workspace, is found where it is.

python3 -m unittest discover tests/structure
"""

import tempfile
import unittest
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

from checks import all_findings
from circles import circles, graph
from findings import Finding, without_known
from layout import Box, Direction, arranged, downward, without_implied
from pages import unknown_names
from picture import picture
from rules import AllowedCircle, Arrow, Known, Packages, Rules
from rust_source import RustSource
from stale import missing
from workspace import Workspace

RULES = Rules.read()


class Tree:
    """A repository in a temporary folder with a crate of every name that is needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def crate(self, name: str, root: str = "", dependencies: str = "") -> None:
        manifest = f'[package]\nname = "afterimage-{name}"\n\n[dependencies]\n{dependencies}\n'
        self.write(f"crates/{name}/Cargo.toml", manifest)
        self.write(f"crates/{name}/src/lib.rs", root)

    def write(self, path: str, text: str) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def findings(self, rules: Rules = RULES) -> list[Finding]:
        return all_findings(Workspace(self.folder), rules)


class StructureTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.tree = Tree(Path(folder.name))

    def assert_found(self, *expected: tuple[str, int, str], rules: Rules = RULES) -> None:
        """That these are the faults: path, line, and a part of the sentence."""
        found = self.tree.findings(rules)
        self.assertEqual([(one.path, one.line) for one in found], [(path, line) for path, line, _ in expected], found)
        for one, (_, _, part) in zip(found, expected, strict=True):
            self.assertIn(part, one.text)


class Crates(StructureTest):
    def test_a_good_tree_has_no_faults(self) -> None:
        self.tree.crate("server", "mod api;\nuse afterimage_runner::Engine;\n", "afterimage-runner.workspace = true")
        self.tree.write("crates/server/src/api.rs", "use afterimage_runner::Engine;\n")
        self.tree.crate("runner", "mod engine;\npub use engine::Engine;\n")
        self.tree.write("crates/runner/src/engine.rs", "pub struct Engine;\n")
        self.assert_found()

    def test_a_dependency_upwards(self) -> None:
        self.tree.crate("cache", dependencies='serde = "1"\nafterimage-diffusion.workspace = true')
        self.tree.crate("diffusion")
        self.assert_found(("crates/cache/Cargo.toml", 6, "cache depends on diffusion, which is not below it"))

    def test_a_dependency_beside(self) -> None:
        self.tree.crate("cache", dependencies='afterimage-checkpoint = { path = "../checkpoint" }')
        self.tree.crate("checkpoint")
        self.assert_found(("crates/cache/Cargo.toml", 5, "cache depends on checkpoint"))

    def test_an_import_upwards(self) -> None:
        self.tree.crate("kernels", "mod gelu;\n")
        self.tree.write("crates/kernels/src/gelu.rs", "//! x\n\nfn f() {\n    afterimage_cache::run();\n}\n")
        self.tree.crate("cache", "pub fn run() {}\n")
        self.assert_found(("crates/kernels/src/gelu.rs", 4, "kernels is not above cache"))

    def test_a_crate_without_a_place(self) -> None:
        self.tree.crate("extras")
        self.assert_found(("crates/extras/Cargo.toml", 1, "no place in `layers`"))

    def test_a_package_that_tests_also_have(self) -> None:
        both = "candle-core.workspace = true\n[dev-dependencies]\ncandle-core.workspace = true"
        self.tree.crate("server", dependencies=both)
        self.assert_found(("crates/server/Cargo.toml", 5, "server depends on candle-core"))
        self.tree.crate("server", dependencies="[dev-dependencies]\ncandle-core.workspace = true")
        self.assert_found()

    def test_a_renamed_package(self) -> None:
        self.tree.write("Cargo.toml", '[workspace.dependencies]\nnn = { package = "candle-nn", version = "1" }\n')
        self.tree.crate("server", dependencies='ct = { package = "candle-core" }\nnn.workspace = true')
        expected = [("crates/server/Cargo.toml", 5 + at, f"on candle-{name}") for at, name in enumerate(["core", "nn"])]
        self.assert_found(*expected)

    def test_a_renamed_crate(self) -> None:
        renamed = 'up = { package = "afterimage-runner", path = "../runner" }'
        self.tree.crate("cache", "use up::Engine;\n", renamed)
        self.tree.crate("runner", "pub struct Engine;\n")
        lines = ("crates/cache/Cargo.toml", 5, "on runner"), ("crates/cache/src/lib.rs", 1, "not above runner")
        self.assert_found(*lines)

    def test_only_some_packages(self) -> None:
        self.tree.crate("kernels", dependencies="axum.workspace = true\nrayon.workspace = true")
        self.assert_found(("crates/kernels/Cargo.toml", 5, "kernels depends on axum"))

    def test_threads(self) -> None:
        self.tree.crate("cache", "use std::thread as t;\nfn f() {\n    ::std::thread::spawn(g);\n}\n")
        found = [("crates/cache/src/lib.rs", line, "uses std::thread: the cache knows no threads") for line in (1, 3)]
        self.assert_found(*found)

    def test_programs_and_build_scripts(self) -> None:
        self.tree.crate("cache", "pub mod plan;\n")
        self.tree.write("crates/cache/src/plan.rs", "")
        self.tree.crate("runner", "pub struct Engine;\n")
        paths = [f"crates/cache/{name}" for name in ("build.rs", "src/bin/a.rs", "src/bin/b/main.rs", "src/main.rs")]
        for path in paths:
            self.tree.write(path, "use afterimage_runner::Engine;\nuse crate::f;\nfn f() {}\n")
        self.assert_found(*((path, 1, "not above runner") for path in paths))

    def test_an_unwanted_package(self) -> None:
        self.tree.crate("kernels", dependencies="candle-core.workspace = true")
        self.assert_found(("crates/kernels/Cargo.toml", 5, "kernels depends on candle-core: operators take slices"))


class Rooms(StructureTest):
    def test_an_operator_knows_a_layer(self) -> None:
        self.tree.crate("diffusion", "mod layers;\nmod ops;\n")
        self.tree.write("crates/diffusion/src/layers/mod.rs", "pub struct Linear;\n")
        self.tree.write("crates/diffusion/src/ops/mod.rs", "mod gelu;\n")
        self.tree.write("crates/diffusion/src/ops/gelu.rs", "use std::fmt;\nuse crate::{\n    layers::Linear,\n};\n")
        self.assert_found(("crates/diffusion/src/ops/gelu.rs", 3, "diffusion::ops must not know diffusion::layers"))

    def test_a_name_that_the_crate_passes_on(self) -> None:
        self.tree.crate("diffusion", "mod families;\nmod noise;\npub use families::Sd3 as Model;\n")
        self.tree.write("crates/diffusion/src/families/mod.rs", "mod sd3;\npub use self::sd3::*;\n")
        self.tree.write("crates/diffusion/src/families/sd3.rs", "pub struct Sd3;\n")
        self.tree.write("crates/diffusion/src/noise.rs", "fn f(model: &crate::Model) {}\nfn g(x: crate::Model::X) {}\n")
        self.assert_found(("crates/diffusion/src/noise.rs", 1, "noise must not know diffusion::families"))

    def test_a_family_knows_another(self) -> None:
        self.tree.crate("diffusion", "mod families;\n")
        self.tree.write("crates/diffusion/src/families/mod.rs", "mod contract;\nmod dit;\nmod labels;\nmod sd3;\n")
        self.tree.write("crates/diffusion/src/families/contract.rs", "pub trait Family {}\n")
        self.tree.write("crates/diffusion/src/families/labels/mod.rs", "mod nearest;\npub struct Labels;\n")
        self.tree.write("crates/diffusion/src/families/labels/nearest.rs", "")
        self.tree.write("crates/diffusion/src/families/dit/mod.rs", "pub(crate) mod block;\nmod family;\n")
        self.tree.write("crates/diffusion/src/families/dit/block.rs", "pub(crate) struct Block;\n")
        good = (
            "use super::block::Block;\nuse crate::families::contract::Family;\nuse crate::families::labels::Labels;\n"
        )
        self.tree.write("crates/diffusion/src/families/dit/family.rs", good)
        self.tree.write("crates/diffusion/src/families/sd3/mod.rs", "use super::super::families::dit::block::Block;\n")
        sentence = "families::sd3 must not know diffusion::families::dit"
        self.assert_found(("crates/diffusion/src/families/sd3/mod.rs", 1, sentence))

    def test_a_handler_knows_another(self) -> None:
        handler = '#[utoipa::path(get, path = "/x")]\npub(super) async fn get() {}\n'
        self.tree.crate("server", "mod api;\n")
        self.tree.write("crates/server/src/api/mod.rs", "mod health;\nmod models;\nmod state;\n")
        self.tree.write("crates/server/src/api/health.rs", f"use super::models::get as list;\n{handler}")
        self.tree.write("crates/server/src/api/models.rs", f"use super::state::State;\n{handler}")
        self.tree.write("crates/server/src/api/state.rs", "pub(super) struct State;\n")
        self.assert_found(("crates/server/src/api/health.rs", 1, "files with handlers must not know each other"))


class Forms(StructureTest):
    def assert_import_found(self, code: str, line: int = 1) -> None:
        self.tree.crate("kernels", code)
        self.tree.crate("cache", "pub fn run() {}\n")
        self.assert_found(("crates/kernels/src/lib.rs", line, "kernels is not above cache"))

    def test_a_module_of_tests_exempts_itself_only(self) -> None:
        quiet = "mod quiet {\n    #![cfg(test)]\n    use afterimage_cache::run;\n}\n"
        self.assert_import_found(f"{quiet}use afterimage_cache::run;\n", 5)

    def test_comments_nest(self) -> None:
        self.assert_import_found('/* /* */ " */\nuse afterimage_cache::run;\n// "\n', 2)

    def test_raw_identifiers(self) -> None:
        self.assert_import_found("use r#afterimage_cache::r#run;\n")
        self.tree.crate("kernels", "mod r#driver;\n")
        self.tree.write("crates/kernels/src/driver.rs", "fn f() { afterimage_cache::r#run(); }\n")
        self.assert_found(("crates/kernels/src/driver.rs", 1, "kernels is not above cache"))

    def test_paths_from_the_outermost(self) -> None:
        self.assert_import_found("fn f(x: ::afterimage_cache::Run) {}\n")
        self.assert_import_found("fn f() { g(0..afterimage_cache::LAST) }\n")

    def test_hidden_code(self) -> None:
        code = '#[path = "x.rs"]\nmod a;\n#[cfg_attr(unix, path = "x.rs")]\nmod b;\ninclude!("x.rs");\n'
        tests = '#[cfg(test)]\n#[path = "x.rs"]\nmod tests;\n'
        self.tree.crate("cache", f"{code}extern crate self as me;\n{tests}")
        self.tree.write("crates/cache/src/a.rs", "")
        self.tree.write("crates/cache/src/b.rs", "")
        forms = [(1, "#[path]"), (3, "#[path]"), (5, "include!"), (6, "extern crate")]
        self.assert_found(*(("crates/cache/src/lib.rs", line, f"`{form}` hides") for line, form in forms))

    def test_files_of_inline_modules(self) -> None:
        self.tree.crate("kernels", "mod inner { mod deep; }\nmod lost;\n")
        self.tree.crate("cache", "pub fn run() {}\n")
        self.tree.write("crates/kernels/src/inner/deep.rs", "use afterimage_cache::run;\n")
        deep = ("crates/kernels/src/inner/deep.rs", 1, "kernels is not above cache")
        self.assert_found(deep, ("crates/kernels/src/lib.rs", 2, "the module lost has no file"))

    def test_a_renamed_mark_of_handlers(self) -> None:
        self.tree.crate("server", "use utoipa::ToSchema;\nuse utoipa::path as operation;\nuse utoipa as u;\n")
        self.assert_found(*(("crates/server/src/lib.rs", line, "handlers are known by") for line in (2, 3)))


class Circles(StructureTest):
    def plant(self) -> None:
        self.tree.crate("cache", "mod plan;\n")
        self.tree.write("crates/cache/src/plan/mod.rs", "mod tag;\npub mod inner;\npub struct Plan(tag::Tag);\n")
        self.tree.write("crates/cache/src/plan/tag.rs", "use super::Plan;\npub struct Tag;\n")
        self.tree.write("crates/cache/src/plan/inner/mod.rs", "pub mod leaf;\n")
        self.tree.write("crates/cache/src/plan/inner/leaf.rs", "pub struct Leaf;\n")

    def test_a_module_and_its_files_may_know_each_other(self) -> None:
        self.plant()
        self.assert_found()

    def test_across_folders(self) -> None:
        self.plant()
        self.tree.write("crates/cache/src/plan/inner/leaf.rs", "\nuse crate::plan::Plan;\npub struct Leaf;\n")
        self.tree.write("crates/cache/src/plan/tag.rs", "use super::inner::leaf::Leaf;\npub struct Tag;\n")
        self.assert_found(("crates/cache/src/plan/inner/leaf.rs", 2, "a circle of 3 files across folders"))

        files = [f"crates/cache/src/plan/{name}.rs" for name in ("inner/leaf", "mod", "tag")]
        self.tree.write("docs/adr/0099-plans.md", "")
        allowed = replace(RULES, allowed_circles=[AllowedCircle(files, "docs/adr/0099-plans.md")])
        self.assert_found(rules=allowed)

    def test_an_allowed_circle_is_there_and_has_a_record(self) -> None:
        self.plant()
        rules = replace(RULES, allowed_circles=[AllowedCircle(["a.rs", "b.rs"], "docs/adr/0099-plans.md")])
        self.assert_found(("rules.toml", 1, "not there"), ("rules.toml", 1, "not there"), rules=rules)

    def test_of_rooms(self) -> None:
        self.tree.crate("cache", "mod clock;\nmod report;\n")
        self.tree.write("crates/cache/src/clock/mod.rs", "mod a;\npub mod b;\n")
        self.tree.write("crates/cache/src/clock/a.rs", "use crate::report::Report;\n")
        self.tree.write("crates/cache/src/clock/b.rs", "pub struct Step;\n")
        self.tree.write("crates/cache/src/report.rs", "pub struct Report(crate::clock::b::Step);\n")
        expected = "a circle of rooms: cache::clock -> cache::report -> cache::clock"
        self.assert_found(("crates/cache/src/clock/a.rs", 1, expected))

    def test_tests_may_know_everything(self) -> None:
        self.plant()
        self.tree.write(
            "crates/cache/src/plan/inner/leaf.rs",
            "pub struct Leaf;\n#[cfg(test)]\nmod tests {\n    use crate::plan::Plan;\n}\n#[cfg(test)]\nmod goldens;\n",
        )
        self.tree.write("crates/cache/src/plan/inner/leaf/goldens.rs", "use crate::plan::Plan;\n")
        self.tree.write("crates/cache/src/plan/tag.rs", "use super::inner::leaf::Leaf;\npub struct Tag;\n")
        self.assert_found()

    def test_components(self) -> None:
        targets = graph([(1, 2), (2, 3), (3, 1), (3, 4), (4, 5), (5, 4), (0, 1)])
        self.assertEqual(sorted(map(sorted, circles(targets))), [[1, 2, 3], [4, 5]])


class Sizes(StructureTest):
    def test_a_long_file(self) -> None:
        tests = "#[cfg(test)]\nmod tests {\n" + "    // x\n" * 300 + "}\n"
        self.tree.crate("kernels", "mod long;\nmod tested;\n")
        self.tree.write("crates/kernels/src/tested.rs", "// x\n" * 400 + tests)
        self.tree.write("crates/kernels/src/long.rs", "// x\n" * 401 + tests)
        self.assert_found(("crates/kernels/src/long.rs", 1, "the file has 401 lines without tests; 400 are the limit"))

    def test_a_long_function(self) -> None:
        def function(name: str, lines: int) -> str:
            return f"\nfn {name}<A, B>(a: A) -> Map<A, B>\nwhere\n    A: B,\n{{\n" + "    x();\n" * (lines - 5) + "}\n"

        macro = "macro_rules! listed {\n" + "    () => {};\n" * 60 + "}\n"
        self.tree.crate("kernels", function("short", 60) + function("long", 61) + macro)
        long = ("crates/kernels/src/lib.rs", 63, "long has 61 lines; 60 are the limit")
        self.assert_found(long, ("crates/kernels/src/lib.rs", 124, "listed has 62 lines"))

    def test_a_vague_error(self) -> None:
        error = 'enum RunnerError {\n    // Model(String) was here\n    #[error("{0}")]\n    Model(String),\n}\n'
        self.tree.crate("runner", error)
        self.assert_found(("crates/runner/src/lib.rs", 4, "the error variant Model(String) only carries text"))


class KnownFaults(StructureTest):
    def test_what_is_known_and_what_is_mended(self) -> None:
        self.tree.crate("runner", "enum Error {\n    Model(String),\n}\n")
        path = "crates/runner/src/lib.rs"
        known = Known(path, "variant Model(String)", "kinds with sources")
        findings = self.tree.findings()
        self.assertEqual(without_known(findings, replace(RULES, known=[known])), [])
        mended = Known(path, "long file", "")
        wrong = without_known(findings, replace(RULES, known=[known, mended]))
        self.assertEqual([one.text for one in wrong], ["rules.toml knows `long file`, which is mended: take it out"])


class StaleRules(StructureTest):
    def test_names_that_are_gone(self) -> None:
        self.tree.write("Cargo.toml", '[workspace.dependencies]\naxum = "1"\n')
        self.tree.crate("cache", f"mod plan;\n{RULES.handlers.mark})]\n")
        self.tree.write("crates/cache/src/plan.rs", "")
        good = Arrow(never=["cache::*"], why="", sources=["cache::plan"], except_=["crates/cache/src/plan.rs"])
        bad = Arrow(never=["cache::method/"], why="", sources=["cache::plan"], but=["x"], except_=["a.rs"])
        packages = [Packages("cache", "", ["axum", "axuum"]), Packages("cash", "", only=["axum"])]
        handlers = replace(RULES.handlers, room="cache::plan")
        rules = replace(RULES, arrows=[good, bad], packages=packages, paths=[], handlers=handlers)
        expected = ["cache::method/", "x", "a.rs", "axuum", "cash"]
        self.assertEqual(list(missing(Workspace(self.tree.folder), rules)), expected)


class Sources(unittest.TestCase):
    def test_what_is_not_code(self) -> None:
        source = RustSource(
            '// use a::b;\n/* use a::c; */\nconst A: &str = "use a::d; // \\" {";\nconst B: &str = r#"use "a::e;"#;\n'
            "fn f<'a>(x: &'a str) -> char { '{' }\npub(in crate::x) fn g() {}\nuse a::{b as c, d::{self, *}};\n"
        )
        found = [(one.path_with_star, one.name) for one in source.imports]
        self.assertEqual(found, [(("a", "b"), "c"), (("a", "d"), "d"), (("a", "d", "*"), "*")])
        self.assertEqual(source.paths, [])
        self.assertEqual([one.name for one in source.functions()], ["f", "g"])

    def test_what_is_a_test(self) -> None:
        source = RustSource("#[cfg(test)]\nuse a::b;\n#[cfg(test)]\n#[derive(X)]\nstruct C { d: e::F }\nuse g::h;\n")
        self.assertEqual([one.path for one in source.imports], [("g", "h")])
        self.assertEqual((source.paths, source.production_lines), ([], 1))


class Pictures(StructureTest):
    def test_what_is_drawn(self) -> None:
        self.tree.crate("runner", "mod engine;\nmod request;\n")
        self.tree.write("crates/runner/src/engine.rs", "use crate::request::Job;\nuse afterimage_cache::plan::Plan;\n")
        self.tree.write("crates/runner/src/request.rs", "pub struct Job;\n")
        self.tree.crate("cache", "pub mod plan;\n")
        self.tree.write("crates/cache/src/plan.rs", "pub struct Plan;\n")
        drawn = picture(Workspace(self.tree.folder), RULES)
        self.assertEqual(drawn, picture(Workspace(self.tree.folder), RULES))
        svg = ElementTree.fromstring(drawn)
        texts = [one.text for one in svg.iter("{http://www.w3.org/2000/svg}text")]
        self.assertEqual(texts[:5], ["runner", "engine", "cache", "request", "cache"])
        self.assertEqual(drawn.count('class="arrow"'), 2)
        self.assertNotIn('class="ring"', drawn)
        self.tree.write("crates/runner/src/request.rs", "pub struct Job(super::engine::Id);\n")
        self.assertIn('class="ring"', picture(Workspace(self.tree.folder), RULES))


class Pages(StructureTest):
    def test_names_that_are_nowhere(self) -> None:
        self.tree.crate("cache", "pub mod plan;\n")
        self.tree.write(
            "crates/cache/src/plan.rs", '// Gone\npub struct Plan;\nfn of() -> Theirs { one::<Kept>("key") }\n'
        )
        good = "`cache::plan` has `Plan`, `key`, `crates/cache`, `plan.rs`, `src/plan.rs`, `Plan::of(x)`, `QMatMul`\n"
        bad = ["cache::plans", "Plane", "cache_dit", "crates/x", "old.rs", "Plan::off", "Gone"]
        pages = [f"docs/{name}.md" for name in ("architecture", "adding-a-model", "adr/0001-x")]
        for page in pages:
            self.tree.write(page, good + ", ".join(f"`{name}`" for name in bad))
        rules = replace(RULES, foreign_names=["QMatMul", "Unsaid"])
        found = list(unknown_names(Workspace(self.tree.folder), rules))
        expected = [(page, 2, f"name {name}") for page in pages for name in bad]
        expected.append(("rules.toml", 1, "foreign name Unsaid"))
        self.assertEqual([(one.path, one.line, one.fault) for one in found], expected)


class Layouts(unittest.TestCase):
    def test_boxes_beside_and_below_each_other(self) -> None:
        boxes = {name: Box(60, 20 + 5 * at) for at, name in enumerate("abcdefgh")}
        arrows = {("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("a", "d"), ("e", "h"), ("d", "h"), ("f", "h")}
        layout = arranged(boxes, arrows, 260, 10, 30)
        placed = sorted(layout.boxes.values(), key=lambda box: (box.y, box.x))
        for left, right in zip(placed, placed[1:], strict=False):
            if left.y == right.y:
                self.assertGreaterEqual(right.x - left.x, (left.width + right.width) / 2)
            else:
                self.assertGreaterEqual(right.y, left.y + left.row_height + 30)
        self.assertTrue(all(box.x - box.width / 2 >= 0 and box.x + box.width / 2 <= 260 for box in placed))
        for source, target in arrows:
            self.assertLess(layout.boxes[source].y, layout.boxes[target].y)

    def test_what_is_left_out_and_turned(self) -> None:
        self.assertEqual(without_implied({("a", "b"), ("b", "c"), ("a", "c")}), {("a", "b"), ("b", "c")})
        both = {("a", "b"): Direction.BOTH, ("b", "c"): Direction.DOWN}
        self.assertEqual(downward({("a", "b"), ("b", "a"), ("b", "c")}), both)
        self.assertEqual(list(downward({("a", "b"), ("b", "c"), ("c", "a")}).values()).count(Direction.UP), 1)


if __name__ == "__main__":
    unittest.main()
