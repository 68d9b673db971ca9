// Draws boxes with names over elements: `boxes` is [{ h, name, of, outer? }]. In a closed shadow root, so that the page's
// styles do not reach them, and in the top layer, so that they lie over dialogs too.
(ph, boxes) => {
  const COLOURS = { comment: '#0a7d33', signup: '#0b57d0', login: '#a14b00', newsletter: '#7b2cbf', search: '#00707a', contact: '#8a6d00', honeypot: '#d00000' };
  const host = document.createElement('div');
  const root = host.attachShadow({ mode: 'closed' });
  const wide = document.documentElement.scrollWidth, high = document.documentElement.scrollHeight;
  // Through the style object, never as an attribute: the page's policy may forbid those.
  host.style.cssText = `all: initial; position: absolute; inset: auto; left: 0; top: 0; margin: 0; border: 0; padding: 0; background: none; overflow: hidden; width: ${wide}px; height: ${high}px; pointer-events: none; z-index: 2147483647`;
  document.documentElement.append(host);
  try { host.popover = 'manual'; host.showPopover(); } catch { /* Not in the top layer then. */ }
  const origin = host.getBoundingClientRect(), tags = [], taken = [];
  for (const { h, name, of, outer } of boxes) {
    const rect = ph.get(h)?.getBoundingClientRect();
    if (!rect || (rect.width < 1 && rect.height < 1)) continue;
    const grow = outer ? 6 : 1;
    const left = Math.max(0, rect.left - origin.left - grow), top = Math.max(0, rect.top - origin.top - grow);
    const frame = document.createElement('div'), tag = document.createElement('div');
    const colour = COLOURS[of] ?? '#555';
    frame.style.cssText = `position: absolute; box-sizing: border-box; left: ${left}px; top: ${top}px; width: ${rect.width + 2 * grow}px; height: ${rect.height + 2 * grow}px; border: 2px ${outer ? 'dashed' : 'solid'} ${colour}; border-radius: 3px`;
    tag.textContent = name;
    const right = rect.right - origin.left + grow;
    // A name is wider than a box to tick: right-aligned at the page's edge it would be cut off.
    const beside = (name === 'submit' || rect.width < 60) && right + 60 < wide;
    const across = outer ? `left: ${left}px` : beside ? `left: ${right + 2}px` : `right: ${Math.max(0, wide - right)}px`;
    tag.style.cssText = `position: absolute; box-sizing: border-box; top: ${outer ? Math.max(0, top - 18) : top}px; ${across}; font: bold 11px/16px system-ui, sans-serif; color: #fff; background: ${colour}; padding: 0 5px; border-radius: 3px; white-space: nowrap`;
    root.append(frame);
    tags.push(tag);
    // A box to tick must not be hidden by its neighbour's name.
    if (!outer && rect.width < 60) taken.push(frame.getBoundingClientRect());
  }
  // Names lie over all boxes and not over each other: a name goes down, line by line, to where there is room.
  for (const tag of tags) {
    root.append(tag);
    const free = own => !taken.some(other => own.left < other.right - 2 && own.right > other.left + 2 && own.top < other.bottom - 2 && own.bottom > other.top + 2);
    for (let tries = 0; tries < 4 && !free(tag.getBoundingClientRect()); tries++) tag.style.top = `${parseFloat(tag.style.top) + 14}px`;
    taken.push(tag.getBoundingClientRect());
  }
  return true;
}
