// What the pages can do without: live updates, shortcuts, local times. Nothing here is needed to use them.
"use strict";

(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Times are sent in UTC; shown exactly, in the reader's own zone with UTC behind it.
  const localTimes = (root) => {
    for (const time of all("time", root)) {
      const date = new Date(time.dateTime);
      if (Number.isNaN(date.getTime())) continue;
      const utc = time.title;
      const local = date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
      if (time.textContent === utc) time.textContent = local;
      time.title = `${local}\n${utc}`;
    }
  };

  // Live: when the queue has changed, the page is fetched again and its parts are put in place of the old ones, but never
  // under the reader's hands: not while something is selected, focused, open for reading, or paused.
  const parts = () => all("[data-live]");
  let paused = false;
  let waiting = false;
  let asked = 0;

  const busy = () => {
    const selection = getSelection();
    if (paused || document.hidden || (selection && !selection.isCollapsed)) return true;
    if ($("dialog[open], .pick :checked")) return true;
    return parts().some((part) => part.contains(document.activeElement) && $("form", part)?.contains(document.activeElement));
  };

  // What can be unfolded is known by its row and its own words: rows may have come before it.
  const nameOf = (details) => `${details.closest("tr")?.cells[0].textContent ?? ""} ${$("summary", details).textContent}`;

  const refresh = async () => {
    if (busy()) {
      waiting = true;
      return;
    }
    waiting = false;
    const mine = ++asked;
    const answer = await fetch(location.href, { headers: { accept: "text/html" } }).catch(() => null);
    if (!answer?.ok || answer.redirected || mine !== asked) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (busy()) {
      waiting = true;
      return;
    }
    localTimes(fresh);
    for (const part of parts()) {
      const next = fresh.getElementById(part.id);
      if (!next || next.innerHTML === part.dataset.shown) continue;
      part.dataset.shown = next.innerHTML;
      const open = new Map(all("details", part).map((one) => [nameOf(one), one.open]));
      const at = $("tr.at", part)?.dataset.run;
      part.replaceChildren(...next.childNodes);
      part.toggleAttribute("data-progress", next.hasAttribute("data-progress"));
      for (const one of all("details", part)) one.open = open.get(nameOf(one)) ?? one.open;
      if (at) $(`tr[data-run="${CSS.escape(at)}"]`, part)?.classList.add("at");
    }
  };

  const listen = () => {
    const light = $("#live");
    if (!light || !parts().length) return;
    const pause = document.createElement("button");
    pause.className = "plain";
    const show = () => {
      light.classList.toggle("off", paused);
      pause.textContent = paused ? "Paused: go on" : "Live: pause";
    };
    pause.addEventListener("click", () => {
      paused = !paused;
      show();
      if (!paused) refresh();
    });
    light.append(pause);
    let timer = 0;
    const events = new EventSource("/events");
    events.addEventListener("open", () => {
      light.hidden = false;
      show();
    });
    events.addEventListener("error", () => (light.hidden = events.readyState !== EventSource.OPEN));
    events.addEventListener("changed", () => {
      clearTimeout(timer);
      timer = setTimeout(refresh, 400);
    });
    document.addEventListener("visibilitychange", () => waiting && refresh());
    // Of how far an attempt has come the queue says nothing.
    setInterval(() => (waiting || $("[data-progress]")) && refresh(), 2000);
    addEventListener("pagehide", () => events.close());
  };

  // Shortcuts.
  const rows = () => all("tr[data-run]");
  const move = (by) => {
    const list = rows();
    if (!list.length) return;
    const now = list.findIndex((row) => row.classList.contains("at"));
    const next = list[Math.min(Math.max(now + by, 0), list.length - 1)];
    list[now]?.classList.remove("at");
    next.classList.add("at");
    next.scrollIntoView({ block: "nearest" });
  };
  const help = () => {
    let dialog = $("dialog");
    if (!dialog) {
      dialog = document.createElement("dialog");
      dialog.setAttribute("aria-label", "Keyboard shortcuts");
      const list = document.createElement("dl");
      for (const [key, what] of [["/", "search"], ["j  k", "next and previous run"], ["Enter", "open the run"],
        ["r", "retry the run"], ["Esc", "back"], ["?", "this list"]]) {
        const term = document.createElement("dt");
        const name = document.createElement("kbd");
        name.textContent = key;
        term.append(name);
        const description = document.createElement("dd");
        description.textContent = what;
        list.append(term, description);
      }
      dialog.append(list);
      document.body.append(dialog);
    }
    if (dialog.open) dialog.close();
    else dialog.showModal();
  };
  const actions = {
    "/": () => ($("#q") ? $("#q").focus() : (location.href = "/runs")),
    j: () => move(1),
    k: () => move(-1),
    Enter: () => {
      const link = $("tr.at .id a");
      if (link) link.click();
    },
    r: () => ($("tr.at .do button") ?? $("#retry"))?.focus(),
    "?": help,
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest("input, select, textarea, button, a, summary, [contenteditable]");
    if (event.key === "Escape" && typing) return event.target.blur();
    if (event.key === "Escape" && $(".crumbs a") && !$("dialog[open]")) return $(".crumbs a").click();
    const action = actions[event.key];
    if (!action || (typing && (event.key === "Enter" || typing.matches("input, select, textarea")))) return;
    event.preventDefault();
    action();
  });

  // A long piece of work goes on by itself; without this its page has a button.
  const goOn = () => {
    const form = $("form[data-continue]");
    if (form) setTimeout(() => form.requestSubmit(), 150);
  };

  localTimes(document);
  listen();
  goOn();
})();
