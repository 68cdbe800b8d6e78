// What makes a report explorable: charts, switches of arms, tables to sort and filter, clips to hear. Without it the
// pictures, tables and players of the page are all there. `charts` is the bundle of vega.min.js.
"use strict";
{
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const make = (name, values = {}, ...children) => {
    const element = Object.assign(document.createElement(name), values);
    element.append(...children);
    return element;
  };

  // Clips: one player at a time, by the name of the clip.
  const players = new Map(all("[data-clip]").map((figure) => [figure.dataset.clip, figure.querySelector("audio")]));
  const hear = (name) => {
    const audio = players.get(name);
    if (!audio) return false;
    for (const other of players.values()) if (other !== audio) other.pause();
    if (audio.paused) audio.play();
    else audio.pause();
    return true;
  };

  // Tables: a button in every heading, a box to filter where there are many rows, a button by every row with a clip.
  const UNITS = { s: 1, min: 60, h: 3600 };
  const value = (cell) => {
    const words = cell.textContent.trim();
    const match = words.match(/^([+−-]?[\d,]*\.?\d+)\s*(s|min|h)?(?![\p{L}\d])/u);
    if (!match) return words === "–" ? null : words.toLowerCase();
    return parseFloat(match[1].replace("−", "-").replaceAll(",", "")) * (UNITS[match[2]] ?? 1);
  };
  const sort = (heading, column) => {
    const table = heading.closest("table"), body = table.tBodies[0];
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of all("th[aria-sort]", table)) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const compare = (a, b) => {
      if (a === null || b === null) return (a === null) - (b === null); // what is missing comes last, either way
      const order = typeof a === typeof b ? (a < b ? -1 : +(a > b)) : typeof a === "number" ? -1 : 1;
      return down ? -order : order;
    };
    const rows = [...body.rows].map((row) => [value(row.cells[column]), row]);
    body.append(...rows.sort((a, b) => compare(a[0], b[0])).map((pair) => pair[1]));
  };
  const FILTER_FROM = 9;
  for (const table of all("main table")) {
    const rows = [...table.tBodies[0].rows];
    if (rows.length < 2) continue;
    all("thead th", table).forEach((heading, column) => {
      const button = make("button", { type: "button", title: "sort" }, ...heading.childNodes);
      button.addEventListener("click", () => sort(heading, column));
      heading.append(button);
    });
    if (rows.length >= FILTER_FROM) {
      const box = make("input", { type: "search" }), count = make("output");
      box.addEventListener("input", () => {
        const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
        for (const row of rows) {
          const text = row.textContent.toLowerCase();
          row.classList.toggle("left-out", !words.every((word) => text.includes(word)));
        }
        show();
        count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
      });
      table.parentElement.before(make("div", { className: "tools" }, make("label", {}, "Filter rows: ", box), count));
    }
  }
  for (const row of all("[data-hear]")) {
    const name = row.dataset.hear;
    if (!players.has(name)) continue;
    const button = make("button", { type: "button", title: `play ${name}` }, "▶ play");
    button.addEventListener("click", () => hear(name));
    row.cells[0].append(" ", button);
  }

  // Arms: one switch for all tables and charts.
  const names = [...new Set(all("[data-arm]").map((row) => row.dataset.arm))];
  const boxes = names.map((name) => make("input", { type: "checkbox", checked: true, value: name }));
  const views = [];
  const chosen = () => boxes.filter((box) => box.checked).map((box) => box.value);
  const show = () => {
    const arms = chosen();
    for (const row of all("main tbody tr")) {
      row.hidden = row.classList.contains("left-out") || ("arm" in row.dataset && !arms.includes(row.dataset.arm));
    }
  };
  const redraw = (view) => {
    if ("arms" in view.getState().signals) view.signal("arms", chosen()).runAsync();
  };
  if (boxes.length > 1) {
    const labels = boxes.map((box) => make("label", {}, box, ` ${box.value}`));
    const set = make("fieldset", { className: "switch" }, make("legend", {}, "Arms shown"), ...labels);
    set.addEventListener("change", () => {
      show();
      views.forEach(redraw);
    });
    document.querySelector("nav").after(set);
  }

  // Charts: Vega-Lite from JSON, by the interpreter that needs no eval, in the colours of the page.
  const tip = make("div", { id: "tip", role: "status", hidden: true });
  document.body.append(tip);
  const point = (handler, event, item, content) => {
    tip.hidden = content === null || content === undefined;
    if (tip.hidden) return;
    const lines = typeof content === "object" ? Object.entries(content).map(([key, words]) => `${key}: ${words}`) : [content];
    tip.textContent = lines.join("\n");
    const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    const top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8);
    Object.assign(tip.style, { left: `${Math.max(0, left)}px`, top: `${Math.max(0, top)}px` });
  };
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const looks = () => {
    const text = { labelColor: colour("ink"), titleColor: colour("muted"), labelFontSize: 12, titleFontSize: 12 };
    const axis = { ...text, gridColor: colour("line"), domainColor: colour("line"), tickColor: colour("line") };
    const font = getComputedStyle(document.body).fontFamily;
    return { background: null, font, view: { stroke: null }, axis, legend: { ...text, symbolOpacity: 1 }, header: text, title: { color: colour("ink") } };
  };
  // Points with clips, by keyboard: arrows go to the nearest one that way, Enter plays it.
  const placed = (group, x = 0, y = 0) => group.items.flatMap((mark) => mark.items.flatMap((item) =>
    mark.marktype === "group" ? placed(item, x + (item.x ?? 0), y + (item.y ?? 0))
      : item.datum?.clip ? [{ item, x: x + item.x, y: y + item.y }] : []));
  const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const walk = (view, box) => {
    const all = () => placed({ items: [view.scenegraph().root] });
    if (!all().length) return;
    const ring = make("div", { className: "ring", hidden: true });
    box.append(ring);
    box.tabIndex = 0;
    let at = null;
    const nearest = (cost) => all().map((place) => [cost(place), place]).filter(([far]) => far > 0).sort((a, b) => a[0] - b[0])[0]?.[1];
    box.addEventListener("blur", () => { ring.hidden = tip.hidden = true; });
    box.addEventListener("keydown", (event) => {
      if (event.target !== box || !(event.key in WAYS || (event.key === "Enter" && at))) return;
      event.preventDefault();
      if (event.key === "Enter") return play(at.item);
      const [right, down] = WAYS[event.key];
      const here = at ? all().find((place) => place.item.datum.clip === at.item.datum.clip) ?? at : { x: view.width() / 2, y: view.height() / 2 };
      at = nearest(({ x, y }) => {
        const along = (x - here.x) * right + (y - here.y) * down, across = (x - here.x) * down - (y - here.y) * right;
        return along > 0 ? along + 2 * Math.abs(across) : 0;
      }) ?? at;
      if (!at) return;
      const canvas = box.querySelector("canvas, svg").getBoundingClientRect(), outer = box.getBoundingClientRect();
      const [left, top] = [canvas.left + view.origin()[0] + at.x, canvas.top + view.origin()[1] + at.y];
      Object.assign(ring.style, { left: `${left - outer.left + box.scrollLeft}px`, top: `${top - outer.top}px` });
      ring.hidden = false;
      point(null, { clientX: left, clientY: top }, at.item, at.item.tooltip);
    });
  };
  const play = (item) => {
    const clip = item?.datum?.clip;
    if (!clip || hear(clip)) return;
    tip.textContent = `${clip}: the page has no audio of this clip (audio_mb)`;
    tip.hidden = false;
  };
  const draw = async (figure) => {
    const { renderer = "svg", ...spec } = JSON.parse(figure.querySelector("script").text);
    const compiled = charts.compile(spec, { config: looks() }).spec;
    const box = make("div", { className: "chart" });
    figure.querySelector(".chart")?.remove();
    figure.prepend(box);
    const view = new charts.View(charts.parse(compiled, null, { ast: true }), {
      expr: charts.expressionInterpreter, renderer, tooltip: point, hover: true,
    });
    await view.initialize(box).runAsync();
    box.setAttribute("role", "group"); // in the place of what the view says of itself
    box.setAttribute("aria-label", figure.querySelector("img").alt);
    view.addEventListener("click", (event, item) => play(item));
    walk(view, box);
    figure.querySelector("img").hidden = true;
    redraw(view);
    return view;
  };
  const drawAll = async () => {
    for (const view of views.splice(0)) view.finalize();
    for (const figure of all("[data-draws]")) views.push(await draw(figure));
    document.documentElement.dataset.ready = "yes";
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  drawAll();
}
