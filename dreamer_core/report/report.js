"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (selector, root = document) => root.querySelector(selector);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

// Films: one angle for all of them, so that what stands side by side shows the same side.
let frame = 0;
const films = () => document.querySelectorAll(".film");
function show(film) {
  film.style.backgroundPositionX = `${-(Math.round(frame) % data.frames) * data.size}px`;
}
function turnTo(value) {
  frame = ((value % data.frames) + data.frames) % data.frames;
  films().forEach(show);
}
setInterval(() => { if ($("#turning").checked) turnTo(frame + 1); }, 125);

function film(object) {
  const style = `width:${data.size}px;height:${data.size}px`;
  if (!object.sprite) return make("div", { className: "none", style, textContent: object.state });
  const element = make("div", { className: "film", role: "img", style });
  element.style.backgroundImage = `url(${object.sprite})`;
  element.addEventListener("pointerdown", (down) => {
    $("#turning").checked = false;
    const [x, begun] = [down.clientX, frame];
    const move = (event) => turnTo(begun + ((event.clientX - x) / data.size) * data.frames);
    const up = () => { removeEventListener("pointermove", move); removeEventListener("pointerup", up); };
    addEventListener("pointermove", move);
    addEventListener("pointerup", up);
  });
  show(element);
  return element;
}

const unnamed = data.varying.filter((name) => name !== "prompt");
const said = (object) => unnamed.map((name) => `${name} ${object.options[name] ?? "-"}`).join(", ");

function objects() {
  for (const object of data.objects) {
    const caption = make("figcaption", {}, make("strong", { textContent: object.options.prompt }),
      make("div", { textContent: said(object) }));
    if (object.error) caption.append(make("div", { className: "error", textContent: object.error }));
    $("#objects").append(make("figure", { title: object.name }, film(object), caption));
  }
}

// Table
function columns() {
  const numbers = [...new Set(data.objects.flatMap((o) => Object.keys(o.numbers)))];
  const measures = [...new Set(data.objects.flatMap((o) => Object.keys(o.measures)))];
  return [
    ["prompt", (o) => o.options.prompt], ["state", (o) => o.state],
    ...unnamed.map((name) => [name, (o) => o.options[name] ?? ""]),
    ...measures.map((name) => [name, (o) => o.measures[name] ?? NaN]),
    ...numbers.map((name) => [name, (o) => o.numbers[name]]),
  ];
}
const isNumber = (value) => typeof value === "number" || (value !== "" && Number.isFinite(Number(value)));
function table() {
  const all = columns();
  const head = make("tr");
  const rows = data.objects.map((object) => {
    const values = all.map(([, value]) => value(object));
    const row = make("tr", {}, ...values.map((value) => make("td", {
      className: isNumber(value) ? "" : "text",
      textContent: typeof value === "number" ? (Number.isNaN(value) ? "-" : +value.toPrecision(4)) : value,
    })));
    return { row, values };
  });
  all.forEach(([name], i) => {
    const heading = make("th", { textContent: name, className: rows.every((r) => isNumber(r.values[i])) ? "" : "text" });
    heading.addEventListener("click", () => {
      const up = heading.getAttribute("aria-sort") !== "ascending";
      head.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const compare = (a, b) => {
        if (!isNumber(a) || !isNumber(b)) return String(a).localeCompare(String(b)) * (up ? 1 : -1);
        const [x, y] = [Number(a), Number(b)];
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y); // what is missing comes last
        return (x - y) * (up ? 1 : -1);
      };
      rows.sort((a, b) => compare(a.values[i], b.values[i]));
      $("#table tbody").append(...rows.map((r) => r.row));
    });
    head.append(heading);
  });
  $("#table thead").append(head);
  $("#table tbody").append(...rows.map((r) => r.row));
  for (const [name, text] of Object.entries(data.protocols)) {
    $("#protocols").append(make("dt", { textContent: name }), make("dd", { textContent: text }));
  }
}

// Side by side: objects that differ in one setting and in nothing else
const chosen = { setting: "", left: "", right: "" };
const value = (object, name) => object.options[name] ?? "the preset's";
function pairs() {
  const { setting, left, right } = chosen;
  const rest = (object) => JSON.stringify(Object.entries(object.options).filter(([n]) => n !== setting && n !== "name").sort());
  const complete = data.objects.filter((object) => object.sprite);
  const others = new Map(complete.filter((o) => value(o, setting) === right).map((o) => [rest(o), o]));
  return complete.filter((o) => value(o, setting) === left && others.has(rest(o))).map((o) => [o, others.get(rest(o))]);
}
function fill(select, values, picked) {
  select.replaceChildren(...values.map((text) => make("option", { value: text, textContent: text })));
  select.value = picked;
}
function compare() {
  const found = pairs();
  $("#compare .count").textContent = `${found.length} pairs`;
  $("#compare .pairs").replaceChildren(...found.map(([a, b]) => make("div", { className: "pair" },
    make("h3", { textContent: [a.options.prompt, ...unnamed.filter((n) => n !== chosen.setting).map((n) => `${n} ${value(a, n)}`)].join(", ") }),
    ...[a, b].map((object) => make("figure", {}, film(object), make("figcaption", {
      textContent: [`${chosen.setting} ${value(object, chosen.setting)}`,
        ...Object.entries(object.measures).map(([n, v]) => `${n} ${+v.toPrecision(3)}`)].join(" · ") }))))));
  startBlind(found);
}
function choose() {
  const settings = unnamed.filter((name) => name !== "seed").concat(unnamed.filter((name) => name === "seed"));
  $("#no-pairs").hidden = settings.length > 0;
  $("#compare .choice").hidden = settings.length === 0;
  if (!settings.length) return;
  const [setting, left, right] = ["setting", "left", "right"].map((name) => $(`#compare .${name}`));
  const refill = () => {
    chosen.setting = setting.value;
    const values = [...new Set(data.objects.map((o) => value(o, chosen.setting)))];
    [chosen.left, chosen.right] = [values[0], values[1]];
    fill(left, values, chosen.left);
    fill(right, values, chosen.right);
    compare();
  };
  fill(setting, settings, settings[0]);
  setting.addEventListener("change", refill);
  for (const [name, select] of [["left", left], ["right", right]]) {
    select.addEventListener("change", () => { chosen[name] = select.value; compare(); });
  }
  refill();
}

// Blind pairs
let queue = [], choices = [], setting = {};
function shuffled(list) {
  const result = [...list];
  for (let i = result.length - 1; i > 0; i--) {
    const j = crypto.getRandomValues(new Uint32Array(1))[0] % (i + 1);
    [result[i], result[j]] = [result[j], result[i]];
  }
  return result;
}
function startBlind(found) {
  queue = shuffled(found).map((pair) => shuffled(pair));
  choices = [];
  setting = { ...chosen };
  nextPair();
}
function nextPair() {
  const pair = queue[choices.length];
  $("#blind .progress").textContent = `${choices.length} of ${queue.length}`;
  document.querySelectorAll("#blind .buttons button").forEach((button) => { button.disabled = !pair; });
  $("#download").disabled = !choices.length;
  $("#tally").textContent = pair ? "" : tally();
  $("#blind .stage").replaceChildren(...(pair ? [make("div", { className: "pair" },
    make("h3", { textContent: pair[0].options.prompt }), ...pair.map((object) => make("figure", {}, film(object))))] : []));
}
function tally() {
  const wins = (text) => choices.filter((c) => c.chosen === text).length;
  const { left, right } = setting;
  return choices.length ? `${setting.setting}: ${left} ${wins(left)}, ${right} ${wins(right)}, neither ${wins("neither")}` : "no pairs";
}
function decide(side) {
  const pair = queue[choices.length];
  if (!pair) return;
  const winner = side === "neither" ? null : pair[side === "left" ? 0 : 1];
  choices.push({
    prompt: pair[0].options.prompt, left: pair[0].name, right: pair[1].name, side,
    chosen: winner ? value(winner, setting.setting) : "neither",
  });
  nextPair();
}
document.querySelectorAll("#blind .buttons button").forEach((button) => {
  button.addEventListener("click", () => decide(button.dataset.choice));
});
addEventListener("keydown", (event) => {
  const side = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "neither" }[event.key];
  if (side && !$("#blind").hidden) { event.preventDefault(); decide(side); }
});
$("#download").addEventListener("click", () => {
  const content = { list: data.title, made: new Date().toISOString(), ...setting, pairs: queue.length, choices };
  const url = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }));
  make("a", { href: url, download: "choices.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
});

// The page
document.querySelectorAll("nav button").forEach((button) => button.addEventListener("click", () => {
  document.querySelectorAll("nav button").forEach((other) => other.setAttribute("aria-selected", other === button));
  document.querySelectorAll("main > section").forEach((section) => { section.hidden = section.id !== button.dataset.view; });
}));
const complete = data.objects.filter((object) => object.state === "complete").length;
$("#title").textContent = data.title;
document.title = `${data.title}: Dreamer XL`;
$("#summary").textContent = `${complete} of ${data.objects.length} objects complete; made ${data.made} by Dreamer XL ${data.version}`;
objects();
table();
choose();
