// Tells the page around the frame how much room the thread wants.
const tell = () => parent.postMessage({ height: document.documentElement.offsetHeight + 8 }, '*');
new ResizeObserver(tell).observe(document.body);
tell();
