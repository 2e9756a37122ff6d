"""Parts of the page: tables, figures, lists. Every text in them is escaped."""

from collections.abc import Sequence
from html import escape


def figure(svg: str, caption: str) -> str:
    """A plot; ``caption`` is for who cannot see it."""
    return f'<figure role="img" tabindex="0" aria-label="{escape(caption)}">{svg}</figure>'


def abreast(figures: Sequence[str]) -> str:
    """Narrow plots, as many side by side as there is room for."""
    return f'<div class="plots">{"".join(figures)}</div>' if figures else ""


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, css: str = "wide", numbers: bool = False
) -> str:
    """A table that scrolls by itself where it is too wide; with ``numbers`` all columns but the first are to the right."""
    shape = ' class="n"' if numbers else ""
    top = "".join(
        f'<th scope="col"{shape if column else ""}>{escape(name)}</th>' for column, name in enumerate(head)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{shape if column else ''}>{escape(str(cell))}</td>" for column, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f'<div class="{css}" tabindex="0"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def bullets(items: Sequence[str], *, code: bool = False) -> str:
    """A list, of commands with ``code``."""
    shape = (lambda text: f"<code>{text}</code>") if code else (lambda text: text)
    return (
        "<ul>" + "".join(f"<li>{shape(escape(item))}</li>" for item in items) + "</ul>"
        if items
        else "<p>None.</p>"
    )


def details(summary: str, content: str) -> str:
    """What is shown when it is asked for; ``content`` is HTML."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"
