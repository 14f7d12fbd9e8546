"""Style and script of the page that page.py writes.

The script takes all values from the page's tables. It shows them on hover and focus,
and filters the videos.
"""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fff; --ink: #1b1f24; --soft: #59626d; --line: #d5dae0; --track: #f2f4f7;
  --lane0: #1f5fbf; --lane1: #a84b00; --lane2: #00705f; --lane3: #7a3fa5;
  --lane: 1.5rem;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171b; --ink: #e8ebef; --soft: #a3adb8; --line: #3b434d; --track: #1e2329;
    --lane0: #79b0ff; --lane1: #ffab66; --lane2: #5fd3bb; --lane3: #cfa0ff;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 80rem; padding: 1rem; overflow-wrap: anywhere;
  background: var(--page); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif;
}
h1, h2 { line-height: 1.25; margin: 0; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1.2rem; }
p { margin: .25rem 0; max-width: 45rem; }
a { color: var(--lane0); }
ul { display: flex; flex-wrap: wrap; gap: .25rem .5rem; list-style: none; margin: 0;
  padding: 0; }
[hidden] { display: none !important; }
:focus-visible { outline: 3px solid var(--lane0); outline-offset: 2px; }
.note, small, header p, output { color: var(--soft); font-size: .875rem; }
nav { border-block: 1px solid var(--line); margin: 1rem 0; padding: .75rem 0; }
nav ul { column-gap: 1.5rem; max-height: 12rem; overflow: auto; }
input { font: inherit; margin-right: .5rem; }
section { margin: 1.5rem 0 3rem; }
.labels { align-items: baseline; display: flex; flex-wrap: wrap; gap: .25rem .5rem;
  margin: .25rem 0 1rem; }
.labels li, .name small { border: 1px solid var(--line); border-radius: .3rem;
  padding: 0 .4rem; }
.name small { color: var(--ink); font-size: .75rem; white-space: nowrap; }
.row { column-gap: .5rem; display: grid; margin: .5rem 0;
  grid-template: auto / minmax(8rem, 14rem) 7rem 1fr 2.5rem; }
.name { line-height: 1.3; }
.lanes, .values { display: flex; flex-direction: column; font-size: .8rem; }
.lanes span, .values span { height: var(--lane); line-height: var(--lane);
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.lanes { text-align: right; }
.values { font-variant-numeric: tabular-nums; }
.strip { grid-column: 3; position: relative; }
.row:not(.axis) .strip { background: var(--track); cursor: crosshair;
  height: calc(var(--lanes) * var(--lane)); touch-action: pan-y; }
.film { display: flex; grid-column: 3; min-width: 0; }
.film img { flex: 1 1 0; min-width: 0; object-fit: cover; }
svg { display: block; height: 100%; width: 100%; }
svg path { vector-effect: non-scaling-stroke; }
.grid, .rating { shape-rendering: crispEdges; }
.grid { stroke: var(--line); }
.lane0 { color: var(--lane0); }
.lane1 { color: var(--lane1); }
.lane2 { color: var(--lane2); }
.lane3 { color: var(--lane3); }
svg [class^=lane] { fill: currentColor; }
/* A frame is seen even if it is narrower than a pixel. */
.strip:not([data-window]) [class^=lane] { stroke: currentColor; }
.rating { fill: var(--ink); stroke: var(--ink); }
.cursor { border: 1px solid var(--ink); inset-block: 0; min-width: 3px;
  position: absolute; }
.axis { color: var(--soft); font-size: .8rem; margin: 0; }
.axis .strip { font-variant-numeric: tabular-nums; height: 1.25rem; }
.axis .strip span { position: absolute; transform: translateX(-50%);
  white-space: nowrap; }
.axis .strip span:first-child { transform: none; }
#tip { background: var(--ink); border-radius: .3rem; color: var(--page);
  font-size: .875rem; left: 0; max-width: min(20rem, 90vw); padding: .4rem .6rem;
  pointer-events: none; position: absolute; top: 0; white-space: pre-line; z-index: 1; }
.scroll { font-size: .8rem; max-height: 24rem; overflow: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .1rem .5rem; text-align: right; white-space: nowrap; }
th { background: var(--page); font-weight: 600; left: 0; position: sticky; }
[scope=rowgroup] { text-align: left; }
[scope=row] { max-width: 8rem; overflow: hidden; text-overflow: ellipsis; }
thead th:not(:first-child) { position: static; }
@media (max-width: 45rem) {
  .row { grid-template: auto / 3.75rem 1fr 2rem; }
  .row:not(.axis) .name { grid-column: 1 / -1; }
  .strip, .film { grid-column: 2; }
}
"""

SCRIPT = """
'use strict';
const tip = document.getElementById('tip');
const cursor = document.createElement('span');
cursor.className = 'cursor';

function hide() {
  tip.hidden = true;
  cursor.remove();
}

for (const section of document.querySelectorAll('section')) {
  const times = [...section.querySelectorAll('thead th')].slice(1);
  const bodies = section.querySelectorAll('tbody');
  section.querySelectorAll('[data-window]').forEach((strip, index) => {
    const [name, ...rows] = bodies[index].rows;
    const seconds = strip.querySelector('svg').viewBox.baseVal.width;
    const windows = times.map(time => time.textContent.match(/[\\d.e+]+/g).map(Number));

    const choose = chosen => {
      strip.dataset.window = chosen;
      const values = rows
        .map(({cells}) => [cells[0].textContent, cells[chosen + 1].textContent])
        .filter(([, value]) => value)
        .map(pair => pair.join(': '));
      const time = times[chosen].textContent;
      strip.setAttribute('aria-valuenow', chosen);
      strip.setAttribute('aria-valuetext', `${time}: ${values.join('; ')}`);
      return [name.textContent, time, ...values];
    };
    const show = chosen => {
      tip.textContent = choose(chosen).join('\\n');
      tip.hidden = false;
      const [start, end] = windows[chosen];
      cursor.style.left = `${100 * start / seconds}%`;
      cursor.style.width = `${100 * (end - start) / seconds}%`;
      strip.append(cursor);
      const place = cursor.getBoundingClientRect();
      const room = document.documentElement.clientWidth - tip.offsetWidth;
      const below = place.bottom + 8;
      const fits = below + tip.offsetHeight < innerHeight;
      tip.style.left = `${scrollX + Math.max(0, Math.min(place.left, room))}px`;
      const top = fits ? below : place.top - 8 - tip.offsetHeight;
      tip.style.top = `${scrollY + top}px`;
    };
    const point = event => {
      const box = strip.getBoundingClientRect();
      const time = seconds * (event.clientX - box.left) / box.width;
      const chosen = windows.findIndex(([start, end]) => start <= time && time < end);
      if (chosen >= 0) show(chosen);
    };
    const keys = {
      ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1,
      PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity,
    };

    strip.tabIndex = 0;
    strip.setAttribute('role', 'slider');
    strip.setAttribute('aria-valuemin', 0);
    strip.setAttribute('aria-valuemax', windows.length - 1);
    choose(Number(strip.dataset.window));
    strip.addEventListener('focus', () => show(Number(strip.dataset.window)));
    strip.addEventListener('blur', hide);
    strip.addEventListener('pointermove', point);
    strip.addEventListener('pointerdown', point);
    strip.addEventListener('pointerleave', event => {
      if (event.pointerType === 'mouse') hide();  // A finger has to leave to see it.
    });
    strip.addEventListener('keydown', event => {
      if (!(event.key in keys)) return;
      event.preventDefault();
      const wanted = Number(strip.dataset.window) + keys[event.key];
      show(Math.max(0, Math.min(wanted, windows.length - 1)));
    });
  });
}
addEventListener('keydown', event => {
  if (event.key === 'Escape') hide();
});

const filter = document.getElementById('filter');
if (filter) {
  const links = document.querySelectorAll('nav li');
  const videos = [...document.querySelectorAll('section')].map((section, index) => ({
    parts: [section, links[index]],
    text: [...section.querySelectorAll('.id, .label, .class')]
      .map(element => element.textContent.toLowerCase()).join('\\n'),
  }));
  const input = filter.querySelector('input');
  const apply = () => {
    const words = input.value.toLowerCase().split(/\\s+/);
    let count = 0;
    for (const {parts, text} of videos) {
      const matches = words.every(word => text.includes(word));
      count += matches;
      for (const part of parts) part.hidden = !matches;
    }
    filter.querySelector('output').textContent = `${count} of ${videos.length} videos`;
    hide();
  };
  filter.hidden = false;
  input.addEventListener('input', apply);
  apply();
}
"""
