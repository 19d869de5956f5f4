"""The style of the page: light and dark as the reader's system has it, and for paper."""

from __future__ import annotations

from typing import Final

CSS: Final = """
:root{--bg:#fff;--fg:#1b2530;--dim:#586574;--rule:#d9dfe6;--card:#f5f7fa;--equity:#1f5fa8;--held:#8a6d1d;--fall:#b3362b;--price:#46536a;
--entry:#11734b;--exit:#b3362b;--expo:#6a4aa3;--up:17,115,75;--down:179,54,43}
@media (prefers-color-scheme:dark){:root{--bg:#12171d;--fg:#e4e9ef;--dim:#9aa7b5;--rule:#2c3641;--card:#1a2129;--equity:#6fb0f5;--held:#d9b64c;
--fall:#f0847a;--price:#a9b7c9;--entry:#4fce98;--exit:#f0847a;--expo:#b79af0;--up:79,206,152;--down:240,132,122}}
@media print{:root{--bg:#fff;--fg:#000;--dim:#444;--rule:#bbb;--card:#fff;--equity:#1f5fa8;--held:#8a6d1d;--fall:#b3362b;--price:#46536a;
--entry:#11734b;--exit:#b3362b;--expo:#6a4aa3;--up:17,115,75;--down:179,54,43}
body{max-width:none;padding:0;font-size:10pt}section{break-inside:avoid}section.long{break-inside:auto}nav{display:none}details>*{display:block}
.scroll{overflow:visible}tr{break-inside:avoid}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
*{box-sizing:border-box}
html{background:var(--bg)}
body{margin:0 auto;max-width:1000px;padding:28px 20px 60px;color:var(--fg);font:15px/1.5 system-ui,"DejaVu Sans",sans-serif;overflow-wrap:anywhere}
h1{font-size:24px;line-height:1.25;margin:0 0 4px}h2{font-size:17px;margin:36px 0 8px}h3{font-size:14px;margin:18px 0 4px}
p{margin:4px 0 10px}.dim,small,figcaption{color:var(--dim);font-size:13px}a{color:var(--equity)}
nav a{margin-right:14px;font-size:13px}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(138px,1fr));gap:10px;margin:18px 0 4px;padding:0}
.card{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:9px 12px;margin:0}
.card dt{color:var(--dim);font-size:12px}.card dd{margin:0;font-size:19px;font-weight:600;font-variant-numeric:tabular-nums;white-space:nowrap}
.loss{color:var(--fall)}.gain{color:var(--entry)}
figure{margin:6px 0 0}svg{display:block;width:100%;height:auto}
svg text{fill:var(--dim);font:11px system-ui,"DejaVu Sans",sans-serif}svg .y{text-anchor:end}svg .x{text-anchor:middle}svg .last{text-anchor:end}
.grid{stroke:var(--rule);stroke-width:1;fill:none}.axis{stroke:var(--dim);stroke-width:1;fill:none}
.line{fill:none;stroke-width:1.4;stroke-linejoin:round}.area{stroke:none;fill-opacity:.18}.mark{fill-opacity:.9;stroke:var(--bg);stroke-width:.6}
.equity.line{stroke:var(--equity)}.equity.dot{fill:var(--equity)}.held.line{stroke:var(--held);stroke-dasharray:4 3}.held.dot{fill:var(--held)}
.fall.line{stroke:var(--fall)}.fall.area,.fall.dot{fill:var(--fall)}.price.line{stroke:var(--price);stroke-width:1.1}.price.dot{fill:var(--price)}
.expo.line{stroke:var(--expo)}.expo.area,.expo.dot{fill:var(--expo)}.entry{fill:var(--entry)}.exit{fill:var(--exit)}
.key span{margin-right:16px;white-space:nowrap}.key i{display:inline-block;width:18px;height:0;border-top:2px solid;vertical-align:4px;margin-right:5px}
.key b{font-weight:400;margin-right:5px}
i.equity{border-color:var(--equity)}i.held{border-color:var(--held);border-top-style:dashed}b.entry{color:var(--entry)}b.exit{color:var(--exit)}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:4px 10px 4px 0;border-bottom:1px solid var(--rule);vertical-align:top}
th{color:var(--dim);font-weight:600}thead th{white-space:nowrap}.names th{white-space:nowrap}td.n,th.n{text-align:right;white-space:nowrap}td.w{white-space:nowrap}
.trades td,.trades th{padding:3px 6px 3px 0;font-size:11px}
.heat th,.heat td{text-align:right;padding:4px 6px;white-space:nowrap}.heat th:first-child{text-align:left}
.empty{background:var(--card);border:1px dashed var(--rule);border-radius:8px;padding:14px;color:var(--dim)}
code{font:12px ui-monospace,"DejaVu Sans Mono",monospace}
"""
