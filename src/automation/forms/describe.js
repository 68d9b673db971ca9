// Turns the document of one frame, its open shadow roots included, into a compact description (description.rs). Reads
// only: nothing is clicked, scrolled or changed. `signs` is { captchas: [{ kind, css }] }.
(ph, signs) => {
  const MAX = { fields: 400, buttons: 400, forms: 80, headings: 60, notices: 40, iframes: 40, overlays: 8, text: 20000 };
  const FIELD = 'input,textarea,select,[contenteditable=""],[contenteditable="true"],[contenteditable="plaintext-only"],[role="textbox"]';
  const LIST = '[role="combobox"],[role="listbox"],[aria-haspopup="listbox"]';
  const BUTTON = 'button,input[type="submit" i],input[type="image" i],input[type="button" i],[role="button"],a[class*="btn" i],a[class*="button" i],a[class*="comment" i],a[class*="close" i],a[href^="javascript:" i],a[onclick],a[href="#"],summary';
  const NO_TEXT = new Set(['SCRIPT', 'STYLE', 'NOSCRIPT', 'TEMPLATE', 'SELECT', 'TEXTAREA', 'OPTION', 'SVG', 'svg']);
  const clean = (text, max) => String(text ?? '').slice(0, max * 8).replace(/\s+/g, ' ').trim().slice(0, max).toWellFormed();
  const attr = (el, name, max = 120) => clean(el.getAttribute?.(name), max);
  const up = el => el.parentElement ?? el.getRootNode?.()?.host ?? null;
  const styles = new Map();
  const style = el => { let s = styles.get(el); if (!s) styles.set(el, s = getComputedStyle(el)); return s; };
  const ends = (list, max) => list.length <= max ? list : [...list.slice(0, max / 2), ...list.slice(-max / 2)];
  const doc = document.documentElement, body = document.body;
  const everything = ph.deepQueryAll('*');
  const order = new Map(everything.map((el, i) => [el, i]));
  const hosts = everything.filter(el => el.shadowRoot);
  // The browser's own search is much faster than a walk: the walk is only for pages that have shadow roots.
  const find = (css, root = document) => hosts.length ? ph.deepQueryAll(css, root) : [...root.querySelectorAll(css)];
  const wide = Math.max(doc.scrollWidth, innerWidth), high = Math.max(doc.scrollHeight, innerHeight);

  // The text of an element without what its controls and scripts hold.
  const ownText = (el, max, without) => {
    let text = '';
    const walk = node => {
      if (text.length > max * 2) return;
      if (node.nodeType === 3) { text += node.data + ' '; return; }
      if (node.nodeType !== 1 || node === without || NO_TEXT.has(node.tagName)) return;
      for (let child = node.firstChild; child; child = child.nextSibling) walk(child);
    };
    if (el) walk(el);
    return clean(text, max);
  };

  const selectors = new Map();
  const selector = el => { let css = selectors.get(el); if (!css) selectors.set(el, css = ph.css(el)); return css; };

  const clippedAway = (s, rect) => {
    if (s.clip && s.clip !== 'auto' && (s.position === 'absolute' || s.position === 'fixed')) {
      const edge = (s.clip.match(/-?[\d.]+|auto/g) ?? []).map(part => part === 'auto' ? null : parseFloat(part));
      if (edge.length === 4 && edge.every(part => part !== null) && (edge[2] - edge[0] <= 2 || edge[1] - edge[3] <= 2)) return true;
    }
    const path = s.clipPath;
    if (path && path !== 'none') {
      if (/^inset\(\s*(?:[5-9]\d|100)(?:\.\d+)?%/.test(path) || /^circle\(\s*0(?:px|%)?/.test(path)) return true;
      const points = path.match(/^polygon\((.*)\)$/)?.[1].split(',').map(point => point.trim());
      if (points && new Set(points).size < 3) return true;
    }
    return false;
  };
  // By what means an element is hidden from a person, if any. `within` bounds which ancestor's aria-hidden counts: a
  // dialog library hides the whole page that way, a trap only itself.
  const hiddenBy = (el, within) => {
    const why = new Set();
    if (!el.checkVisibility()) why.add('not_rendered');
    else if (!el.checkVisibility({ visibilityProperty: true })) why.add('invisible');
    const rect = el.getBoundingClientRect();
    if (!why.has('not_rendered')) {
      if (rect.width < 4 || rect.height < 4) why.add('tiny');
      const left = rect.left + scrollX, top = rect.top + scrollY;
      if (left + rect.width <= 0 || top + rect.height <= 0 || left >= wide + 1 || top >= high + 1) why.add('off_screen');
      let opacity = 1;
      for (let node = el, depth = 0; node && node !== doc && depth < 14; node = up(node), depth++) {
        const s = style(node);
        opacity *= parseFloat(s.opacity || '1');
        const box = node === el ? rect : node.getBoundingClientRect();
        if (clippedAway(s, box)) why.add('clipped');
        if (node !== el && node !== body && (s.overflowX === 'hidden' || s.overflowX === 'clip' || s.overflowY === 'hidden' || s.overflowY === 'clip')) {
          if (box.width <= 2 || box.height <= 2) why.add('clipped');
          else if (s.overflowX !== 'visible' && s.overflowX !== 'auto' && s.overflowX !== 'scroll' && (rect.right <= box.left || rect.left >= box.right)) why.add('clipped');
          else if ((s.overflowY === 'hidden' || s.overflowY === 'clip') && (rect.bottom <= box.top || rect.top >= box.bottom)) why.add('clipped');
        }
        if (s.position === 'fixed') break;
      }
      if (opacity < 0.06) why.add('transparent');
    }
    for (let node = el; node && node !== within && node !== body; node = up(node)) {
      // A part of several fields is folded away that way, a trap is one.
      if (node.getAttribute('aria-hidden') === 'true') why.add(node !== el && why.has('not_rendered') && node.querySelectorAll(FIELD).length > 2 ? 'folded' : 'aria_hidden');
      if (!within && node !== el) break;
    }
    if (el.getAttribute('tabindex') !== null && el.tabIndex < 0 && el.localName !== 'div') why.add('tabindex');
    if (el.closest('[inert]')) why.add('inert');
    return [...why];
  };
  const box = el => { const r = el.getBoundingClientRect(); return [r.left + scrollX, r.top + scrollY, r.width, r.height].map(Math.round); };
  const shown = el => el.checkVisibility({ visibilityProperty: true }) && el.getClientRects().length > 0;

  const isField = node => (node.matches?.(FIELD) || drawn.has(node)) && node.getAttribute('type')?.toLowerCase() !== 'hidden';
  // What stands right before (or, for a box to tick, right after) an element, up to the next control.
  const beside = (el, forward) => {
    let node = el, text = '';
    for (let steps = 0; steps < 30 && text.trim().length < 3; steps++) {
      let next = forward ? node.nextSibling : node.previousSibling;
      if (!next) {
        node = node.parentNode;
        if (!node || node.nodeType !== 1 || node === body || node.localName === 'form') break;
        continue;
      }
      node = next;
      if (node.nodeType === 3) text = forward ? `${text} ${node.data}` : `${node.data} ${text}`;
      else if (node.nodeType === 1 && !NO_TEXT.has(node.tagName)) {
        if (isField(node) || node.querySelector(`${FIELD},${LIST}`) || node.localName === 'button') break;
        text = forward ? `${text} ${ownText(node, 160)}` : `${ownText(node, 160)} ${text}`;
      } else if (node.nodeType === 1 && (node.tagName === 'TEXTAREA' || node.tagName === 'SELECT')) break;
    }
    return clean(text, 160);
  };
  const labelsOf = el => {
    const labels = [], root = el.getRootNode();
    const push = (via, text) => { if (text) labels.push({ via, text }); };
    for (const id of (el.getAttribute('aria-labelledby') ?? '').split(/\s+/).filter(Boolean).slice(0, 4)) {
      const label = root.getElementById?.(id);
      // What a list shows names it for a reader as well, and is no label.
      if (label && !el.contains(label)) push('labelledby', ownText(label, 200, el));
    }
    const bound = el.labels ?? (el.id && drawn.has(el) ? root.querySelectorAll(`label[for="${CSS.escape(el.id)}"]`) : []);
    for (const label of [...bound].slice(0, 4)) push(label.contains(el) ? 'wrap' : 'for', ownText(label, 300, el));
    for (const id of (el.getAttribute('aria-describedby') ?? '').split(/\s+/).filter(Boolean).slice(0, 3)) push('describedby', ownText(root.getElementById?.(id), 200, el));
    const before = beside(el, false);
    push('before', before);
    const type = el.type;
    if (type === 'checkbox' || type === 'radio') push('after', beside(el, true));
    else if (!labels.length || !before) push('after', beside(el, true).slice(0, 60));
    return labels;
  };

  // ---- collect
  // A frame whose document is one editor is a field of this document.
  const editorIn = el => { try { const inside = el.contentDocument; return inside?.body && (inside.designMode === 'on' || inside.body.isContentEditable) ? inside.body : null; } catch { return null; } };
  const drawn = new Set();
  const all = find(`${FIELD},${LIST},iframe`).filter(el => {
    if (el.localName === 'iframe') return editorIn(el) !== null;
    if (el.localName !== 'select' && el.closest(LIST) && ph.lists.drawn(el)) { drawn.add(el); return true; }
    if (!el.matches(FIELD)) return false;
    if (el.localName === 'input' && ['hidden', 'submit', 'button', 'image', 'reset'].includes(el.type)) return false;
    if (el.localName !== 'input' && el.localName !== 'textarea' && el.localName !== 'select') {
      if (el.closest('input,textarea') || up(el)?.closest?.('[contenteditable=""],[contenteditable="true"]')) return false;
      if (el === body || el === doc) return false;
    }
    return true;
  });
  // The line inside of a drawn list is that list.
  for (const el of [...drawn]) if ([...drawn].some(other => other !== el && el.contains(other))) drawn.delete(el);
  const buttonEls = ends(find(BUTTON).filter(el => !el.matches('[role="textbox"]') && !drawn.has(el)), MAX.buttons);
  const formEls = find('form').slice(0, MAX.forms);
  const headingEls = find('h1,h2,h3,h4,h5,h6,legend,[role="heading"]').slice(0, MAX.headings);
  let fieldEls = ends(all.filter(el => drawn.has(el) || el.matches(FIELD + ',iframe')), MAX.fields);
  const formOf = el => el.form ?? el.closest('form') ?? el.getRootNode()?.host?.closest?.('form') ?? null;

  // Fields outside any <form> are grouped by the nearest ancestor that also holds a button.
  const groupOf = new Map(), groups = [];
  const looseButtons = buttonEls.filter(el => !formOf(el));
  const holds = (outer, el) => { for (let node = el; node; node = up(node)) if (node === outer) return true; return false; };
  for (const el of fieldEls) {
    if (formOf(el) || drawn.has(el)) continue;
    let container = null;
    for (let node = up(el), depth = 0; node && node !== body && depth < 9; node = up(node), depth++) if (looseButtons.some(button => holds(node, button))) { container = node; break; }
    container ??= up(el);
    const outer = groups.find(group => holds(group, container));
    if (outer) container = outer;
    else { for (let i = groups.length - 1; i >= 0; i--) if (holds(container, groups[i])) { for (const [field, group] of groupOf) if (group === groups[i]) groupOf.set(field, container); groups.splice(i, 1); } groups.push(container); }
    groupOf.set(el, container);
  }
  // An editor's toolbar must not cut its text area off from the fields around it: a group without any other field joins
  // the nearest enclosing one.
  for (const group of [...groups]) {
    const outer = groups.find(other => other !== group && holds(other, group));
    if (!outer) continue;
    for (const [field, of] of groupOf) if (of === group) groupOf.set(field, outer);
    groups.splice(groups.indexOf(group), 1);
  }
  // A form without <form> may have a button at each field (show the password, clear it): groups of one field that stand
  // next to each other, with no form between them, are one form.
  const fieldsOf = group => [...groupOf].filter(([, of]) => of === group).length;
  const searches = group => group.matches('[role="search"]') || group.querySelector('input[type="search" i],[role="search"]') !== null;
  const nearest = (group, others) => {
    // What has no button at all looks further for what it belongs to.
    const far = looseButtons.some(button => holds(group, button)) ? 4 : 8;
    for (let node = up(group), depth = 0; node && node !== body && depth < far; node = up(node), depth++) {
      const beside = others.filter(other => other !== group && holds(node, other));
      if (beside.length) return node.localName === 'main' || formEls.some(form => holds(node, form)) ? null : { node, beside };
    }
    return null;
  };
  for (let joined = groups.length > 1 && groups.length < 40; joined;) {
    joined = false;
    for (const group of groups) {
      const near = fieldsOf(group) === 1 && !searches(group) && nearest(group, groups);
      if (!near || near.beside.some(searches) || near.beside.some(other => fieldsOf(other) > 12)) continue;
      for (const [field, of] of groupOf) if (of === group || near.beside.includes(of)) groupOf.set(field, near.node);
      for (const other of [group, ...near.beside]) groups.splice(groups.indexOf(other), 1);
      groups.push(near.node);
      joined = true;
      break;
    }
  }
  // A drawn list alone is no form: the languages of a site, the order of its articles.
  for (const el of drawn) { const group = formOf(el) ? null : groups.find(group => holds(group, el)); if (group) groupOf.set(el, group); }
  fieldEls = fieldEls.filter(el => !drawn.has(el) || formOf(el) || groupOf.has(el));
  const containers = [...formEls, ...groups];
  const indexOf = new Map(containers.map((el, i) => [el, i]));
  const ownerOf = el => {
    const form = formOf(el);
    if (form) return indexOf.get(form) ?? null;
    if (groupOf.has(el)) return indexOf.get(groupOf.get(el)) ?? null;
    for (let i = containers.length - 1; i >= formEls.length; i--) if (holds(containers[i], el)) return i;
    return null;
  };

  const buttonText = el => clean(el.value && el.localName === 'input' ? el.value : (el.innerText || ownText(el, 120)), 120);
  const button = el => ({
    h: ph.keep(el), css: selector(el), at: order.get(el) ?? 0, form: ownerOf(el), tag: el.localName,
    type: el.localName === 'button' || el.localName === 'input' ? el.type : '', text: buttonText(el),
    label: clean(el.getAttribute('aria-label') || el.title || el.querySelector?.('img[alt]')?.alt || el.alt || '', 120),
    name: attr(el, 'name'), id: clean(el.id, 120), class: attr(el, 'class', 200), href: el.localName === 'a' ? attr(el, 'href', 300) : '',
    box: box(el), hidden: hiddenBy(el, null).filter(why => why !== 'tabindex'), disabled: !!el.disabled || el.getAttribute('aria-disabled') === 'true',
  });

  // Of a drawn list: what it shows, its entries if they are in the document, and whether one of them is chosen.
  const listFacts = el => {
    const entries = ph.lists.options(el).slice(0, 400), text = entry => clean(entry.textContent || entry.getAttribute('aria-label'), 60), face = ph.lists.face(el);
    const shows = clean(ph.lists.shown(face), 60), texts = entries.map(text).filter(Boolean);
    const empty = !shows || face.matches('[data-placeholder]') || face.querySelector('[data-placeholder],[class*="placeholder" i]') !== null;
    return { shows, texts, chosen: !empty && (!texts.length || texts.includes(shows)), face };
  };

  // Words that stand alone between a field and the one before it, the nearest first: `or`.
  const between = (el, previous) => {
    const words = [], walker = document.createTreeWalker(el.getRootNode(), NodeFilter.SHOW_TEXT);
    walker.currentNode = el;
    for (let steps = 0; previous && steps < 30 && words.length < 3 && walker.previousNode(); steps++) {
      const node = walker.currentNode, around = node.parentElement, text = clean(node.data, 20);
      if (!(previous.compareDocumentPosition(node) & Node.DOCUMENT_POSITION_FOLLOWING)) break;
      if (text && text.length < 12 && around && clean(around.textContent, 20) === text && !around.closest('label,button,select') && shown(around)) words.push(text);
    }
    return words;
  };

  const fields = fieldEls.map((el, i) => {
    const list = drawn.has(el) ? listFacts(el) : null;
    const tag = list ? 'listbox' : el.localName, native = tag === 'input' || tag === 'textarea' || tag === 'select';
    const owner = ownerOf(el), container = owner === null ? null : containers[owner];
    return {
      h: ph.keep(list?.face ?? el), css: selector(el), at: order.get(el) ?? 0, form: owner, tag: native || list ? tag : 'editable', type: native ? el.type : list ? '' : 'text',
      name: attr(el, 'name'), id: clean(el.id, 120), class: attr(el, 'class', 200), autocomplete: attr(el, 'autocomplete', 60),
      placeholder: attr(el, 'placeholder', 200) || attr(el, 'data-placeholder', 200) || attr(el, 'aria-placeholder', 200) || (list && !list.texts.includes(list.shows) ? list.shows : ''), aria: attr(el, 'aria-label', 200), title: attr(el, 'title'),
      data: clean([...el.attributes].filter(a => /^data-(?!placeholder)/.test(a.name) && a.value.length < 40).map(a => `${a.name.slice(5)} ${a.value}`).join(' '), 160),
      role: attr(el, 'role', 30) || (el.getAttribute('aria-autocomplete') === 'list' ? 'combobox' : ''), labels: labelsOf(el), between: between(el, fieldEls[i - 1]), inputmode: attr(el, 'inputmode', 20), pattern: attr(el, 'pattern', 200),
      max: el.maxLength > 0 ? el.maxLength : null, min: el.minLength > 0 ? el.minLength : null,
      required: !!el.required || el.getAttribute('aria-required') === 'true', readonly: !list && !!el.readOnly, disabled: !!el.disabled || el.getAttribute('aria-disabled') === 'true',
      filled: list ? list.chosen : tag === 'input' && (el.type === 'checkbox' || el.type === 'radio') ? el.checked : !!(native ? el.value : (tag === 'iframe' ? editorIn(el) : el)?.textContent?.trim()),
      value: tag === 'input' && (el.type === 'checkbox' || el.type === 'radio') ? clean(el.value, 60) : list?.shows ?? '',
      options: tag === 'select' ? [...el.options].slice(0, 12).map(option => clean(option.label, 60)) : (list?.texts ?? []).slice(0, 12), option_count: tag === 'select' ? el.options.length : (list?.texts ?? []).length,
      box: box(list?.face ?? el), hidden: hiddenBy(list?.face ?? el, container), label_shown: [...(el.labels ?? [])].some(shown),
    };
  });

  // Short texts before an element, nearest first: what a page says over a form without making it a heading. Links, buttons
  // and labels are something else; another form's field ends the search.
  const SIDE = 'a,button,label,nav,footer,select,textarea,script,style,noscript,template,h1,h2,h3,h4,h5,h6,[role="heading"],[role="button"]';
  const leadOf = (el, own) => {
    const pieces = [], walker = document.createTreeWalker(el.getRootNode(), NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT);
    walker.currentNode = el;
    for (let steps = 0; steps < 160 && pieces.length < 4 && walker.previousNode(); steps++) {
      const node = walker.currentNode;
      if (node.nodeType === 1) { if (isField(node) && !own.has(node)) break; continue; }
      const text = clean(node.data, 120), around = node.parentElement;
      if (text.length < 3 || !around || around.closest(SIDE) || !shown(around)) continue;
      pieces.push(text);
    }
    return pieces;
  };
  const membersOf = new Map();
  for (const el of fieldEls) { const owner = ownerOf(el); if (owner !== null) membersOf.set(owner, [...(membersOf.get(owner) ?? []), el]); }

  const headings = headingEls.filter(shown).map(el => ({ text: ownText(el, 160), level: /^h[1-6]$/.test(el.localName) ? +el.localName[1] : 7, at: order.get(el) ?? 0 }));
  const ancestry = el => { const words = []; for (let node = up(el), depth = 0; node && node !== body && depth < 6; node = up(node), depth++) words.push(node.localName === 'div' ? '' : node.localName, node.id, node.getAttribute('class'), node.getAttribute('aria-label')); return clean(words.filter(Boolean).join(' '), 400); };
  // Not `form.action`: a field of that name hides it.
  const resolved = address => { try { return address === null ? '' : new URL(address, document.baseURI).href; } catch { return address; } };
  const forms = containers.map((el, i) => {
    const at = order.get(el) ?? 0, last = order.get([...el.querySelectorAll('*')].at(-1)) ?? at;
    const inside = headings.filter(heading => heading.at > at && heading.at <= last).map(heading => heading.text).slice(0, 6);
    const before = headings.filter(heading => heading.at < at).at(-1);
    return {
      h: ph.keep(el), css: selector(el), at, is_form: i < formEls.length, shadow: el.getRootNode() instanceof ShadowRoot,
      action: i < formEls.length ? clean(resolved(el.getAttribute('action')), 400) : '', method: i < formEls.length ? String(el.getAttribute('method') ?? 'get').toLowerCase().slice(0, 10) : '',
      name: attr(el, 'name'), id: clean(el.id, 120), class: attr(el, 'class', 200), role: attr(el, 'role', 30), aria: attr(el, 'aria-label', 120),
      ancestry: ancestry(el), headings: inside, before: before ? before.text : '', text: ownText(el, 1200), lead: membersOf.has(i) ? leadOf(membersOf.get(i)[0], new Set(membersOf.get(i))) : [], distance: before ? at - before.at : null,
      links: [...el.querySelectorAll('a[href]')].slice(0, 20).map(a => ownText(a, 80)).filter(Boolean),
      hidden: hiddenBy(el, null).filter(why => why !== 'tiny' && why !== 'tabindex'), box: box(el),
      stamped: [...el.querySelectorAll('input[type="hidden"]')].some(input => /^1\d{9}(\d{3})?$/.test(input.value) && Math.abs(+input.value.slice(0, 10) - Date.now() / 1000) < 86400), has_file: !!el.querySelector('input[type="file"]'),
    };
  });

  const iframes = find('iframe,frame').slice(0, MAX.iframes).map(el => ({
    h: ph.keep(el), css: selector(el), src: clean(el.getAttribute('src') || el.dataset?.src || '', 400), title: attr(el, 'title'), name: attr(el, 'name'), id: clean(el.id, 120), class: attr(el, 'class', 200),
    ancestry: ancestry(el), box: box(el), hidden: hiddenBy(el, null).filter(why => why !== 'tabindex'), srcdoc: el.hasAttribute('srcdoc'), sandbox: el.getAttribute('sandbox'),
  }));

  const captchas = [];
  for (const { kind, css } of signs.captchas ?? []) {
    let found = [];
    try { found = find(css); } catch { continue; }
    for (const el of found.slice(0, 4)) captchas.push({ kind, css: selector(el), at: order.get(el) ?? 0, form: ownerOf(el), tag: el.localName, shown: el.localName !== 'script' && shown(el) });
  }

  // What lies over the page: looked for where it would be hit, on a grid over the viewport.
  const over = new Map();
  const layer = hit => {
    for (let node = hit; node && node !== doc && node !== body; node = up(node)) {
      const s = style(node);
      if (node.localName === 'dialog' || node.getAttribute('aria-modal') === 'true' || s.position === 'fixed' || s.position === 'sticky') {
        let top = node; // the outermost such ancestor: a dialog's backdrop and its box are one
        for (let outer = up(node); outer && outer !== doc && outer !== body; outer = up(outer)) if (style(outer).position === 'fixed') top = outer;
        return top;
      }
      if (s.position === 'absolute' && parseInt(s.zIndex, 10) >= 10) {
        const r = node.getBoundingClientRect();
        if (r.width * r.height > innerWidth * innerHeight * 0.5) return node;
      }
    }
    return null;
  };
  const GRID = 8;
  for (let row = 0; row < GRID; row++) for (let column = 0; column < GRID; column++) {
    const hit = document.elementFromPoint((column + 0.5) * innerWidth / GRID, (row + 0.5) * innerHeight / GRID);
    const found = hit && layer(hit);
    if (found) over.set(found, (over.get(found) ?? 0) + 1);
  }
  for (const el of find('dialog[open],[aria-modal="true"],[role="dialog"],[role="alertdialog"]')) if (shown(el) && ![...over.keys()].some(other => other === el || holds(other, el) || holds(el, other))) over.set(el, 0);
  const overlays = [...over].sort((a, b) => b[1] - a[1]).slice(0, MAX.overlays).map(([el, hits]) => {
    const root = el.shadowRoot ?? el;
    const within = [...new Set([...find(BUTTON + ',a[href]', root), ...(el.matches(BUTTON) ? [el] : [])])];
    const s = style(el);
    return {
      h: ph.keep(el), css: selector(el), tag: el.localName, id: clean(el.id, 120), class: attr(el, 'class', 200), role: attr(el, 'role', 30) || (el.querySelector('[role="dialog"],[role="alertdialog"],[aria-modal="true"]') ? 'dialog' : ''),
      names: clean([...el.querySelectorAll('[id],[class]')].slice(0, 12).map(inner => `${inner.id} ${inner.getAttribute('class') ?? ''}`).join(' '), 400),
      label: clean(el.getAttribute('aria-label') ?? '', 120), text: clean(el.shadowRoot ? ownText({ nodeType: 1, tagName: 'X', firstChild: el.shadowRoot.firstChild }, 600) : (el.innerText || ''), 600), position: s.position, z: parseInt(s.zIndex, 10) || 0, share: hits / (GRID * GRID), box: box(el),
      modal: el.localName === 'dialog' || el.getAttribute('aria-modal') === 'true' || !!el.querySelector('[aria-modal="true"]'),
      forms: containers.map((container, i) => holds(el, container) ? i : -1).filter(i => i >= 0), fields: find(FIELD, root).filter(shown).length, textareas: find('textarea', root).filter(shown).length, navigation: el.localName === 'header' || el.localName === 'nav' || !!el.querySelector('nav'),
      iframe: el.localName === 'iframe' || !!el.querySelector('iframe'),
      buttons: within.filter(shown).slice(0, 24).map(button),
    };
  });

  const NOTICE = '[role="alert"],[role="status"],[aria-live],output,.error,.errors,.errorlist,.alert,.notice,.message,.messages,.warning,.success,.info,[class*="error" i],[class*="message" i],[class*="notice" i],[class*="success" i],[class*="alert" i],[class*="moderat" i],[class*="awaiting" i],[class*="feedback" i],[class*="invalid" i],[id*="error" i],[id*="message" i],[id*="notice" i],[id*="msg" i]';
  const noticeEls = find(NOTICE).filter(el => !el.matches('input,textarea,select,form,body,html,option,label') && !el.querySelector('form,textarea') && shown(el));
  const notices = noticeEls.map(el => ({ text: clean(el.innerText, 400), words: clean(`${attr(el, 'role')} ${attr(el, 'class')} ${el.id}`, 160), at: order.get(el) ?? 0 })).filter(notice => notice.text.length > 2).slice(0, MAX.notices);
  const invalid = fieldEls.filter(el => el.willValidate && !el.validity?.valid && shown(el)).slice(0, 20).map(el => ({ css: selector(el), message: clean(el.validationMessage, 200) }));

  let text = String(body?.innerText ?? '');
  for (const host of hosts) if (text.length < MAX.text * 4) text += '\n' + ownText({ nodeType: 1, tagName: 'X', firstChild: host.shadowRoot.firstChild }, 4000);
  const length = text.length;
  if (length > MAX.text) text = text.slice(0, MAX.text / 2) + '\n…\n' + text.slice(-MAX.text / 2);
  const meta = name => clean(document.querySelector(`meta[name="${name}" i],meta[property="${name}" i]`)?.content, 200);
  return {
    url: location.href, title: clean(document.title, 200), lang: attr(doc, 'lang', 20) || clean(meta('language'), 20), description: meta('description'), kind: meta('og:type'), body_class: clean(body?.getAttribute('class'), 300),
    viewport: [innerWidth, innerHeight], page: [wide, high], elements: order.size, headings, forms, fields, buttons: buttonEls.map(button), iframes, captchas, overlays, notices, invalid,
    text: text.replace(/[^\S\n]+/g, ' ').replace(/\n\s*\n+/g, '\n').trim().toWellFormed(), text_length: length,
  };
}
