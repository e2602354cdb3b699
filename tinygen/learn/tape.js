"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = id => document.getElementById(id);
  const rows = byId("rows"), panel = byId("panel"), says = byId("says"), bar = byId("bar"), when = byId("when");
  let at = -1, marked = null;
  document.documentElement.classList.add("js");
  bar.hidden = false;

  // -- pictures: values from -127 to 127 as blue, white, orange
  function draw(canvas) {
    if (canvas.dataset.done) return;
    const [h, w, panels, values] = canvas.dataset.t.split(",");
    const bytes = Uint8Array.from(atob(values), c => c.charCodeAt(0)), n = +panels;
    canvas.width = (+w + 1) * n - 1; canvas.height = +h;
    const context = canvas.getContext("2d"), scale = Math.max(2, Math.min(12, Math.floor(300 / canvas.width)));
    canvas.style.width = canvas.width * scale + "px";
    for (let p = 0; p < n; p++) for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
      const v = (bytes[(p * h + y) * w + x] << 24 >> 24) / 127, fade = 255 * (1 - Math.abs(v));
      context.fillStyle = v < 0 ? `rgb(${fade},${fade * .8 + 51},255)` : `rgb(255,${fade * .6 + 102},${fade})`;
      context.fillRect(p * (+w + 1) + x, y, 1, 1);
    }
    canvas.dataset.done = 1;
  }

  // -- one event at a time
  function row(i) { return byId("e" + data.events[i][1]); }
  function reveal(li) {
    for (let d = li.parentElement.closest("details"); d; d = d.parentElement.closest("details")) d.open = true;
  }
  function show(li) {
    panel.replaceChildren();
    if (!li) return;
    const title = document.createElement("h3");
    title.textContent = li.querySelector("summary b").textContent + " " + li.querySelector(".name").textContent;
    const body = li.querySelector(".body").cloneNode(true);
    panel.append(title, body);
    panel.querySelectorAll("canvas").forEach(draw);
  }
  function go(i) {
    if (i < 0 || i >= data.events.length) return;
    at = i;
    const [phase, , text, held] = data.events[i], li = row(i);
    if (marked) marked.classList.remove("now-f", "now-b", "now-a");
    if (li) {
      reveal(li);
      li.classList.add("now-" + phase);
      li.scrollIntoView({block: "nearest"});
      if (li !== marked || !panel.firstChild) show(li);
    }
    marked = li;
    says.textContent = `${i + 1} of ${data.events.length}, ${text}. Saved: ${(held / 1024).toFixed(0)} kB.`;
    if (when) { const x = 800 * i / data.events.length; when.setAttribute("x1", x); when.setAttribute("x2", x); }
    lanes();
  }
  function phase(step) {
    const first = data.events[Math.max(at, 0)][0];
    let i = at + step;
    while (i > 0 && i < data.events.length - 1 && data.events[i][0] === first) i += step;
    go(Math.max(0, Math.min(i, data.events.length - 1)));
  }
  const loss = data.events.findIndex(e => e[0] !== "f") - 1;
  function fold() {
    const all = [...rows.querySelectorAll("li:not(.op) > details")], open = !all.some(d => !d.open);
    all.forEach(d => { d.open = !open; });
  }
  function predict() { document.body.classList.toggle("predict"); }

  const actions = [
    ["←", "back", "ArrowLeft", () => go(at - 1)], ["→", "next event", "ArrowRight", () => go(at + 1)],
    ["g", "to the loss", "g", () => go(loss < 0 ? data.events.length - 1 : loss)],
    ["n", "next phase", "n", () => phase(1)], ["f", "fold, unfold all", "f", fold],
    ["p", "predict first: cover shapes and what is saved", "p", predict],
  ];
  for (const [key, name, , run] of actions) {
    const button = document.createElement("button");
    button.textContent = `${key} ${name}`;
    button.addEventListener("click", run);
    bar.append(button);
  }
  document.addEventListener("keydown", e => {
    if (e.ctrlKey || e.metaKey || e.altKey || e.target.closest("pre")) return;  // which scrolls
    const found = actions.find(a => a[2] === e.key);
    if (found) { e.preventDefault(); found[3](); }
  });
  rows.addEventListener("click", e => {
    if (e.target.classList.contains("shape")) { e.target.classList.toggle("shown"); if (document.body.classList.contains("predict")) e.preventDefault(); }
    const li = e.target.closest("li.op");
    if (li && e.target.closest("summary")) { e.preventDefault(); go(data.events.findIndex(x => "e" + x[1] === li.id)); }
  });
  document.addEventListener("click", e => {
    const link = e.target.closest("a[href^='#e'], a[href^='#op-'], a[href^='#fn-']");
    if (!link) return;
    const target = byId(link.getAttribute("href").slice(1));
    if (target && target.matches("li.op")) { e.preventDefault(); go(data.events.findIndex(x => "e" + x[1] === target.id)); }
    else if (target) target.open = true;
  });

  // -- lanes: from each row that is seen to those that it was made from
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.id = "lanes";
  svg.setAttribute("aria-hidden", "true");
  rows.append(svg);
  function seen(li) {
    let found = li;
    for (let d = li.parentElement.closest("details"); d; d = d.parentElement.closest("details")) if (!d.open) found = d.parentElement;
    return found;
  }
  function lanes() {
    const top = rows.getBoundingClientRect().top, middle = li => {
      const r = li.querySelector("summary").getBoundingClientRect();
      return r.top - top + r.height / 2;
    };
    const edges = new Map();
    for (const li of rows.querySelectorAll("li.op")) {
      const to = seen(li);
      for (const a of li.querySelectorAll(":scope > details > .body > p:first-child a[href^='#e']")) {
        const source = byId(a.getAttribute("href").slice(1));
        if (!source) continue;
        const from = seen(source);
        if (from !== to) edges.set((from.id || from.dataset.to) + ">" + (to.id || to.dataset.to), [middle(from), middle(to), from === marked || to === marked]);
      }
    }
    const taken = [], paths = [];
    for (const [y0, y1, on] of [...edges.values()].sort((a, b) => (a[1] - a[0]) - (b[1] - b[0]))) {
      let lane = 0;
      while ((taken[lane] = taken[lane] || []).some(([a, b]) => a < y1 - 1 && b > y0 + 1)) lane++;
      taken[lane].push([y0, y1]);
      const x = 32 - 4 * Math.min(lane + 1, 7);
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("d", `M34 ${y0}C${x} ${y0} ${x} ${y0} ${x} ${Math.min(y0 + 8, y1)}V${Math.max(y1 - 8, y0)}C${x} ${y1} ${x} ${y1} 34 ${y1}`);
      if (on) path.classList.add("on");
      paths.push(path);
    }
    svg.setAttribute("height", rows.clientHeight);
    svg.replaceChildren(...paths);
  }
  rows.addEventListener("toggle", lanes, true);
  addEventListener("resize", lanes);
  go(0);
})();
