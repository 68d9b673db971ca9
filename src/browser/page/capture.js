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

function attributes(element) {
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
  return list.map(([name, value]) => ` ${name}="${inAttribute(value)}"`).join('');
}

function serialised(from) {
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
      out.push(parent && raw.has(parent.localName) ? node.data : inText(node.data));
    } else if (node.nodeType === 8) {
      out.push(`<!--${node.data.replace(/--/g, '- -')}-->`);
    } else if (node.nodeType === 1) {
      const name = node.localName;
      out.push(`<${name}${attributes(node)}>`);
      if (empty.has(name)) continue;
      stack.push(`</${name}>`);
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
        stack.push('<template shadowrootmode="open">');
      }
    }
  }
  return out.join('');
}

ph.serialise = (cap) => {
  const html = document.documentElement ? serialised(document) : '';
  if (html.length <= cap) return { html, full: html.length, truncated: false };
  return { html: `${html.slice(0, cap)}\n<!-- cut here: ${html.length} characters in all -->`, full: html.length, truncated: true };
};
