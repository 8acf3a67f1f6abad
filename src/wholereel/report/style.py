"""The style sheet of every page: calm, legible, light and dark, with a print form."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#ffffff;--ink:#1d2733;--muted:#5f6b7a;--rule:#dfe4ea;
--s1:#2f6fb7;--s2:#d06a24;--s3:#2f9070;--s4:#8c5fb0;--s5:#b58a1f;--s6:#6b7a8c}
@media (prefers-color-scheme:dark){:root{--page:#12161b;--card:#1a2027;--ink:#e6eaef;--muted:#9aa6b4;--rule:#2d3640;
--s1:#5b9be0;--s2:#e58a4a;--s3:#4fb892;--s4:#b08ad2;--s5:#d3ab4a;--s6:#93a1b1}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,Helvetica,Arial,sans-serif}
main{max-width:880px;margin:0 auto;padding:40px 24px 56px}
header{margin:0 0 28px}
h1{font-size:30px;line-height:1.2;margin:0 0 8px;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:19px;margin:0 0 12px}
p{margin:0 0 12px;max-width:70ch}
.lead{color:var(--muted);font-size:17px}
section{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:24px 28px;margin:0 0 20px}
section>:last-child{margin-bottom:0}
figure{margin:0 0 18px}
figcaption,caption{color:var(--muted);font-size:13.5px;line-height:1.45;text-align:left}
figcaption{margin-top:6px}
caption{padding-bottom:6px}
.note{border-left:3px solid var(--s2);padding:2px 0 2px 12px;color:var(--muted)}
.scroll{overflow-x:auto;margin:0 0 14px}
table{border-collapse:collapse;width:100%;font-size:14.5px}
th,td{text-align:left;padding:7px 14px 7px 0;border-bottom:1px solid var(--rule);vertical-align:top}
th{font-weight:600;color:var(--muted);font-size:13px}
tr:last-child td{border-bottom:0}
.short{white-space:nowrap}
.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.cards{display:flex;flex-wrap:wrap;gap:14px;margin:0 0 16px}
.cards>div{flex:1 1 150px;border:1px solid var(--rule);border-radius:8px;padding:12px 16px}
.cards b{display:block;font-size:26px;line-height:1.2;font-variant-numeric:tabular-nums}
.cards span{display:block;font-size:14px}
.cards small{color:var(--muted);font-size:12.5px}
pre{background:var(--page);border:1px solid var(--rule);border-radius:8px;padding:12px 14px;margin:0 0 14px;
overflow-x:auto;
font:13.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
img{display:block;max-width:100%;height:auto;border-radius:5px}
.film{display:grid;grid-template-columns:repeat(auto-fill,minmax(84px,1fr));gap:10px;margin:0 0 14px}
.side{display:flex;flex-wrap:wrap;gap:16px}
.film figure{margin:0}
.film img{width:100%}
.film figcaption{font-size:12px;margin-top:4px;white-space:pre-line}
footer{color:var(--muted);font-size:13px;margin-top:26px}
@media (max-width:600px){main{padding:22px 12px}section{padding:18px 16px}}
@media print{:root{--page:#fff;--card:#fff;--ink:#000;--muted:#444;--rule:#bbb}body{font-size:11.5pt}
main{max-width:none;padding:0}
section{border:0;padding:0;margin:0 0 22px}figure,table,.cards,pre{break-inside:avoid}h2{break-after:avoid}
pre{white-space:pre-wrap}}
"""
