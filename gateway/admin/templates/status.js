"use strict";
const live = document.getElementById("live");
const seconds = Number(document.body.dataset.refresh);
async function look() {
  if (document.hidden || live.querySelector(":active")) return;
  try {
    const answer = await fetch(location.pathname, { headers: { "X-Refresh": "1" } });
    if (!answer.ok) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    live.replaceChildren(...page.getElementById("live").childNodes);
    document.title = page.title;
  } catch {
    document.getElementById("stale").hidden = false;
  }
}
setInterval(look, seconds * 1000);
document.addEventListener("visibilitychange", look);
