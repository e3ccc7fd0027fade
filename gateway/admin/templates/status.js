"use strict";
const live = document.getElementById("live");
const seconds = Number(document.body.dataset.refresh);
async function refresh() {
  if (document.hidden || live.querySelector(":active")) return;
  try {
    const answer = await fetch(document.body.dataset.page, { headers: { "X-Refresh": "1" } });
    if (!answer.ok) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const focused = document.activeElement;
    const label = live.contains(focused) ? focused.id || focused.getAttribute("aria-label") : null;
    const scrolled = new Map([...live.querySelectorAll(".wide")].map((each) => [each.id, each.scrollLeft]));
    live.replaceChildren(...page.getElementById("live").childNodes);
    for (const each of live.querySelectorAll(".wide")) each.scrollLeft = scrolled.get(each.id) ?? 0;
    if (label) {
      const again = document.getElementById(label) ?? live.querySelector(`[aria-label="${CSS.escape(label)}"]`);
      if (again) again.focus({ preventScroll: true });
    }
    document.title = page.title;
  } catch {
    document.getElementById("stale").hidden = false;
  }
}
setInterval(refresh, seconds * 1000);
document.addEventListener("visibilitychange", refresh);
