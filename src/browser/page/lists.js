// Lists to choose from: the browser's own, and those that a script draws. Of such a one there is a button, or whatever plays
// a combobox, and a list of options that may stand anywhere in the document and only while it is open.
const DRAWN = '[role="combobox"],[role="listbox"],[aria-haspopup="listbox"]';
const OPTION = '[role="option"],[aria-selected]:not([role])';
const typed = (element) => element.matches('input:not([type="hidden" i]),textarea');
const plain = (text) => text.replace(/\s+/g, ' ').trim().toLowerCase();
const labelled = (option) => option.innerText || option.getAttribute('aria-label') || option.title || '';
const offers = (option) => visible(option) === true && option.getAttribute('aria-disabled') !== 'true';

// Where the list's ARIA attributes are: around or inside of what is pressed, if not on it.
function holder(element) {
  return element.matches(DRAWN) ? element : element.querySelector(DRAWN) || element.closest(DRAWN) || element;
}

// What a person sees and presses: of a line that is transparent or a speck, the box around it.
function face(element) {
  for (let node = element, depth = 0; typed(element) && node && depth < 6 && node.localName !== 'form'; node = parentOf(node), depth++) {
    const box = node.getBoundingClientRect();
    if (node !== element && node.querySelectorAll('input:not([type="hidden" i]),textarea,select').length > 1) break;
    if (box.width >= 24 && box.height >= 12 && visible(node) === true && parseFloat(getComputedStyle(node).opacity) > 0.06) return node;
  }
  return element;
}

// The list as far as it is in the document, open or not.
function listOf(element) {
  const outer = holder(element);
  if (outer.matches('[role="listbox"]')) return outer;
  const ids = `${outer.getAttribute('aria-controls') ?? ''} ${outer.getAttribute('aria-owns') ?? ''}`.split(/\s+/).filter(Boolean);
  const root = outer.getRootNode();
  return ids.map((id) => root.getElementById?.(id) ?? document.getElementById(id)).find(Boolean) ?? outer.querySelector('[role="listbox"]');
}

// What is shown as chosen.
function chosenText(element) {
  if (typed(element)) return element.value;
  const list = listOf(element);
  if (list === element) return ph.deepQueryAll('[aria-selected="true"]', list).map(labelled).join(' ');
  if (!list || !element.contains(list)) return element.innerText ?? '';
  const parts = [...element.querySelectorAll('*')].filter((one) => !list.contains(one) && !one.contains(list) && !one.childElementCount);
  return parts.map((one) => one.innerText ?? '').join(' ');
}

ph.lists = {
  // A list that a script draws and nothing has to be typed into. A line that can be seen and typed into is an input, also
  // where it offers a list.
  drawn(element) {
    if (typed(element)) return element.localName === 'input' && Boolean(element.closest(DRAWN)) && element.checkVisibility({ visibilityProperty: true }) && (element.readOnly || face(element) !== element);
    if (!element.matches(DRAWN) || element.isContentEditable || [...element.querySelectorAll('input,textarea')].some((one) => typed(one) && visible(one) === true)) return false;
    if (element.getAttribute('role') !== 'listbox' || element.hasAttribute('aria-haspopup')) return true;
    // The list of another control opens with that; one that stands by itself takes the focus.
    const own = element.id && document.querySelector(`[aria-controls~="${CSS.escape(element.id)}"],[aria-owns~="${CSS.escape(element.id)}"]`);
    return !own && element.tabIndex >= 0 && visible(element) === true && !element.parentElement?.closest(DRAWN);
  },
  options: (element) => [...(listOf(element)?.querySelectorAll('[role="option"]') ?? [])],
  shown: chosenText,
  face,
};

// What is on offer now, but for lists that were open before.
function offered(element) {
  const list = listOf(element);
  const own = list ? ph.deepQueryAll(OPTION, list).filter(offers) : [];
  return own.length ? own : ph.deepQueryAll(OPTION).filter((one) => offers(one) && !openBefore.has(one));
}

// Other ways to say what may be a country: its code, its name in English and in the page's language.
function regions(wanted) {
  const names = (language) => new Intl.DisplayNames([language], { type: 'region', fallback: 'none' });
  const english = names('en');
  const alphabet = [...'ABCDEFGHIJKLMNOPQRSTUVWXYZ'];
  const codes = alphabet.flatMap((a) => alphabet.map((b) => a + b));
  const code = codes.find((one) => one === wanted) ?? codes.find((one) => plain(english.of(one) ?? '') === plain(wanted));
  if (!code || !english.of(code)) return [];
  let own = null;
  try {
    own = names(document.documentElement.lang || 'en').of(code);
  } catch { /* no language */ }
  return [code, own, english.of(code)].filter(Boolean);
}

// Of entries { text, value } the one that is wanted.
function pick(entries, wanted) {
  for (const one of [wanted, ...regions(wanted)]) {
    const found = entries.find((entry) => entry.value === one) ?? entries.find((entry) => plain(entry.text) === plain(one))
      // A flag before it, a code behind it.
      ?? entries.find((entry) => letters(entry.text) === letters(one));
    if (found) return found;
    const begin = one.length < 3 ? [] : entries.filter((entry) => plain(entry.text).startsWith(`${plain(one)} (`));
    if (begin.length === 1) return begin[0];
  }
  return undefined;
}

// Of entries { text, value } of days, months or years the one of that number. A month may be written in any language:
// then its place in the list tells it.
ph.dateEntry = (entries, wanted) => {
  const number = (text) => /^\s*0*(\d+)\D*$/.exec(text)?.[1];
  const found = entries.find((one) => number(one.text) === wanted) ?? entries.find((one) => number(one.value ?? '') === wanted);
  if (found) return found;
  const named = entries.filter((one) => /[\p{L}\p{N}]/u.test(one.text) && one.value !== '');
  return named.length >= 12 ? named[named.length - 12 + (Number(wanted) - 1)] : undefined;
};

ph.select = async (number, wanted, limit) => {
  const end = performance.now() + limit;
  for (;;) {
    const ready = await ph.ready(number, {}, Math.max(0, end - performance.now()));
    if (!ready.ok) return ready;
    const element = ph.get(number);
    if (!(element instanceof HTMLSelectElement)) return failed('editable', `it is a ${element.localName}, not a list`);
    const entries = [...element.options].filter((one) => !one.disabled).map((option) => ({ text: option.label || option.text, value: option.value, option }));
    const option = pick(entries, wanted)?.option;
    if (option) {
      element.focus();
      if (!option.selected || element.selectedIndex !== option.index) {
        if (element.multiple) option.selected = true;
        else put(element, 'selectedIndex', option.index);
      }
      return element.isConnected && !option.selected ? { differs: 'another entry is chosen' } : { ok: true };
    }
    // Lists are often filled a moment later.
    if (performance.now() >= end) return { missing: true };
    await pause(50);
  }
};

let openBefore = new Set();
const chosen = new WeakMap();
const isOpen = (element) => holder(element).getAttribute('aria-expanded') === 'true';

// Whether a drawn list has to be opened, and what is open elsewhere.
ph.closed = (number) => {
  const element = ph.get(number);
  if (!element) return { stale: true };
  if (listOf(element) === holder(element) || isOpen(element)) return { ok: 'open' };
  openBefore = new Set(ph.deepQueryAll(OPTION).filter(offers));
  return { ok: 'closed' };
};

// What scrolls around an option.
function scroller(option) {
  for (let node = parentOf(option); node && node !== document.body; node = parentOf(node)) {
    if (node.scrollHeight > node.clientHeight + 1 && /auto|scroll/.test(getComputedStyle(node).overflowY)) return node;
  }
  return null;
}

// The option of an open list; long lists are scrolled through, since they may draw only what is in sight.
ph.option = async (number, wanted, dated, limit) => {
  const end = performance.now() + limit;
  let drawnAt = null, rewound = false;
  for (;;) {
    const element = ph.get(number);
    if (!element) return { stale: true };
    const options = offered(element);
    const entries = options.map((option) => ({ text: labelled(option), value: option.dataset.value ?? option.getAttribute('value') ?? undefined, option }));
    const found = dated ? ph.dateEntry(entries, wanted) : pick(entries, wanted);
    if (found) {
      chosen.set(element, { label: found.text, value: found.value });
      return { ok: ph.keep(found.option) };
    }
    const now = performance.now();
    if (options.length) drawnAt ??= now;
    const around = options.length ? scroller(options[0]) : null;
    if (around && !rewound) {
      rewound = true;
      around.scrollTop = 0;
    } else if (around && around.scrollTop + around.clientHeight < around.scrollHeight - 1) {
      around.scrollTop += Math.max(20, around.clientHeight - 40);
    } else if (now >= end || (drawnAt !== null && now - drawnAt > 500)) {
      return options.length ? { missing: true } : failed('visible', 'its list does not open');
    }
    if (now >= end) return { missing: true };
    await frame();
    await pause(20);
  }
};

// Whether the list took the option: it shows it, has it marked, or sends its value.
ph.chose = async (number, option, limit) => {
  const end = performance.now() + limit;
  for (;;) {
    const element = ph.get(number);
    if (!element) return { stale: true };
    const { label, value } = chosen.get(element) ?? { label: '' };
    const shown = chosenText(element), marked = ph.get(option);
    const around = element.closest('form') ?? element.parentElement;
    const sends = () => value && [...around.querySelectorAll('input[type="hidden"],input[aria-hidden="true"],select')].some((one) => one.value === value);
    const waited = performance.now() - (end - limit);
    // An option is often marked already while the mouse is over it.
    const isMarked = () => marked?.getAttribute('aria-selected') === 'true' && (waited > 400 || listOf(element) === element);
    if ((label && plain(shown).includes(plain(label))) || sends() || isMarked()) {
      if (isOpen(element) && waited < 300) {
        await pause(20);
        continue;
      }
      chosen.set(element, { label, value, shown });
      return { ok: isOpen(element) ? 'open' : 'closed' };
    }
    if (waited >= Math.min(limit, 1500)) return { differs: `it shows “${plain(shown).slice(0, 60)}” after “${plain(label).slice(0, 60)}” was chosen` };
    await frame();
    await pause(10);
  }
};

// Of a drawn list: whether it shows something else than right after it was chosen from. Undefined of anything else.
ph.lists.changed = (element) => {
  const before = chosen.get(element)?.shown;
  return before === undefined ? undefined : plain(chosenText(element)) !== plain(before);
};
