// The document as text: as it looks now, not as it was sent.
const empty = new Set(['area', 'base', 'br', 'col', 'embed', 'hr', 'img', 'input', 'link', 'meta', 'source', 'track', 'wbr']);
const raw = new Set(['script', 'style', 'xmp', 'iframe', 'noembed', 'noframes', 'plaintext']);
const inText = (text) => text.replace(/[&<>\u00a0]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '\u00a0': '&nbsp;' })[c]);
const inAttribute = (text) => text.replace(/[&"\u00a0<>]/g, (c) => ({ '&': '&amp;', '"': '&quot;', '\u00a0': '&nbsp;', '<': '&lt;', '>': '&gt;' })[c]);

function secret(element) {
  if (!(element.localName === 'input' || element.localName === 'textarea')) return false;
  const hints = (element.getAttribute('autocomplete') || '').toLowerCase();
  return element.type === 'password' || /one-time-code|(current|new)-password/.test(hints) || wasPassword.has(element);
}

// "Show password" buttons make a text field of it; it stays one for us.
const wasPassword = new WeakSet();
const noted = (root) => {
  for (const field of root.querySelectorAll('input[type=password]')) wasPassword.add(field);
};
addEventListener('focusin', (event) => {
  const field = event.composedPath()[0];
  if (field instanceof HTMLInputElement && field.type === 'password') wasPassword.add(field);
}, true);
addEventListener('DOMContentLoaded', () => noted(document));

// What a page shows beside its markup, pictures and style sheets, is named here by marks, in place of which its content comes
// afterwards: `uses` has the address of each. Only for the document itself; frames are shown without.
const MOST_USES = 1000;
function marks(nonce) {
  const uses = new Map();
  const mark = (address) => {
    let url;
    try {
      url = new URL(address, document.baseURI);
    } catch {
      return address;
    }
    if (!/^https?:$/.test(url.protocol)) return address;
    url.hash = '';
    if (!uses.has(url.href)) {
      if (uses.size >= MOST_USES) return url.href;
      uses.set(url.href, uses.size);
    }
    return `${nonce}${uses.get(url.href)};`;
  };
  const inCss = (text) =>
    text.replace(/url\(\s*(?:"([^"\\\n]*)"|'([^'\\\n]*)'|([^\s"'()\\]+))\s*\)/gi, (whole, a, b, c) => `url("${mark(a ?? b ?? c)}")`);
  return { uses, mark, inCss };
}

// The rules of sheets that were made by a script and have no text.
const rules = (sheets) => {
  let text = '';
  try {
    for (const sheet of sheets) if (!sheet.disabled) for (const rule of sheet.cssRules) text += `${rule.cssText}\n`;
  } catch { /* of another origin */ }
  return text.replace(/<\//g, '<\\/');
};

function attributes(element, shown) {
  const list = [...element.attributes].map((one) => [one.name, one.value]);
  const set = (name, value) => {
    const at = list.findIndex((one) => one[0] === name);
    if (value === null) {
      if (at >= 0) list.splice(at, 1);
    } else if (at >= 0) list[at][1] = value;
    else list.push([name, value]);
  };
  if (secret(element)) {
    set('value', element.value ? '•••' : null);
    // The picture is taken next: what Chrome does not cover by itself is covered here.
    if (element.value && element.type !== 'password') element.style.setProperty('-webkit-text-security', 'disc', 'important');
  } else if (element.localName === 'input') {
    if (element.type === 'checkbox' || element.type === 'radio') set('checked', element.checked ? '' : null);
    else if (element.type !== 'file' && element.value !== element.defaultValue) set('value', element.value);
  } else if (element.localName === 'option') {
    set('selected', element.selected ? '' : null);
  } else if (element.localName === 'iframe' || element.localName === 'frame') {
    let inner = null;
    try {
      inner = element.contentDocument;
    } catch { /* of another origin */ }
    if (inner && inner.documentElement && element.localName === 'iframe') set('srcdoc', serialised(inner));
  }
  if (shown) show(element, set, shown, list);
  return list.map(([name, value]) => ` ${name}="${inAttribute(value)}"`).join('');
}

// The picture that the browser has chosen is the one that is kept.
function show(element, set, { mark, inCss }, list) {
  const name = element.localName;
  const style = element.getAttribute('style');
  if (style && /url\(/i.test(style)) set('style', inCss(style));
  const aside = (attribute) => {
    const at = list.findIndex((one) => one[0] === attribute);
    if (at >= 0) list[at][0] = `data-${attribute}`;
  };
  if (name === 'img' || (name === 'input' && element.type === 'image')) {
    const source = element.currentSrc || element.src;
    if (source) set('src', mark(source));
    aside('srcset');
  } else if (name === 'source' && element.parentNode?.localName === 'picture') aside('srcset');
  else if (name === 'video' && element.poster) set('poster', mark(element.poster));
  else if (name === 'link') aside('href');
}

const sheetOf = (element) => element.localName === 'link' && element.sheet && !element.sheet.disabled && element.href;

function serialised(from, shown) {
  noted(from);
  const out = [];
  const type = from.doctype;
  if (type) out.push(`<!DOCTYPE ${type.name}${type.publicId ? ` PUBLIC "${type.publicId}"` : ''}${type.systemId ? `${type.publicId ? '' : ' SYSTEM'} "${type.systemId}"` : ''}>\n`);
  // Without recursion: documents can be nested thousands deep.
  const stack = [from.documentElement];
  while (stack.length) {
    const node = stack.pop();
    if (node === null) continue;
    if (typeof node === 'string') {
      out.push(node);
      continue;
    }
    if (node.nodeType === 3) {
      const parent = node.parentNode;
      const text = parent && raw.has(parent.localName) ? node.data : inText(node.data);
      out.push(shown && parent?.localName === 'style' ? shown.inCss(text) : text);
    } else if (node.nodeType === 8) {
      out.push(`<!--${node.data.replace(/--/g, '- -')}-->`);
    } else if (node.nodeType === 1) {
      const name = node.localName;
      if (shown && sheetOf(node)) {
        out.push(`<style${attributes(node, shown)}>${shown.mark(node.href)}</style>`);
        continue;
      }
      out.push(`<${name}${attributes(node, shown && name !== 'link' && shown)}>`);
      if (shown && name === 'style' && node.sheet && !node.textContent.trim()) out.push(shown.inCss(rules([node.sheet])));
      if (empty.has(name)) continue;
      const adopted = shown && name === 'head' && rules(from.adoptedStyleSheets);
      stack.push(`${adopted ? `<style>${shown.inCss(adopted)}</style>` : ''}</${name}>`);
      if (name === 'iframe') continue;
      if (name === 'textarea') {
        stack.push(secret(node) ? (node.value ? '•••' : '') : `\n${inText(node.value)}`);
        continue;
      }
      const children = name === 'template' ? node.content : node;
      for (let child = children.lastChild; child; child = child.previousSibling) stack.push(child);
      if (node.shadowRoot) {
        noted(node.shadowRoot);
        stack.push('</template>');
        for (let child = node.shadowRoot.lastChild; child; child = child.previousSibling) stack.push(child);
        const adopted = shown && rules(node.shadowRoot.adoptedStyleSheets);
        stack.push(`<template shadowrootmode="open">${adopted ? `<style>${shown.inCss(adopted)}</style>` : ''}`);
      }
    }
  }
  return out.join('');
}

ph.serialise = (cap, nonce) => {
  const shown = marks(nonce);
  const html = document.documentElement ? serialised(document, shown) : '';
  const uses = [...shown.uses.keys()];
  if (html.length <= cap) return { html, uses, full: html.length, truncated: false };
  return { uses, html: `${html.slice(0, cap)}\n<!-- cut here: ${html.length} characters in all -->`, full: html.length, truncated: true };
};
