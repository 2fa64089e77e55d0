#pragma once
// The style sheet of the report: light and dark by the reader's preference, one column on a phone.

namespace kindred::quickstart {

inline constexpr const char* style_sheet = R"css(
:root {
  color-scheme: light dark;
  --paper: #fbfaf7; --card: #ffffff; --ink: #1d2129; --soft: #5d6675; --edge: #e3e0d8;
  --one: #1f5fc4; --two: #b3541e; --three: #5b7f2b;
  --hit: #0b7a5b; --miss: #c2410c; --wash: #eef3fc;
  --picture: invert(1);
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14161b; --card: #1c1f26; --ink: #e8e6e1; --soft: #9aa3b2; --edge: #2e323c;
    --one: #7fb0ff; --two: #f0a06a; --three: #a9cf78;
    --hit: #3ecf9f; --miss: #ff8a57; --wash: #202a3d;
    --picture: none;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 68rem; padding: 2.5rem 1.25rem 4rem;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
h1 { font-size: clamp(1.7rem, 5vw, 2.5rem); line-height: 1.15; margin: 0 0 .6rem;
     letter-spacing: -.02em; text-wrap: balance; }
h2 { font-size: 1.25rem; margin: 3rem 0 .4rem; letter-spacing: -.01em; }
p { max-width: 46rem; margin: .4rem 0 1rem; }
.lead { font-size: 1.08rem; color: var(--soft); }
.note { color: var(--soft); font-size: .9rem; }
.cards { display: grid; gap: .75rem; margin: 1.75rem 0 0;
         grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); }
.card { background: var(--card); border: 1px solid var(--edge); border-radius: .75rem;
        padding: .85rem 1rem; }
.card b { display: block; font-size: clamp(1.35rem, 6vw, 1.75rem);
          white-space: nowrap; line-height: 1.2; font-weight: 650;
          font-variant-numeric: tabular-nums; letter-spacing: -.02em; }
.card span { color: var(--soft); font-size: .85rem; }
.card.main { background: var(--wash); border-color: var(--one); }
.card.main b { color: var(--one); }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--edge);
          border-radius: .75rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .6rem .9rem; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--card); }
thead th { color: var(--soft); font-weight: 500; font-size: .85rem; }
tbody tr { border-top: 1px solid var(--edge); }
tbody th { font-weight: 500; }
td.best { font-weight: 700; color: var(--one); }
.charts { display: grid; gap: 1rem;
          grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); }
.chart { margin: 0; background: var(--card); border: 1px solid var(--edge);
         border-radius: .75rem; padding: .9rem 1rem .6rem;
         display: flex; flex-direction: column; }
.chart > svg { display: block; width: 100%; height: auto; margin-top: auto; }
figcaption { display: flex; flex-wrap: wrap; gap: .2rem 1rem; justify-content: space-between;
             font-weight: 600; font-size: .95rem; margin-bottom: .5rem; }
.legend { display: flex; flex-wrap: wrap; gap: 0 .9rem; font-weight: 400; font-size: .82rem;
          color: var(--soft); }
.key { display: inline-flex; align-items: center; gap: .35rem; }
.key svg { width: 22px; height: 8px; }
svg text { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--edge); stroke-width: 1; }
svg polyline { fill: none; stroke-linejoin: round; stroke-linecap: round; }
.line-1 { stroke: var(--one); stroke-width: 2.4; }
.line-2 { stroke: var(--two); stroke-width: 2; }
.line-3 { stroke: var(--three); stroke-width: 2; }
.faint { stroke: var(--one); stroke-width: 1; opacity: .28; }
.dashed { stroke-dasharray: 5 4; stroke-width: 1.6; }
svg circle { stroke: var(--card); stroke-width: 1.5; }
circle.line-1 { fill: var(--one); } circle.line-2 { fill: var(--two); }
circle.line-3 { fill: var(--three); }
.rankings { display: grid; gap: .75rem; }
.ranking { display: grid; grid-template-columns: 5.6rem 1fr; gap: .9rem; align-items: center;
           background: var(--card); border: 1px solid var(--edge); border-radius: .75rem;
           padding: .75rem .9rem; }
.query { text-align: center; font-size: .78rem; line-height: 1.35; color: var(--soft); }
.query b { color: var(--ink); font-weight: 600; }
.frame { display: block; aspect-ratio: 1; overflow: hidden; border-radius: .45rem;
         border: 3px solid var(--one); background: #fff padding-box; }
.frame img { display: block; width: 100%; height: 100%; object-fit: contain; }
.light-ink .frame img { filter: var(--picture); background: #000; }
.query .frame { width: 4.8rem; margin: 0 auto .4rem; }
.hits { display: grid; grid-template-columns: repeat(auto-fit, minmax(3.5rem, 4.1rem));
        gap: .55rem .5rem; margin: 0; padding: 0; list-style: none; }
.hits li { position: relative; text-align: center; font-size: .72rem; line-height: 1.3;
           color: var(--soft); font-variant-numeric: tabular-nums; }
.hits .frame { margin-bottom: .15rem; }
.hits .hit .frame { border-color: var(--hit); }
.hits .miss .frame { border-color: var(--miss); border-style: dashed; }
.hits i, .mark { display: inline-grid; place-items: center; width: 1.15rem; height: 1.15rem;
                 border-radius: 50%; color: var(--card); font: 700 .75rem/1 system-ui, sans-serif; }
.hits i { position: absolute; top: -.3rem; right: -.3rem; }
.hit i, .mark.hit { background: var(--hit); }
.miss i, .mark.miss { background: var(--miss); border-radius: .25rem; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr));
     gap: 0 1.5rem; margin: 0; }
dl div { display: flex; justify-content: space-between; gap: 1rem; padding: .4rem 0;
         border-bottom: 1px solid var(--edge); min-width: 0; }
dt { color: var(--soft); }
dd { margin: 0; text-align: right; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
footer { margin-top: 3rem; color: var(--soft); font-size: .85rem; }
@media (max-width: 34rem) {
  body { padding: 1.5rem .9rem 3rem; }
  svg text { font-size: 16px; }
  .ranking { grid-template-columns: 1fr; }
  .query { display: grid; grid-template-columns: auto 1fr; gap: 0 .9rem; text-align: left;
           align-items: center; }
  .query .frame { width: 3.8rem; margin: 0; grid-row: span 3; }
  .hits { grid-template-columns: repeat(auto-fill, minmax(3.3rem, 1fr)); }
}
)css";

}  // namespace kindred::quickstart
