"""The page's style sheet and its one script: light and dark, from telephones to wide screens; nothing is loaded."""

LIGHT = ("#0072b2", "#d17a00", "#008f68", "#b3568a", "#3d8fc4", "#c24d00", "#7a6a00", "#5b5bb0", "#8a939c", "#b9c0c7")
DARK = ("#4aa8e0", "#f0a830", "#2fc496", "#e08abb", "#86c8f0", "#f08040", "#d0c040", "#a0a0f0", "#7d8790", "#56606a")
"""Fills of the kinds of layers, in order; the last two for other layers' rest."""


def _colours(fills: tuple[str, ...]) -> str:
    return "".join(f"--k{number}:{fill};" for number, fill in enumerate(fills))


_CLASSES = "".join(
    f".f{k}{{fill:var(--k{k})}}.b{k}{{background:var(--k{k})}}.s{k}{{stroke:var(--k{k})}}" for k in range(len(LIGHT))
)

# A scrolled box has a shade where it goes on, for where scroll bars are hidden: what is scrolled covers it at the ends.
CSS = (
    ":root{color-scheme:light dark;--page:#f4f6f8;--card:#fff;--text:#1b2733;--soft:#52606d;--edge:#d5dbe1;"
    f"--mark:#b3261e;--link:#0b62a8;--shade:#0004;{_colours(LIGHT)}}}"
    "@media(prefers-color-scheme:dark){:root{--page:#0d1117;--card:#161b22;--text:#e6edf3;--soft:#a5b1bd;"
    f"--edge:#30363d;--mark:#ff8a80;--link:#6cb6ff;--shade:#fff4;{_colours(DARK)}}}}}"
    """
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main,header{max-width:1240px;margin:0 auto;padding:0 20px}
header{padding-top:28px}
h1{font-size:26px;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:19px;margin:0 0 10px}
h3{font-size:15px;margin:0 0 6px;overflow-wrap:anywhere}
p{margin:6px 0;max-width:80ch}
.soft,figcaption,caption,summary{color:var(--soft)}
section{background:var(--card);border:1px solid var(--edge);border-radius:8px;padding:18px 20px;margin:18px 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,216px),1fr));gap:12px;
margin:16px 0 0;padding:0}
.tiles div{background:var(--card);border:1px solid var(--edge);border-radius:8px;padding:12px 14px}
.tiles dt{color:var(--soft);font-size:13px}
.tiles dd{margin:2px 0 0;font-size:15px;font-weight:600}
.tiles dd small{display:block;font-weight:400;font-size:13px;color:var(--soft)}
.warning{border-left:4px solid var(--mark);padding-left:10px}
.bars{display:grid;grid-template-columns:auto 1fr;gap:8px 12px;align-items:center;margin:8px 0 14px}
.bar{display:flex;height:26px;background:var(--page);border-radius:4px;overflow:hidden}
.bar span{border-right:1px solid var(--card)}
.swatch{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:8px;vertical-align:-1px}
.grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,340px),1fr));gap:18px}
figure{margin:0}figcaption{font-size:14px;margin-bottom:4px;overflow-wrap:anywhere}
svg.chart{width:100%;max-width:540px;height:auto;display:block}
.chart text{font:12px system-ui,sans-serif;fill:var(--text)}
.chart .tick{fill:var(--soft);font-size:11px}
.chart .grid{stroke:var(--edge)}
.chart .line{fill:none;stroke-width:1.5}
.chart polyline.line:not([class*=" s"]){stroke:var(--k0)}
.chart .dot{fill:var(--k0)}
.chart .guide{fill:none;stroke:var(--mark);stroke-dasharray:4 3}
.chart .chosen{fill:var(--mark);stroke:var(--card);stroke-width:2}
.chart .cut{stroke:var(--card);stroke-width:1.2}
.scroll{overflow-x:auto;max-width:100%;background:linear-gradient(to right,var(--card) 30%,transparent) left/48px 100%,
linear-gradient(to left,var(--card) 30%,transparent) right/48px 100%,
linear-gradient(to right,var(--shade),transparent) left/12px 100%,
linear-gradient(to left,var(--shade),transparent) right/12px 100%;background-repeat:no-repeat;
background-attachment:local,local,scroll,scroll}
.tn{display:block;margin:0 auto 0 0}
table{border-collapse:collapse;font-size:13.5px;min-width:100%}
caption{text-align:left;padding:0 0 6px;font-size:14px}
th,td{padding:4px 12px 4px 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--edge)}
thead th{white-space:nowrap}tbody th{font-weight:400}tbody th code{white-space:nowrap}
td:not(.number){white-space:nowrap}
.number{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.words{display:inline-block;min-width:380px;text-align:left;white-space:normal}
.networks{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,370px),1fr));gap:14px}
.network{border:1px solid var(--edge);border-radius:8px;padding:12px 14px;min-width:0;font-size:13.5px}
ol{margin:6px 0;padding-left:24px;font-size:13.5px}
ul{margin:4px 0 10px;padding-left:20px}
code,pre{font:12.5px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
pre{background:var(--page);border:1px solid var(--edge);border-radius:6px;padding:12px;overflow:auto;max-height:320px;
white-space:pre}
details{margin:8px 0}summary{cursor:pointer}
button{font:inherit;padding:4px 12px;border:1px solid var(--edge);border-radius:6px;background:var(--page);
color:var(--link);cursor:pointer}
footer{max-width:1240px;margin:0 auto;padding:4px 20px 28px;color:var(--soft);font-size:13px}
:focus-visible{outline:2px solid var(--link);outline-offset:2px}
@media(max-width:520px){main,header,footer{padding-left:12px;padding-right:12px}section{padding:14px 12px}
.bars{grid-template-columns:1fr;gap:2px}thead th,tbody th code{white-space:normal}tbody th{min-width:120px}
th,td{padding-right:8px}.bar{margin-bottom:6px}h1{font-size:22px}}
@media print{pre{max-height:none;white-space:pre-wrap}section{break-inside:avoid}}
""" + _CLASSES
)

# The button is there only where it works; without it the text can be selected.
SCRIPT = """
const recipe = document.getElementById("recipe");
if (recipe && navigator.clipboard) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy the recipe";
  button.onclick = () => navigator.clipboard.writeText(recipe.textContent)
    .then(() => { button.textContent = "Copied"; }, () => { button.textContent = "Select it and copy by hand"; });
  recipe.before(button);
}
"""
