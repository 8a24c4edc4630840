"""HTML of the report: one self-contained page, for narrow windows and screen readers, too."""

import base64
import html
from collections.abc import Iterable, Sequence

WIDE = """
.wide{overflow-x:auto;background:
linear-gradient(to right,#fff 40%,#fff0) 0 0/36px 100% local no-repeat,
linear-gradient(to left,#fff 40%,#fff0) 100% 0/36px 100% local no-repeat,
linear-gradient(to right,#0006,#0000) 0 0/14px 100% scroll no-repeat,
linear-gradient(to left,#0006,#0000) 100% 0/14px 100% scroll no-repeat}
caption{text-align:left;color:#555;padding-bottom:.3rem}
caption span{display:block;position:sticky;left:0;width:fit-content;max-width:min(92vw,60rem)}
.row{display:flex;flex-wrap:wrap;gap:.6rem}
"""
"""CSS of elements that may be wider than the window: a shadow at the side shows that there is more."""

_STYLE = f"""{WIDE}
:root{{color-scheme:light}}
body{{font:16px/1.5 system-ui,sans-serif;color:#222;background:#fff}}
body{{max-width:1100px;margin:0 auto;padding:1rem}}
h1{{font-size:1.5rem;line-height:1.25;overflow-wrap:anywhere}}
h2{{font-size:1.2rem;margin:2rem 0 .5rem;border-bottom:2px solid #ddd}}
h3{{font-size:1rem;margin:1.2rem 0 .3rem;overflow-wrap:anywhere}}
nav ul{{display:flex;flex-wrap:wrap;gap:.2rem 1rem;list-style:none;padding:0}}
.wide{{margin:.5rem 0 1rem}}
table{{border-collapse:collapse;font-size:.92rem}}
td,th{{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #ddd;vertical-align:top}}
th[scope=row],.text,thead th:first-child{{text-align:left}}
th button{{all:unset;cursor:pointer}}
th button:focus-visible{{outline:2px solid #06c}}
th[aria-sort=ascending] button::after{{content:" ▲"}}
th[aria-sort=descending] button::after{{content:" ▼"}}
.note{{display:inline-block;white-space:normal;text-align:left;min-width:12rem}}
.wide figure,.wide figure img{{max-width:none;mix-blend-mode:multiply}}
td{{white-space:nowrap}}
th[scope=row]{{overflow-wrap:anywhere;min-width:8rem}}
td.text{{overflow-wrap:anywhere;white-space:normal;min-width:6rem}}
figure{{margin:0 0 .6rem;max-width:100%}}
figcaption{{font-size:.85rem;color:#555}}
.row figure.pane{{flex:1 1 160px;max-width:250px}}
.pane img{{width:100%;max-height:280px;object-fit:contain;object-position:left}}
img{{max-width:100%;height:auto;display:block}}
pre{{background:#f5f5f5;padding:.8rem;overflow:auto;font-size:.8rem}}
summary{{cursor:pointer}}
.key{{display:inline-block;width:.9em;height:.9em;margin-right:.4em}}
.key{{border:1px solid #888;vertical-align:-.1em}}
.class{{white-space:nowrap}}
.keys{{display:flex;flex-wrap:wrap;gap:.2rem 1rem;padding:0;list-style:none}}"""


class Markup(str):
    """Text that is HTML already, and is not escaped."""

    __slots__ = ()


def text(value: object) -> str:
    """Return a value as HTML."""
    return value if isinstance(value, Markup) else html.escape(str(value))


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]], *, words: bool = False) -> str:
    """Return a table whose first column names the rows.

    Args:
        caption: caption of the table.
        head: names of the columns.
        rows: cells of each row.
        words: whether the cells are text, not numbers.
    """
    css_class = ' class="text"' if words else ""
    header = "".join(f'<th scope="col"{css_class}>{text(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{text(first)}</th>'
        + "".join(f"<td{css_class}>{text(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{html.escape(caption)}">'
        f"<table><caption><span>{text(caption)}</span></caption><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def image(file: bytes, alt: str, caption: object = "", css_class: str = "") -> str:
    """Return an image with a description in words.

    Args:
        file: the content of a PNG or JPEG file.
        alt: what the image shows, for readers who don't see it.
        caption: caption below the image.
        css_class: "pane" for one of several images side by side.
    """
    data = base64.b64encode(file).decode()
    mime = "image/png" if file.startswith(b"\x89PNG") else "image/jpeg"
    figcaption = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    attribute = f' class="{css_class}"' if css_class else ""
    img = f'<img alt="{html.escape(alt)}" src="data:{mime};base64,{data}">'
    return f"<figure{attribute}>{img}{figcaption}</figure>"


def row(parts: Iterable[str]) -> str:
    """Return parts side by side, or below each other in a narrow window."""
    return f'<div class="row">{"".join(parts)}</div>'


def paragraph(content: object) -> str:
    """Return a paragraph."""
    return f"<p>{text(content)}</p>"


def details(title: str, content: str) -> str:
    """Return a long text that is shown on a click."""
    return f"<details><summary>{text(title)}</summary><pre>{text(content)}</pre></details>"


def legend_entry(color: Sequence[int], name: str) -> Markup:
    """Return a class name with its colour."""
    hex_code = "#{:02x}{:02x}{:02x}".format(*color)
    swatch = f'<span class="key" style="background:{hex_code}"></span>'
    return Markup(f'<span class="class">{swatch}{html.escape(name)}</span>')


def legend(colors: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """Return all classes with their colours."""
    entries = "".join(
        f"<li>{legend_entry(color, name)}</li>" for color, name in zip(colors, names, strict=True)
    )
    return f'<ul class="keys" aria-label="classes and their colours">{entries}</ul>'


def render_page(title: str, lead: str, sections: Sequence[tuple[str, str]]) -> str:
    """Return the whole page.

    Args:
        title: title of the page.
        lead: HTML of the introduction.
        sections: title and HTML of each section; those without content are omitted.
    """
    non_empty = [(name, content, name.lower().replace(" ", "-")) for name, content in sections if content]
    links = "".join(f'<li><a href="#{anchor}">{text(name)}</a></li>' for name, _, anchor in non_empty)
    body = "".join(
        f'<section id="{anchor}"><h2>{text(name)}</h2>{content}</section>'
        for name, content, anchor in non_empty
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{text(title)}</title><style>{_STYLE}</style></head><body><main><h1>{text(title)}</h1>{lead}"
        f'<nav aria-label="sections"><ul>{links}</ul></nav>{body}</main></body></html>'
    )
