"use strict";
// A recording, and what plays it: a page's own script follows, and calls `player` with what shows a moment and says it.
const byId = id => document.getElementById(id), data = JSON.parse(byId("data").textContent);
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));

function player(show, wait) {
  const at = byId("at"), play = byId("play"), last = data.moments.length - 1;
  let timer = 0;
  const go = i => { at.value = Math.max(0, Math.min(last, i)); byId("says").textContent = show(+at.value); };
  const stop = () => { clearInterval(timer); timer = 0; play.textContent = "Play"; };
  const start = () => {
    if (+at.value === last) go(0);
    play.textContent = "Pause";
    timer = setInterval(() => { go(+at.value + 1); if (+at.value === last) stop(); }, wait);
  };
  at.max = last;
  play.addEventListener("click", () => timer ? stop() : start());
  byId("back").addEventListener("click", () => { stop(); go(+at.value - 1); });
  byId("next").addEventListener("click", () => { stop(); go(+at.value + 1); });
  at.addEventListener("input", () => { stop(); go(+at.value); });
  go(0);
}
