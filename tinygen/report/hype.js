// The judging page: shows PAGE.images one after the other, asks of each whether it is real, and gives one line of JSON.
// PAGE = {page, timed, images, code}. Nothing in it says which images are real; `code`, which only a timed page has,
// lets the staircase ask whether an answer was right.
"use strict";

const START = 500, LEAST = 100, MOST = 1000; // ms: exposures of HYPE-time (Zhou et al. 2019, section 2.1)
const FASTER = 10, SLOWER = 30; // ms: after a right, a wrong answer; at rest three of four are right (Kaernbach 1991)
const FIXATION = 500, MASKS = 4, MASK = 30; // ms before an image; masks after it, and ms of each

class Staircase {
  exposure = START;

  answer(right) {
    this.exposure = Math.min(MOST, Math.max(LEAST, this.exposure + (right ? -FASTER : SLOWER)));
  }
}

function shuffled(n, random = Math.random) {
  const order = Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

// The lowest bit of a text's FNV-1a hash.
function bit(text) {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return (hash ^ (hash >>> 16)) & 1;
}

function isRight(i, answer) {
  return (bit(PAGE.page + PAGE.images[i]) ^ Number(PAGE.code[i])) === Number(answer === "real");
}

// ------------------------------------------------------------------------------------------------------- what is seen

const element = (id) => document.getElementById(id);
const frame = () => new Promise(requestAnimationFrame); // the time at which the next picture of the screen begins
const VIEWS = ["image", "mask", "cross"];

function show(view) {
  for (const id of VIEWS) element(id).style.visibility = id === view ? "visible" : "hidden";
}

// Keeps a view for some ms, to the nearest picture of the screen: how long it really was.
async function keep(view, ms) {
  const from = await frame();
  show(view);
  let now = from;
  while (now - from < ms - 8) now = await frame();
  return Math.round(now - from);
}

// Noise like the images: patches of any of them, from anywhere.
function drawMask(images) {
  const canvas = element("mask"), pen = canvas.getContext("2d");
  const [width, height] = [canvas.width, canvas.height], side = Math.max(1, Math.round(Math.min(width, height) / 7));
  const any = (n) => Math.floor(Math.random() * n);
  for (let x = 0; x < width; x += side)
    for (let y = 0; y < height; y += side)
      pen.drawImage(images[any(images.length)], any(width - side + 1), any(height - side + 1), side, side, x, y, side, side);
}

async function flash(images, ms) {
  await keep("cross", FIXATION);
  const shown = await keep("image", ms);
  for (let i = 0; i < MASKS; i++) {
    drawMask(images);
    await keep("mask", MASK);
  }
  return shown;
}

let give = null; // takes the answer that is waited for

function answered() {
  return new Promise((resolve) => (give = resolve));
}

function say(answer) {
  const waiting = give;
  give = null;
  if (waiting) waiting(answer);
}

function view(id) {
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== id;
}

// ---------------------------------------------------------------------------------------------------------- the trials

async function judge() {
  const images = PAGE.images.map((source) => Object.assign(new Image(), { src: source }));
  await Promise.all(images.map((image) => image.decode()));
  for (const target of [element("image"), element("mask")]) {
    const scale = Math.max(1, Math.round(280 / images[0].width));
    Object.assign(target, { width: images[0].width, height: images[0].height });
    target.style.width = images[0].width * scale + "px";
    target.style.height = images[0].height * scale + "px";
  }
  const staircase = new Staircase(), answers = [], order = shuffled(images.length);
  view("trial");
  element("answers").focus(); // on no button: a key that is still held down is no answer
  for (const [done, i] of order.entries()) {
    element("status").textContent = `Image ${done + 1} of ${order.length}`;
    element("progress").value = done;
    element("image").src = PAGE.images[i];
    await element("image").decode();
    const timing = PAGE.timed ? { asked: staircase.exposure, shown: await flash(images, staircase.exposure) } : {};
    if (!PAGE.timed) show("image");
    const from = performance.now(), answer = await answered();
    if (PAGE.timed) staircase.answer(isRight(i, answer));
    answers.push({ image: i, answer, ms: Math.round(performance.now() - from), ...timing });
  }
  return answers;
}

function finish(answers) {
  const sitting = Array.from(crypto.getRandomValues(new Uint8Array(6)), (b) => b.toString(16).padStart(2, "0")).join("");
  const line = JSON.stringify({ page: PAGE.page, sitting, answers });
  element("line").value = line;
  element("save").href = URL.createObjectURL(new Blob([line + "\n"], { type: "application/json" }));
  element("save").download = `answers-${sitting}.json`;
  view("end");
  element("thanks").focus();
}

const KEYS = { r: "real", ArrowLeft: "real", g: "generated", ArrowRight: "generated" };

document.addEventListener("keydown", (event) => {
  const answer = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (answer && !event.repeat && !event.ctrlKey && !event.metaKey && !event.altKey) say(answer);
});
for (const answer of ["real", "generated"]) element(answer).addEventListener("click", () => say(answer));
element("start").addEventListener("click", async () => {
  const leaving = (event) => event.preventDefault(); // the browser asks before answers are lost
  addEventListener("beforeunload", leaving);
  finish(await judge());
  element("save").addEventListener("click", () => removeEventListener("beforeunload", leaving));
});
element("start").focus();
