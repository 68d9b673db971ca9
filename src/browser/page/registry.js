// Runs in an isolated world of every document: sees the page's DOM, is not seen by the page's scripts.
const kept = new Map();
const numbers = new WeakMap();
// Numbers of one document mean nothing in another: they start anywhere.
let next = 1 + Math.floor(Math.random() * 2e9);

const ph = {
  keep(element) {
    if (!(element instanceof Element)) throw new TypeError('ph.keep wants an element');
    let number = numbers.get(element);
    if (number === undefined) {
      number = next++;
      numbers.set(element, number);
      kept.set(number, element);
    }
    return number;
  },

  get(number) {
    const element = kept.get(number);
    return element && element.isConnected ? element : null;
  },

  // All matches in document order, those in open shadow roots included.
  deepQueryAll(css, root = document) {
    const found = [];
    const visit = (scope) => {
      for (const element of scope.querySelectorAll('*')) {
        if (element.matches(css)) found.push(element);
        if (element.shadowRoot) visit(element.shadowRoot);
      }
    };
    if (root.shadowRoot) visit(root.shadowRoot);
    visit(root);
    return found;
  },

  // A selector that finds `element` again in its own document or shadow root; for people and for records.
  css(element) {
    const parts = [];
    for (let at = element; at && at.nodeType === 1; at = at.parentElement) {
      const tag = CSS.escape(at.localName);
      if (at.id) {
        const own = `#${CSS.escape(at.id)}`;
        if (at.getRootNode().querySelectorAll(own).length === 1) {
          parts.unshift(own);
          break;
        }
      }
      const same = at.parentElement ? [...at.parentElement.children].filter((other) => other.localName === at.localName) : [at];
      parts.unshift(same.length > 1 ? `${tag}:nth-of-type(${same.indexOf(at) + 1})` : tag);
      if (parts.length === 8) break;
    }
    return parts.join(' > ');
  },

  // Calls `look` now, on every change of the document and every 100 ms, until it gives something; null when time is over.
  async watch(look, limit) {
    const end = performance.now() + limit;
    for (;;) {
      const found = await look();
      if (found !== null && found !== undefined) return found;
      const left = end - performance.now();
      if (left <= 0) return null;
      await new Promise((resolve) => {
        const done = () => {
          observer.disconnect();
          clearTimeout(timer);
          resolve();
        };
        const observer = new MutationObserver(done);
        observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
        const timer = setTimeout(done, Math.min(100, left));
      });
    }
  },
};
