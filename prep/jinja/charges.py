r"""
What prep.jinja.sandbox adds to the code that Jinja writes for a template: what counts its steps, and generation blocks.

    {% for m in messages %}            for l_1_m in l_0_messages:
    {{ m.content ~ "\n" }}                 environment.charge(3)
    {% endfor %}                           yield str(environment.written(environment.join_texts((l_1_m.content, "\n"))))

A mark is a text of no characters that is written where a generation block begins and ends. It survives as long as pieces are
not joined, so where it arrives is its place in what is written; in a macro or a set block it does not, and that is noticed.
"""

from collections.abc import Callable, Iterable
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension
from jinja2.parser import Parser


class Mark(str):
    """A place in what is written that is no character of it"""

    __slots__ = ()

    def __str__(self) -> str:
        return self


OPENS, CLOSES = Mark(), Mark()  # of a generation block, told apart by identity


class Generation(Extension):
    """{% generation %} ... {% endgeneration %}"""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        self.environment.has_generation = True  # type: ignore[attr-defined]
        opens, closes = (nodes.Output([nodes.EnvironmentAttribute(name)], lineno=line) for name in ("opens", "closes"))
        return nodes.Scope([opens, *body, closes], lineno=line)


class Counted(CodeGenerator):
    """Writes the code of a template, with what counts its steps"""

    def visit_ExprStmt(self, node: nodes.ExprStmt, frame: Frame) -> None:
        self.newline(node)
        self.write(f"environment.charge({node.node.value})")  # type: ignore[attr-defined]

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.join_texts((")
        for each in node.nodes:
            self.visit(each, frame)
            self.write(", ")
        self.write("))")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        self._made(super().visit_List, node, frame, node.items)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        self._made(super().visit_Tuple, node, frame, node.items if node.ctx == "load" else [])

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self._made(super().visit_Dict, node, frame, [item.value for item in node.items])

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        cuts = isinstance(node.arg, nodes.Slice)
        self.write("environment.cut(" if cuts else "(")
        super().visit_Getitem(node, frame)
        self.write(")")

    def _made(self, write: Callable[..., None], node: nodes.Node, frame: Frame, items: Iterable[nodes.Expr]) -> None:
        if all(isinstance(item, nodes.Const) for item in items):
            write(node, frame)
            return
        self.write("environment.made(")
        write(node, frame)
        self.write(")")


def add_charges(source: nodes.Template, environment: Any) -> None:
    """A charge in everything that may run more than once: what it writes of itself, and what is done"""
    for node in list(source.find_all((nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block))):
        data = sum(len(each.data) for each in node.find_all(nodes.TemplateData))
        cost = nodes.Const(1 + data // 4 + sum(1 for _ in node.find_all(nodes.Node)) // 16)
        charge = nodes.ExprStmt(cost, lineno=node.lineno, environment=environment)
        node.body.insert(0, charge)  # type: ignore[attr-defined]
        if isinstance(node, nodes.For) and node.test is not None:
            given = (node.test, "_counted", list[Any](), list[Any](), None, None)
            node.test = nodes.Filter(*given, lineno=node.lineno, environment=environment)
