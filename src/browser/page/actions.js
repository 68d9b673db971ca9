// Whether an element can be acted on, and acting on it. Each function gives {ok: …} or {failed: check, detail, covering}.
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
// A page that is not drawn has no frames: go on without.
const frame = () => new Promise((resolve) => {
  requestAnimationFrame(resolve);
  setTimeout(resolve, 100);
});
const parentOf = (node) => node.assignedSlot || node.parentElement || (node.getRootNode() instanceof ShadowRoot ? node.getRootNode().host : null);
const failed = (check, detail, covering) => ({ failed: check, detail, covering });

function visible(element) {
  const style = getComputedStyle(element);
  if (style.display === 'contents') return [...element.children].some((child) => visible(child) === true) || 'has no box of its own';
  const box = element.getBoundingClientRect();
  if (!element.checkVisibility({ visibilityProperty: true })) return 'is hidden by a style';
  if (box.width <= 0 || box.height <= 0) return `has a box of ${box.width} × ${box.height} pixels`;
  return true;
}

function disabled(element) {
  if (element.matches(':disabled')) return 'is disabled';
  for (let at = element; at; at = parentOf(at)) {
    if (at.getAttribute('aria-disabled') === 'true') return 'is marked aria-disabled';
    if (at.inert) return 'is inert';
  }
  return null;
}

const textual = new Set(['text', 'search', 'url', 'tel', 'email', 'password', 'number', '']);
const settable = new Set(['date', 'time', 'datetime-local', 'month', 'week', 'color', 'range']);

// What takes the text: of a frame that is an editor, the body of its document.
function writable(element) {
  if (!(element instanceof HTMLIFrameElement)) return element;
  let inside = null;
  try {
    inside = element.contentDocument;
  } catch { /* of another origin */ }
  return inside && inside.body && isRich(inside.body) ? inside.body : element;
}

const isRich = (element) => element.isContentEditable || element.ownerDocument.designMode === 'on';

function editable(element) {
  if (isRich(writable(element))) return null;
  if (element instanceof HTMLTextAreaElement) return element.readOnly ? 'is read-only' : null;
  if (element instanceof HTMLInputElement) {
    if (!textual.has(element.type) && !settable.has(element.type)) return `is an input of type ${element.type}`;
    return element.readOnly ? 'is read-only' : null;
  }
  return `is a ${element.localName}, which takes no text`;
}

const sameBox = (a, b) => a.x === b.x && a.y === b.y && a.width === b.width && a.height === b.height;

async function stable(element) {
  let before = element.getBoundingClientRect();
  // Two frames tell a movement. Where nothing is animated one will do: the press is watched besides.
  const frames = document.getAnimations().some((one) => one.playState === 'running') ? 2 : 1;
  for (let n = 0; n < frames; n++) {
    await frame();
    const now = element.getBoundingClientRect();
    if (!sameBox(before, now)) return `moved from ${Math.round(before.x)},${Math.round(before.y)} to ${Math.round(now.x)},${Math.round(now.y)}`;
    before = now;
  }
  return null;
}

function scrollTo(element, attempt) {
  const box = element.getBoundingClientRect();
  const inside = box.top >= 0 && box.left >= 0 && box.bottom <= innerHeight && box.right <= innerWidth;
  // Something fixed may lie over where it came to rest: the next time it rests elsewhere.
  const block = ['', 'center', 'end', 'start'][attempt % 4];
  if (block) element.scrollIntoView({ block, inline: block, behavior: 'instant' });
  else if (!inside || window !== window.top) element.scrollIntoViewIfNeeded(true);
}

// The middle of the first part of the element that is in the viewport.
function middle(element) {
  for (const rect of element.getClientRects()) {
    const left = Math.max(0, rect.left), right = Math.min(innerWidth, rect.right);
    const top = Math.max(0, rect.top), bottom = Math.min(innerHeight, rect.bottom);
    if (right - left > 0.9 && bottom - top > 0.9) return { x: (left + right) / 2, y: (top + bottom) / 2 };
  }
  return null;
}

// The innermost element at a point, through open shadow roots.
function at(x, y, root = document) {
  let found = null;
  for (let scope = root; scope; ) {
    const inner = scope.elementFromPoint(x, y);
    if (!inner || inner === found) break;
    found = inner;
    scope = inner.shadowRoot;
  }
  return found;
}

function within(inner, outer) {
  for (let node = inner; node; node = parentOf(node)) if (node === outer) return true;
  return false;
}

function arrives(hit, element) {
  if (within(hit, element)) return true;
  // A click on a control's own label is a click on the control.
  const label = hit && hit.closest('label');
  return Boolean(label && label.control && label.control === element);
}

function describe(element) {
  // The element a person would name: the outermost that lies over, not the letter inside it.
  let named = element;
  for (let node = element; node && node !== document.body && node !== document.documentElement; node = parentOf(node)) {
    const position = getComputedStyle(node).position;
    if (position === 'fixed' || position === 'absolute' || position === 'sticky') named = node;
  }
  const box = named.getBoundingClientRect();
  return {
    css: ph.css(named),
    text: (named.innerText || '').trim().slice(0, 200),
    zIndex: getComputedStyle(named).zIndex,
    rect: [box.x, box.y, box.width, box.height],
  };
}

// Carries a point of this viewport out to the top one, as far as the frames around are of the same origin.
function outward(x, y) {
  let here = window;
  while (here !== here.top) {
    let owner = null;
    try {
      owner = here.frameElement;
    } catch { /* of another origin */ }
    if (!owner) return { x, y, above: true };
    const place = placeIn(owner, x, y);
    if (place.failed) return place;
    ({ x, y } = place);
    here = here.parent;
  }
  return { x, y, above: false };
}

// A point of a frame's viewport as a point of the viewport its frame element is in; fails when something lies over it.
function placeIn(owner, x, y) {
  const box = owner.getBoundingClientRect();
  const style = owner.ownerDocument.defaultView.getComputedStyle(owner);
  const scale = owner.offsetWidth ? box.width / owner.offsetWidth : 1;
  x = box.left + (owner.clientLeft + parseFloat(style.paddingLeft) + x) * scale;
  y = box.top + (owner.clientTop + parseFloat(style.paddingTop) + y) * scale;
  const hit = at(x, y, owner.ownerDocument);
  if (!hit) return failed('in_viewport', 'its frame is outside of the viewport');
  if (hit !== owner && !within(hit, owner)) return failed('receives_events', `its frame is covered by ${ph.css(hit)}`, describe(hit));
  return { x, y };
}

async function attempt(element, wants, n) {
  const seen = visible(element);
  if (seen !== true) return failed('visible', `it ${seen}`);
  const off = disabled(element);
  if (off) return failed('enabled', `it ${off}`);
  const fixed = wants.editable && editable(element);
  if (fixed) return failed('editable', `it ${fixed}`);
  if (wants.stable) {
    const moved = await stable(element);
    if (moved) return failed('stable', `it ${moved}`);
  }
  if (!wants.point) return { ok: true };
  scrollTo(element, n);
  const point = middle(element);
  if (!point) return failed('in_viewport', 'no part of it can be scrolled into the viewport');
  const hit = at(point.x, point.y);
  if (!hit) return failed('in_viewport', 'its middle is outside of the viewport');
  if (!arrives(hit, element)) return failed('receives_events', `it is covered by ${ph.css(hit)}`, describe(hit));
  const out = outward(point.x, point.y);
  return out.failed ? out : { ok: { ...out, here: point } };
}

// Tries until the checks hold or the time is over.
ph.ready = async (number, wants, limit) => {
  const end = performance.now() + limit;
  const waits = [0, 20, 100, 100, 500];
  for (let n = 0; ; n++) {
    const element = ph.get(number);
    if (!element) return { stale: true };
    const result = await attempt(element, wants, n);
    if (result.ok) return result;
    const wait = waits[Math.min(n, waits.length - 1)];
    if (performance.now() + wait >= end) return result;
    await pause(wait);
  }
};

ph.place = (owner, x, y) => placeIn(owner, x, y);
ph.outward = (x, y) => outward(x, y);

// Ready to be clicked, and watched: in one step, so that nothing comes between. A form is to be asked, not clicked.
ph.aim = async (number, limit, forms) => {
  if (forms && ph.get(number) instanceof HTMLFormElement) return { ok: { form: true } };
  const ready = await ph.ready(number, { stable: true, point: true }, limit);
  if (!ready.ok) return ready;
  const watched = expectPress(number);
  return watched.ok ? ready : watched;
};

// Watches where the next press goes, and stops it where that is not the element: the page may move things meanwhile.
function expectPress(number) {
  const element = ph.get(number);
  if (!element) return { stale: true };
  if (ph.pressed) ph.pressed();
  const names = ['pointerdown', 'mousedown', 'pointerup', 'mouseup', 'click'];
  const seen = { hit: null, clicked: false };
  const watch = (event) => {
    if (!event.isTrusted) return;
    const target = event.composedPath()[0];
    if (seen.hit === null) {
      seen.hit = arrives(target, element) ? true : describe(target);
    }
    if (seen.hit !== true) {
      event.preventDefault();
      event.stopImmediatePropagation();
    } else if (event.type === 'click') {
      seen.clicked = true;
    }
  };
  for (const name of names) addEventListener(name, watch, { capture: true, passive: false });
  ph.pressed = () => {
    for (const name of names) removeEventListener(name, watch, { capture: true });
    ph.pressed = null;
    return seen.hit === true && !seen.clicked ? 'unfinished' : seen.hit;
  };
  return { ok: true };
}

const unbroken = (text) => text.replace(/\r\n?/g, '\n');

// Sets a property past the page's own accessors and says so to its listeners.
function put(element, property, value) {
  const owner = Object.getPrototypeOf(element);
  Object.getOwnPropertyDescriptor(owner, property).set.call(element, value);
  element.dispatchEvent(new Event('input', { bubbles: true, composed: true }));
  element.dispatchEvent(new Event('change', { bubbles: true }));
}

function selectAll(element) {
  if (isRich(element)) {
    const range = element.ownerDocument.createRange();
    range.selectNodeContents(element);
    const selection = element.ownerDocument.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
  } else {
    element.select();
  }
}

const bare = (value) => value.replace(/\u00a0/g, ' ').replace(/\s+/g, ' ').trim();
const letters = (value) => value.normalize('NFKC').toLowerCase().replace(/[^\p{L}\p{N}]/gu, '');

function holds(element, text) {
  if (isRich(element)) return bare(element.innerText) === bare(text);
  if (element instanceof HTMLTextAreaElement) return unbroken(element.value) === unbroken(text);
  const line = text.replace(/[\r\n]/g, '');
  if (element.type === 'email' || element.type === 'url') return element.value === line.trim();
  if (element.type === 'number' || element.type === 'range') return element.value === line.trim() || Number(element.value) === Number(line);
  if (element.type === 'color') return element.value === line.trim().toLowerCase();
  return element.value === line;
}

// The same, but for what pages make of it while it is typed: capitals, groups of digits, a prefix for the country.
function alike(element, text) {
  if (holds(element, text)) return true;
  if (isRich(element) || element instanceof HTMLTextAreaElement || element.type === 'password') return false;
  const [now, wanted] = [letters(element.value), letters(text)];
  return now !== '' && (now === wanted || (element.type === 'tel' && now.endsWith(wanted.replace(/^0+/, ''))));
}

// Tries until the editor's own scripts have drawn what they took, or it is clear that they did not.
async function drawn(element, text) {
  for (let n = 0; n < 12 && element.isConnected; n++) {
    if (holds(element, text)) {
      await frame();
      if (holds(element, text)) return true;
    }
    await (n < 4 ? frame() : pause(40));
  }
  return false;
}

// Whether an editor does something at what it was sent, though it does not say that it took it: some let the browser paste
// elsewhere and fetch it from there a moment later.
async function stirs(element, act) {
  const window = element.ownerDocument.defaultView, selection = element.ownerDocument.getSelection();
  let stirred = false;
  const watch = new window.MutationObserver(() => { stirred = true; });
  watch.observe(element, { subtree: true, childList: true, characterData: true });
  const place = () => [selection.anchorNode, selection.anchorOffset, selection.focusNode, selection.focusOffset];
  const before = place();
  if (act()) stirred = true;
  for (let n = 0; n < 4 && !stirred; n++) {
    await (n < 2 ? frame() : pause(20));
    if (place().some((part, i) => part !== before[i])) stirred = true;
  }
  watch.disconnect();
  return stirred;
}

// Editors differ in what they listen to: most take a paste, some the input events of typing alone, simple ones whatever
// stands in the document. What none of their scripts takes, the document is given.
async function write(element, text) {
  const { DataTransfer, ClipboardEvent, InputEvent } = element.ownerDocument.defaultView;
  const input = (kind, cancelable) => new InputEvent(kind, { bubbles: true, cancelable, composed: true, inputType: 'insertText', data: text });
  const ways = [
    () => {
      const data = new DataTransfer();
      data.setData('text/plain', text);
      return !element.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true, composed: true }));
    },
    // Very long texts would take this way minutes.
    () => text.length <= 50000 && element.ownerDocument.execCommand('insertText', false, text),
    () => !element.dispatchEvent(input('beforeinput', true)),
    () => {
      element.textContent = text;
      element.dispatchEvent(input('input', false));
      return true;
    },
  ];
  for (const way of ways) {
    if (!element.isConnected) return;
    element.focus();
    selectAll(element);
    if (await stirs(element, way) && await drawn(element, text)) return;
  }
}

ph.fill = async (number, text, limit) => {
  const ready = await ph.ready(number, { editable: true }, limit);
  if (!ready.ok) return ready;
  const outer = ph.get(number);
  const element = outer && writable(outer);
  if (!element) return { stale: true };
  outer.scrollIntoViewIfNeeded(true);
  element.focus();
  const rich = isRich(element);
  const native = element instanceof HTMLInputElement && settable.has(element.type);
  if (!native && !holds(element, text)) {
    selectAll(element);
    // As a person's typing would: the page sees real input events. Very long texts would take the editor minutes.
    if (text === '') document.execCommand('delete');
    else if (rich) await write(element, text);
    else if (text.length <= 50000) document.execCommand('insertText', false, text);
  }
  if (!rich && element.isConnected && !alike(element, text)) {
    const most = element.maxLength;
    put(element, 'value', most >= 0 && !native ? text.slice(0, most) : text);
  } else if (!rich && !native) {
    element.dispatchEvent(new Event('change', { bubbles: true }));
  }
  if (!element.isConnected) return { stale: true };
  if (alike(element, text)) return { ok: true };
  const now = rich ? element.innerText : element.value;
  const most = element.maxLength >= 0 && text.length > element.maxLength ? `, and it takes ${element.maxLength} at most` : '';
  return { differs: `it holds ${now.length} characters where ${text.length} were put in${most}` };
};

// Which of the fields no longer hold what was put in: numbers of `filled`, a list of [number, text].
ph.changed = (filled) => filled.filter(([number, text]) => {
  const element = ph.get(number);
  if (!element) return true;
  if (element instanceof HTMLSelectElement) return false;
  const otherEntry = ph.lists.changed(element);
  if (otherEntry !== undefined) return otherEntry;
  const inner = writable(element);
  return !(element instanceof HTMLIFrameElement && inner === element) && !alike(inner, text);
}).map(([number]) => number);

ph.checked = (number) => {
  const element = ph.get(number);
  if (!element) return { stale: true };
  if (element.type === 'checkbox' || element.type === 'radio') return { ok: element.checked ? 'yes' : 'no' };
  const aria = element.getAttribute('aria-checked');
  return aria === null ? failed('editable', `it is a ${element.localName}, which can't be ticked`) : { ok: aria === 'true' ? 'yes' : 'no' };
};

// Styled boxes hide the real control: its label, or failing that the control itself without a mouse.
// A label with a link in it is no way: the press might follow the link.
ph.labelOf = (number) => {
  const element = ph.get(number);
  const label = element && element.labels && [...element.labels].find((one) => visible(one) === true && !one.querySelector('a[href]'));
  return label ? ph.keep(label) : null;
};
ph.press = (number) => {
  const element = ph.get(number);
  if (!element) return { stale: true };
  if (element.matches(':disabled')) return failed('enabled', 'it is disabled');
  element.click();
  return { ok: true };
};
